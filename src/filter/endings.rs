//! Endings of files that cost a server next to nothing. Asked about every path, so an ending is one number, and the table
//! is made so that no two of them have the same place.

/// Pictures, style sheets, scripts, fonts, films; and PDF, since readers ask for a document in dozens of ranges.
#[rustfmt::skip]
const ENDINGS: [&[u8]; 31] = [
    b"css", b"js", b"mjs", b"map", b"wasm",
    b"png", b"jpg", b"jpeg", b"gif", b"webp", b"avif", b"svg", b"ico", b"bmp",
    b"woff", b"woff2", b"ttf", b"otf", b"eot",
    b"mp4", b"webm", b"m4v", b"m4s", b"ts", b"mp3", b"m4a", b"ogg", b"oga", b"wav", b"vtt",
    b"pdf",
];

/// The longest ending with its dot: shorter than the shortest script with an ending behind it.
pub(super) const ENDING_BYTES: usize = ".woff2".len();

/// Does the path end in one of these, in any case?
#[inline]
pub(super) fn is_static(path: &[u8]) -> bool {
    let last = match path.last_chunk() {
        Some(last) => *last,
        None => {
            let mut last = [0; 8];
            let from = 8 - path.len().min(8);
            if let Some(end) = last.get_mut(from..) {
                end.copy_from_slice(path);
            }
            last
        }
    };
    let last = u64::from_le_bytes(last);
    // The highest bit of each byte that is a dot.
    let others = last ^ 0x2e2e_2e2e_2e2e_2e2e;
    let dots = !(((others & LOW).wrapping_add(LOW)) | others | LOW);
    let bits = dots.leading_zeros();
    if bits == 0 || bits >= 64 {
        return false;
    }
    // Bit 6 is set in letters, bit 5 in small ones.
    let small = last | (last >> 1 & 0x2020_2020_2020_2020);
    let ending = small.wrapping_shr(64 - bits);
    TABLE.get(place(ending, FACTOR)) == Some(&ending)
}

const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

const PLACES: usize = 128;

#[allow(
    clippy::cast_possible_truncation,
    reason = "seven bits are left, and a constant can call no `try_from`"
)]
const fn place(ending: u64, factor: u64) -> usize {
    (ending.wrapping_mul(factor) >> 57) as usize
}

/// As the last bytes of a path are read: the first letter lowest.
const fn number(mut letters: &[u8]) -> u64 {
    let mut number = 0;
    while let [rest @ .., last] = letters {
        number = number << 8 | *last as u64;
        letters = rest;
    }
    number
}

const FACTOR: u64 = {
    let mut factor = 0x9e37_79b9_7f4a_7c15;
    while table(factor).is_none() {
        factor = factor.wrapping_mul(0x5851_f42d_4c95_7f2d) | 1;
    }
    factor
};
static TABLE: [u64; PLACES] = match table(FACTOR) {
    Some(table) => table,
    None => [0; PLACES],
};

/// `None`: two have the same place.
#[allow(clippy::indexing_slicing, reason = "a constant can call no `get`")]
const fn table(factor: u64) -> Option<[u64; PLACES]> {
    let mut table = [0; PLACES];
    let mut n = 0;
    while n < ENDINGS.len() {
        let ending = number(ENDINGS[n]);
        let place = place(ending, factor);
        if table[place] != 0 {
            return None;
        }
        table[place] = ending;
        n += 1;
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_known_by_all_its_letters() {
        for ending in ENDINGS {
            let ending = String::from_utf8_lossy(ending);
            for good in [
                format!("/a.{ending}"),
                format!("/a.b.{}", ending.to_uppercase()),
                format!(".{ending}"),
            ] {
                assert!(is_static(good.as_bytes()), "{good}");
            }
            for bad in [
                format!("/a{ending}"),
                format!("/a.{ending}x"),
                format!("/a.x{ending}"),
                format!("/a.{ending}."),
                format!("/a.{}", &ending[1..]),
                ending.to_string(),
            ] {
                let known = ENDINGS
                    .iter()
                    .any(|e| bad.ends_with(&format!(".{}", e.escape_ascii())));
                assert_eq!(is_static(bad.as_bytes()), known, "{bad}");
            }
        }
        for bad in [
            &b""[..],
            b".",
            b"/",
            b"a.mp\x13",
            b".\x10\x13\x13",
            b"/a.\0js",
            b"\0js",
            b"js",
            b"/.....",
        ] {
            assert!(!is_static(bad), "{bad:?}");
        }
    }
}
