//! Bytes to lines.
//!
//! In: chunks as they were read. Out: [`Framed::Line`] for each line that ends in a newline, without it, and
//! [`Framed::Head`] for one that is too long to keep. The rest of such a line, which its client wrote, never becomes a
//! line, also when it comes in a later chunk.

/// Longest line judged whole, bytes. Request line, Referer and User-Agent have 8,190 each by default (httpd.h
/// DEFAULT_LIMIT_REQUEST_*), each byte escaped to at most 4 (util.c ap_escape_logitem): 98,280, plus the fixed fields.
pub const LINE_MAX_BYTES: usize = 128 * 1024;

/// What may be believed of a chunk's lines (facts of Linux pipes: a write of more than PIPE_BUF bytes is torn only when
/// the pipe is full).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// The pipe may have been full: pieces of lines may stand for lines.
    Doubtful,
    /// The pipe had room all the time, or has a single writer.
    Whole,
}

/// One line, or what is kept of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed<'a> {
    /// Without its newline.
    Line(&'a [u8]),
    /// The first [`LINE_MAX_BYTES`] of a longer one.
    Head(&'a [u8]),
}

impl<'a> Framed<'a> {
    /// What there is.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Line(bytes) | Self::Head(bytes) => bytes,
        }
    }
}

/// The line that has begun and not ended.
#[derive(Debug, Default)]
pub struct Framer {
    begun: Vec<u8>,
    doubtful: bool,
    skipping: bool,
}

/// Lines of one chunk, in their order.
#[derive(Debug)]
pub struct Lines<'a> {
    first: Option<Framed<'a>>,
    /// Each ends in a newline.
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// All that is left, each line with its newline, for whoever finds the end of a line while reading it; empty where the
    /// next one does not stand there.
    #[must_use]
    pub fn left(&self) -> &'a [u8] {
        match self.first {
            Some(_) => b"",
            None => self.rest,
        }
    }

    /// The next line, which has `bytes` without its newline, was read.
    pub fn pass(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes + 1..).unwrap_or_default();
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Framed<'a>;

    fn next(&mut self) -> Option<Framed<'a>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let end = memchr::memchr(b'\n', self.rest)?;
        let (line, after) = self.rest.split_at_checked(end)?;
        self.rest = after.get(1..).unwrap_or_default();
        Some(match line.get(..LINE_MAX_BYTES) {
            Some(head) if line.len() > LINE_MAX_BYTES => Framed::Head(head),
            _ => Framed::Line(line),
        })
    }
}

impl Framer {
    /// A new beginning after chunks that were lost: if the last of them did not end in a newline, the rest of its line is
    /// no line.
    #[must_use]
    pub fn after(lost: &[u8]) -> Self {
        Self {
            skipping: lost.last().is_some_and(|last| *last != b'\n'),
            ..Self::default()
        }
    }

    /// Hands all lines that end in `chunk` to `take`, each with the least trust of the chunks it came in.
    pub fn feed(&mut self, chunk: &[u8], trust: Trust, mut take: impl FnMut(Lines<'_>, Trust)) {
        let mut rest = chunk;
        if self.skipping || !self.begun.is_empty() {
            let Some(end) = memchr::memchr(b'\n', rest) else {
                return self.begin(rest, trust, &mut take);
            };
            let (line, after) = rest.split_at_checked(end).unwrap_or((rest, b""));
            rest = after.get(1..).unwrap_or_default();
            self.begin(line, trust, &mut take);
            self.finish(&mut take);
        }
        let whole = memchr::memrchr(b'\n', rest).map_or(0, |at| at + 1);
        let (lines, begun) = rest.split_at_checked(whole).unwrap_or((rest, b""));
        if !lines.is_empty() {
            take(
                Lines {
                    first: None,
                    rest: lines,
                },
                trust,
            );
        }
        if !begun.is_empty() {
            self.begin(begun, trust, &mut take);
        }
    }

    /// What came after the last newline, when no more will come; for files, whose last line may lack one.
    pub fn finish(&mut self, mut take: impl FnMut(Lines<'_>, Trust)) {
        if !self.skipping && !self.begun.is_empty() {
            take(
                Lines {
                    first: Some(Framed::Line(&self.begun)),
                    rest: b"",
                },
                self.trust(),
            );
        }
        self.reset();
    }

    fn begin(&mut self, piece: &[u8], trust: Trust, take: &mut impl FnMut(Lines<'_>, Trust)) {
        self.doubtful |= trust == Trust::Doubtful;
        if self.skipping {
            return;
        }
        let room = LINE_MAX_BYTES - self.begun.len();
        self.begun
            .extend_from_slice(piece.get(..room).unwrap_or(piece));
        if piece.len() > room {
            self.skipping = true;
            take(
                Lines {
                    first: Some(Framed::Head(&self.begun)),
                    rest: b"",
                },
                self.trust(),
            );
        }
    }

    fn trust(&self) -> Trust {
        if self.doubtful {
            Trust::Doubtful
        } else {
            Trust::Whole
        }
    }

    fn reset(&mut self) {
        self.begun.clear();
        self.begun.shrink_to(4096);
        self.doubtful = false;
        self.skipping = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(chunks: &[&[u8]]) -> Vec<(bool, usize, Vec<u8>)> {
        let mut framer = Framer::default();
        let mut out = Vec::new();
        for chunk in chunks {
            framer.feed(chunk, Trust::Whole, |lines, _| {
                for framed in lines {
                    let bytes = framed.bytes();
                    let head = matches!(framed, Framed::Head(_));
                    out.push((head, bytes.len(), bytes[..bytes.len().min(3)].to_vec()));
                }
            });
        }
        out
    }

    #[test]
    fn lines_are_the_same_however_they_are_chunked() {
        let text = b"a\n\nbcd\nefg";
        let whole = framed(&[text]);
        for cut in 0..text.len() {
            assert_eq!(framed(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
        assert_eq!(whole.len(), 3);
    }

    #[test]
    fn the_tail_of_an_endless_line_never_becomes_a_line() {
        let long = vec![b'x'; LINE_MAX_BYTES + 5];
        let want = vec![
            (true, LINE_MAX_BYTES, b"xxx".to_vec()),
            (false, 2, b"ok".to_vec()),
        ];
        let tail = [&long[..], b"6.6.6.6 - -\nok\n"].concat();
        assert_eq!(framed(&[&tail]), want);
        assert_eq!(framed(&[&long, b"6.6.6.6 - -", b"6.6.6.6\nok\n"]), want);
        let just = [&long[..LINE_MAX_BYTES], b"\nok\n"].concat();
        assert_eq!(framed(&[&just])[0].1, LINE_MAX_BYTES);
        assert!(!framed(&[&just])[0].0);
    }

    #[test]
    fn a_line_is_trusted_no_more_than_its_least_trusted_piece() {
        let mut framer = Framer::default();
        let mut trusts = Vec::new();
        for (chunk, trust) in [
            (&b"a"[..], Trust::Doubtful),
            (b"b\nc\n", Trust::Whole),
            (b"d\n", Trust::Doubtful),
        ] {
            framer.feed(chunk, trust, |lines, trust| {
                trusts.extend(lines.map(|_| trust))
            });
        }
        assert_eq!(trusts, [Trust::Doubtful, Trust::Whole, Trust::Doubtful]);
    }
}
