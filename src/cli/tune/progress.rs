//! How far the reading has come, on a terminal.

use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

/// Cells of the bar.
const CELLS: u64 = 30;
/// How often it is drawn.
const EVERY: Duration = Duration::from_millis(100);

/// A bar on stderr, gone when it is dropped; nothing where stderr is no terminal.
pub(super) struct Progress {
    /// Bytes of all logs; 0: not known.
    size: u64,
    shown: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    pub(super) fn new(size: u64) -> Self {
        Self {
            size,
            shown: io::stderr().is_terminal().then(Instant::now),
            is_shown: false,
        }
    }

    /// `read` of the bytes are read, which were so many `lines`.
    pub(super) fn show(&mut self, read: u64, lines: u64) {
        let Some(shown) = self.shown.filter(|shown| shown.elapsed() >= EVERY) else {
            return;
        };
        self.shown = Some(shown + shown.elapsed());
        self.is_shown = true;
        let text = format!("\r{}\x1b[K", bar(self.size, read, lines));
        io::stderr().write_all(text.as_bytes()).ok();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            io::stderr().write_all(b"\r\x1b[K").ok();
        }
    }
}

/// `[#########                     ]  30 %  412000 lines`.
fn bar(size: u64, read: u64, lines: u64) -> String {
    if size == 0 {
        return format!("{lines} lines");
    }
    let read = read.min(size);
    let full = usize::try_from(read.saturating_mul(CELLS) / size).unwrap_or(0);
    let rest = usize::try_from(CELLS).unwrap_or(0).saturating_sub(full);
    format!(
        "[{}{}] {:3} %  {lines} lines",
        "#".repeat(full),
        " ".repeat(rest),
        read.saturating_mul(100) / size
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_what_was_read() {
        assert_eq!(bar(0, 0, 7), "7 lines");
        assert_eq!(
            bar(200, 100, 7),
            "[###############               ]  50 %  7 lines"
        );
        assert_eq!(
            bar(200, 900, 7),
            format!("[{}] 100 %  7 lines", "#".repeat(30))
        );
    }
}
