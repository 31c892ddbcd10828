//! From a framed line to hits: parse and filter, joined. All of it is about text that strangers wrote; what comes out is
//! about clients. `run` gives it httpd's lines, `replay` those of an old log.

use crate::config::Config;
use crate::filter::{CompileError, Filter};
use crate::frame::{Framed, LINE_MAX_BYTES, Lines, Trust};
use crate::hit::{Batch, Party};
use crate::parse::text::Escaped;
use crate::parse::{Access, Format, Misfit, error_log};

/// How lines are read.
#[derive(Clone, Debug)]
pub enum Reader {
    /// Access lines.
    Access(Format),
    /// httpd's error log.
    ErrorLog,
}

/// A doubtful line longer than this may be a piece of two, even with equal tokens at its ends (PIPE_BUF, pipe(7)).
const ATOMIC_BYTES: usize = 4096;

impl Reader {
    /// Reads a line into an `access` that is empty, as far as it can be believed; `Ok(false)`: not at all.
    ///
    /// # Errors
    /// The line is not of the format.
    #[inline]
    pub fn read<'a>(
        &self,
        framed: Framed<'a>,
        trust: Trust,
        access: &mut Access<'a>,
    ) -> Result<bool, Misfit> {
        match (self, framed, trust) {
            (Self::Access(format), Framed::Line(line), Trust::Whole) => format.read(line, access),
            // With its newline; what is not longer than PIPE_BUF was written in one piece.
            (Self::Access(format), Framed::Line(line), Trust::Doubtful)
                if format.is_sealed() && line.len() < ATOMIC_BYTES =>
            {
                format.read(line, access)
            }
            (_, _, Trust::Doubtful) => return Ok(false),
            (Self::Access(format), Framed::Head(head), Trust::Whole) => {
                format.read_head(head, access)
            }
            (Self::ErrorLog, Framed::Line(line) | Framed::Head(line), Trust::Whole) => {
                error_log::read(line, access)
            }
        }
        .map(|()| true)
    }
}

/// The rooms between frame and [`Batch`].
#[derive(Debug)]
pub struct Sifter {
    reader: Reader,
    filter: Filter,
    misfit: Option<(Misfit, String)>,
    /// Host names stand where addresses should: nothing is judged any more.
    names: bool,
    tally: Tally,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Lines.
    pub lines: u64,
    /// Of these, lines that do not fit the format.
    pub unparsed: u64,
    /// Lines not judged because the pipe may have been full.
    pub doubtful: u64,
}

/// Hits that are counted together, so that their clients can be fetched from memory side by side and not one after the
/// other: that wait is the largest part of a line's way (with 50,000 clients: a third).
const BATCH: usize = 64;
/// What of a line that does not fit is shown, bytes.
const MISFIT_BYTES: usize = 200;

impl Sifter {
    /// Compiles the native jails of `config` for lines that `reader` reads.
    ///
    /// # Errors
    /// The patterns of all jails together are too large.
    pub fn new(config: &Config, reader: Reader) -> Result<Self, CompileError> {
        Ok(Self {
            reader,
            filter: Filter::compile(config.native())?,
            misfit: None,
            names: false,
            tally: Tally::default(),
        })
    }

    /// Other jails from now on; the old ones are returned, to be freed where nobody waits. What was read stays counted.
    pub fn renew(&mut self, filter: Filter) -> Filter {
        std::mem::replace(&mut self.filter, filter)
    }

    /// See [`Filter::set_key`].
    pub fn set_key(&mut self, key: u64) {
        self.filter.set_key(key);
    }

    /// What was read so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The first line that did not fit the format, escaped, and where.
    #[must_use]
    pub fn first_misfit(&self) -> Option<&(Misfit, String)> {
        self.misfit.as_ref()
    }

    /// Do host names stand where addresses should (HostnameLookups)? Then nothing is judged.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.names
    }

    /// Reads lines, and hands over their hits some at a time; `each` empties what it gets.
    pub fn lines<'l>(
        &mut self,
        mut lines: Lines<'l>,
        trust: Trust,
        each: &mut dyn FnMut(&mut Batch<'l>),
    ) {
        let mut batch = Batch::default();
        loop {
            if let Some(bytes) = self.first(lines.left(), trust, &mut batch) {
                lines.pass(bytes);
            } else {
                let Some(framed) = lines.next() else { break };
                if let (Err(misfit), true) =
                    (self.line(framed, trust, &mut batch), self.misfit.is_none())
                {
                    let line = Escaped {
                        bytes: framed.bytes(),
                        max: MISFIT_BYTES,
                    };
                    self.misfit = Some((misfit, line.to_string()));
                }
            }
            if batch.hits.len() >= BATCH {
                each(&mut batch);
            }
        }
        if !batch.hits.is_empty() {
            each(&mut batch);
        }
    }

    /// Reads the first line as nearly all are, whose end shows while it is read, and appends its hits; its bytes.
    #[inline]
    fn first<'l>(&mut self, lines: &'l [u8], trust: Trust, batch: &mut Batch<'l>) -> Option<usize> {
        let (Reader::Access(format), Trust::Whole, [_, ..]) = (&self.reader, trust, lines) else {
            return None;
        };
        let mut access = Access::default();
        let bytes = format.read_first(lines, &mut access);
        let bytes = bytes.filter(|bytes| *bytes <= LINE_MAX_BYTES)?;
        self.tally.lines += 1;
        self.fits(&access, batch);
        Some(bytes)
    }

    /// Reads one line, and appends its hits.
    ///
    /// # Errors
    /// The line does not fit the format (it is counted, too).
    pub fn line<'l>(
        &mut self,
        framed: Framed<'l>,
        trust: Trust,
        batch: &mut Batch<'l>,
    ) -> Result<(), Misfit> {
        self.tally.lines += 1;
        let mut access = Access::default();
        match self.reader.read(framed, trust, &mut access) {
            Ok(true) => {}
            Ok(false) => {
                self.tally.doubtful += 1;
                return Ok(());
            }
            Err(misfit) => {
                self.tally.unparsed += 1;
                if let (Reader::Access(format), false) = (&self.reader, self.names) {
                    self.names = trust == Trust::Whole && format.has_name(framed.bytes(), misfit);
                }
                return Err(misfit);
            }
        }
        self.fits(&access, batch);
        Ok(())
    }

    /// Appends the hits of a line that fits.
    #[inline]
    fn fits<'l>(&mut self, access: &Access<'l>, batch: &mut Batch<'l>) {
        if self.names {
            self.tally.doubtful += 1;
            return;
        }
        // Without one nothing can count.
        let Some(client) = access.client else { return };
        let known = batch.hits.len();
        self.filter.hits(access, &mut batch.hits);
        let hits = batch.hits.len() - known;
        if hits > 0 {
            batch.parties.push(Party {
                client,
                hits,
                proxy: access.peer.filter(|peer| *peer != client),
                evidence: if access.is_error {
                    access.message
                } else {
                    access.request
                },
                status: access.status,
            });
        }
    }
}
