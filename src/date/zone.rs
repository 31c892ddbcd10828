//! Zones as a line or logtimezone names them, and the local zone.

use chrono::{DateTime, Local, Offset, TimeZone};

use crate::pattern::ast::digit;

/// A zone that cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Not of a zone's form.
    Form,
    /// Of the form of an abbreviation, but none that is known.
    Name,
}

/// Abbreviations and their minutes east of UTC. Several zones share some of them (CST, EST, AMT); each has one fixed
/// meaning here, the one that fail2ban gives it, and summer time is its own name. All have one letter or three to five: it
/// reads no others, though its table has some.
#[rustfmt::skip]
const NAMES: &[(i32, &[&str])] = &[
    (-720, &["Y"]),
    (-660, &["X", "NUT", "SST"]),
    (-600, &["W", "CKT", "HAST", "HST", "TAHT", "TKT"]),
    (-570, &["MART", "MIT"]),
    (-540, &["V", "AKST", "GAMT", "GIT", "HADT", "HNY"]),
    (-480, &["U", "AKDT", "CIST", "HAY", "HNP", "PST"]),
    (-420, &["T", "HAP", "HNR", "MST", "PDT"]),
    (-360, &["S", "CST", "EAST", "GALT", "HAR", "HNC", "MDT"]),
    (-300, &["R", "CDT", "COT", "EASST", "ECT", "EST", "HAC", "HNE", "PET"]),
    (-270, &["HLV", "VET"]),
    (-240, &["Q", "AST", "BOT", "CLT", "COST", "EDT", "FKT", "GYT", "HAE", "HNA", "PYT"]),
    (-210, &["HNT", "NST"]),
    (-180, &["P", "ADT", "ART", "BRT", "CLST", "FKST", "GFT", "HAA", "PMST", "PYST", "SRT", "UYT", "WGT"]),
    (-150, &["HAT", "NDT"]),
    (-120, &["O", "BRST", "FNT", "PMDT", "UYST", "WGST"]),
    (-60, &["N", "AZOT", "CVT", "EGT"]),
    (0, &["Z", "EGST", "GMT", "UTC", "WET"]),
    (60, &["A", "CET", "DFT", "WAT", "WEDT", "WEST"]),
    (120, &["B", "CAT", "CEDT", "CEST", "EET", "SAST", "WAST"]),
    (180, &["C", "EAT", "EEDT", "EEST", "IDT", "MSK"]),
    (210, &["IRST"]),
    (240, &["D", "AMT", "AZT", "GET", "GST", "KUYT", "MSD", "MUT", "RET", "SAMT", "SCT"]),
    (270, &["AFT", "IRDT"]),
    (300, &["E", "AMST", "AQTT", "AZST", "HMT", "MAWT", "MVT", "PKT", "TFT", "TJT", "TMT", "UZT", "YEKT"]),
    (330, &["SLT"]),
    (345, &["NPT"]),
    (360, &["F", "ALMT", "BIOT", "BTT", "IOT", "KGT", "NOVT", "OMST", "YEKST"]),
    (390, &["CCT", "MMT"]),
    (420, &["G", "CXT", "DAVT", "HOVT", "ICT", "KRAT", "NOVST", "OMSST", "THA", "WIB"]),
    (480, &["H", "ACT", "AWST", "BDT", "BNT", "CAST", "HKT", "IRKT", "KRAST", "MYT", "PHT", "SGT", "ULAT", "WITA", "WST"]),
    (540, &["I", "AWDT", "IRKST", "JST", "KST", "PWT", "TLT", "WDT", "WIT", "YAKT"]),
    (570, &["ACST"]),
    (600, &["K", "AEST", "PGT", "VLAT", "YAKST", "YAPT"]),
    (630, &["ACDT", "LHST"]),
    (660, &["L", "AEDT", "LHDT", "MAGT", "NCT", "PONT", "SBT", "VLAST", "VUT"]),
    (690, &["NFT"]),
    (720, &["M", "ANAST", "ANAT", "FJT", "GILT", "MAGST", "MHT", "NZST", "PETST", "PETT", "TVT", "WFT"]),
    (780, &["FJST", "NZDT"]),
];

/// Seconds east of UTC of `Z`, `CET`, `+01`, `-0330`, `UTC+05:30`; empty is UTC.
pub(super) fn offset(zone: &str) -> Result<i64, Unknown> {
    let letters = zone.bytes().take_while(u8::is_ascii_uppercase).count();
    let (name, offset) = zone.split_at(letters);
    if !matches!(letters, 0 | 1 | 3..=5) {
        return Err(Unknown::Form);
    }
    let (sign, digits) = match offset.split_at_checked(1) {
        None => (1, ""),
        Some(("+", digits)) => (1, digits),
        Some(("-", digits)) => (-1, digits),
        Some(_) => return Err(Unknown::Form),
    };
    let minutes = if offset.is_empty() {
        0
    } else {
        sign * minutes_of(digits).ok_or(Unknown::Form)?
    };
    if name.is_empty() {
        return Ok(minutes * 60);
    }
    let named = NAMES
        .iter()
        .find(|(_, names)| names.contains(&name))
        .ok_or(Unknown::Name)?;
    Ok((i64::from(named.0) + minutes) * 60)
}

/// `01`, `0530`, `05:30`: minutes; nineteen hours are the most.
fn minutes_of(digits: &str) -> Option<i64> {
    let two = |text: &mut std::str::Chars| {
        let tens = digit(text.next()?)?;
        Some(i64::from(tens * 10 + digit(text.next()?)?))
    };
    let mut rest = digits.starts_with(['0', '1']).then(|| digits.chars())?;
    let hours = two(&mut rest)?;
    if rest.as_str().is_empty() {
        return Some(hours * 60);
    }
    let mut rest = rest
        .as_str()
        .strip_prefix(':')
        .unwrap_or(rest.as_str())
        .chars();
    let minutes = two(&mut rest)?;
    rest.as_str().is_empty().then_some(hours * 60 + minutes)
}

/// Seconds for which local time has no step: shifts and midnights of all zones fall on quarters of an hour.
pub(super) const QUARTER: i64 = 900;
/// Quarters whose offset is remembered: those of the clock and of the log, and their neighbours.
const KNOWN: usize = 4;

/// The process's zone. TZ is obeyed: names, files, POSIX rules.
#[derive(Clone, Debug)]
pub(super) struct LocalZone {
    /// The difference that the last conversion found, where the next one begins: as in mktime of the C library it decides
    /// about hours that come twice.
    pub(super) ahead: i64,
    known: [(i64, i64); KNOWN],
    oldest: usize,
}

impl Default for LocalZone {
    fn default() -> Self {
        LocalZone {
            ahead: 0,
            known: [(i64::MIN, 0); KNOWN],
            oldest: 0,
        }
    }
}

impl LocalZone {
    /// Seconds that the local clock is ahead of UTC at `epoch`.
    pub(super) fn offset(&mut self, epoch: i64) -> i64 {
        let quarter = epoch.div_euclid(QUARTER);
        if let Some((_, offset)) = self.known.iter().find(|(known, _)| *known == quarter) {
            return *offset;
        }
        let offset = system_offset(epoch);
        let from = quarter * QUARTER;
        // A zone of long ago, or one that somebody made up, may step within.
        if system_offset(from) == system_offset(from + QUARTER - 1)
            && let Some(place) = self.known.get_mut(self.oldest)
        {
            *place = (quarter, offset);
            self.oldest = (self.oldest + 1) % KNOWN;
        }
        offset
    }

    /// A local time (seconds since 1970 as if there were no zones) to the epoch, as mktime does, also where an hour comes
    /// twice or not at all.
    pub(super) fn epoch_of(&mut self, local: i64) -> i64 {
        let first = local - self.ahead;
        let (mut t, mut before, mut earlier) = (first, first, first);
        let mut offset_before = i64::MIN;
        for _ in 0..6 {
            let offset = self.offset(t);
            let error = local - (t + offset);
            // Between two values for ever: an hour that is not there. The summer side is preferred.
            if error == 0 || t == earlier && t != before && offset_before <= offset {
                break;
            }
            earlier = before;
            before = t;
            t += error;
            offset_before = offset;
        }
        self.ahead = local - t;
        t
    }
}

fn system_offset(epoch: i64) -> i64 {
    DateTime::from_timestamp(epoch, 0).map_or(0, |utc| {
        Local
            .offset_from_utc_datetime(&utc.naive_utc())
            .fix()
            .local_minus_utc()
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_with_and_without_a_name() {
        assert_eq!(offset("Z"), Ok(0));
        assert_eq!(offset("CEST"), Ok(7200));
        assert_eq!(offset("-0330"), Ok(-12600));
        assert_eq!(offset("UTC+05:30"), Ok(19800));
        assert_eq!(offset("+01"), Ok(3600));
        assert_eq!(offset(""), Ok(0));
    }

    #[test]
    fn what_is_no_zone_is_told_from_an_unknown_name() {
        assert_eq!(offset("FOO"), Err(Unknown::Name));
        assert_eq!(offset("pdt"), Err(Unknown::Form));
        assert_eq!(offset("Europe/Paris"), Err(Unknown::Form));
        assert_eq!(offset("+2x"), Err(Unknown::Form));
        assert_eq!(offset("+010"), Err(Unknown::Form));
    }
}
