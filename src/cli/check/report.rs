//! What `check` found: one finding each, and how it is shown.

use std::io::{self, Write};

use serde::Serialize;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It runs, but gives something up.
    Warn,
    /// It does not work.
    Fail,
}

/// Which part of the host it is about; shown in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Area {
    Configuration,
    Jails,
    Httpd,
    Kernel,
    Host,
}

impl Area {
    const ALL: [Self; 5] = [
        Self::Configuration,
        Self::Jails,
        Self::Httpd,
        Self::Kernel,
        Self::Host,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Configuration => "Configuration",
            Self::Jails => "Jails of other logs",
            Self::Httpd => "httpd",
            Self::Kernel => "Kernel and rights",
            Self::Host => "Host",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) area: Area,
    /// `file:line`, a file, a program.
    #[serde(rename = "where")]
    pub(super) place: Option<String>,
    /// What is so.
    pub(super) text: String,
    /// What to write or to type, ready to paste.
    pub(super) write: Option<String>,
}

/// All findings.
#[derive(Debug, Default)]
pub(super) struct Report(pub(super) Vec<Finding>);

impl Report {
    pub(super) fn ok(&mut self, area: Area, place: impl ToString, text: impl Into<String>) {
        self.add(Level::Ok, area, &place, text.into(), None);
    }

    pub(super) fn warn(
        &mut self,
        area: Area,
        place: impl ToString,
        text: impl Into<String>,
        write: impl Into<String>,
    ) {
        self.add(Level::Warn, area, &place, text.into(), Some(write.into()));
    }

    pub(super) fn fail(
        &mut self,
        area: Area,
        place: impl ToString,
        text: impl Into<String>,
        write: impl Into<String>,
    ) {
        self.add(Level::Fail, area, &place, text.into(), Some(write.into()));
    }

    fn add(
        &mut self,
        level: Level,
        area: Area,
        place: &dyn ToString,
        text: String,
        write: Option<String>,
    ) {
        let place = Some(place.to_string()).filter(|place| !place.is_empty());
        let write = write.filter(|write| !write.is_empty());
        self.0.push(Finding {
            level,
            area,
            place,
            text,
            write,
        });
    }

    pub(super) fn count(&self, level: Level) -> usize {
        self.0
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    }

    /// For people.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(super) fn show(&self, out: &mut dyn Write, colour: bool) -> io::Result<()> {
        for area in Area::ALL {
            let findings: Vec<&Finding> = self.0.iter().filter(|f| f.area == area).collect();
            if !findings.is_empty() {
                writeln!(out, "{}", area.title())?;
            }
            for finding in findings {
                finding.show(out, colour)?;
            }
        }
        let (fail, warn) = (self.count(Level::Fail), self.count(Level::Warn));
        let many = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        match (fail, warn) {
            (0, 0) => writeln!(out, "All is well."),
            (0, _) => writeln!(out, "It works, with {}.", many(warn, "warning")),
            _ => writeln!(out, "{}, {}.", many(fail, "failure"), many(warn, "warning")),
        }
    }
}

impl Finding {
    fn show(&self, out: &mut dyn Write, colour: bool) -> io::Result<()> {
        let (mark, paint) = match self.level {
            Level::Ok => ("ok  ", "32"),
            Level::Warn => ("warn", "33"),
            Level::Fail => ("FAIL", "1;31"),
        };
        if colour {
            write!(out, "  \x1b[{paint}m{mark}\x1b[0m  ")?;
        } else {
            write!(out, "  {mark}  ")?;
        }
        if let Some(place) = &self.place {
            write!(out, "{place}: ")?;
        }
        writeln!(out, "{}", self.text.replace('\n', "\n        "))?;
        for line in self.write.iter().flat_map(|write| write.lines()) {
            writeln!(out, "          {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_write_stands_under_what_is_wrong() {
        let mut report = Report::default();
        report.ok(Area::Kernel, "", "ip_set is there");
        report.warn(Area::Httpd, "a.conf:3", "torn", "GlobalLog x\nreload");
        let mut out = Vec::new();
        report.show(&mut out, false).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "httpd\n  warn  a.conf:3: torn\n          GlobalLog x\n          reload\n\
             Kernel and rights\n  ok    ip_set is there\nIt works, with 1 warning.\n"
        );
    }
}
