//! Where a byte stands in a short text. Texts of a line have some fifty bytes: a call of memchr takes longer to begin than
//! this takes to end.

use crate::sys::bytes::which;

/// The first byte of `text` that is one of `wanted`.
#[inline(always)]
pub(crate) fn find<const N: usize>(text: &[u8], wanted: [u8; N]) -> Option<usize> {
    let mut at = 0;
    for block in text.as_chunks::<16>().0 {
        let found = which(block, wanted);
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize);
        }
        at += 16;
    }
    // The last sixteen once more, of which the first are known to be none.
    if let Some(last) = text.last_chunk::<16>() {
        let found = which(last, wanted);
        return (found != 0).then(|| text.len() - 16 + found.trailing_zeros() as usize);
    }
    text.iter().position(|byte| wanted.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_one_is_found_wherever_it_stands() {
        for len in 0..70 {
            let mut text = vec![b'a'; len];
            assert_eq!(find(&text, [b'"', b'\\']), None);
            for at in (0..len).rev() {
                text[at] = if at % 2 == 0 { b'"' } else { b'\\' };
                assert_eq!(find(&text, [b'"', b'\\']), Some(at));
            }
        }
    }
}
