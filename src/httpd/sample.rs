//! The line that httpd would write by a LogFormat, for one invented request: whether `--format` fits is tried, not
//! argued. (Comparing the two strings would call `%b` and `%O` different, and `%h` and `%a`.)

use std::fmt::Write;

use chrono::{TimeZone, Utc};

/// The client of the sample line; its peer is another address.
pub const CLIENT: &str = "192.0.2.7";

/// One access line in this format.
#[must_use]
pub fn sample(format: &str) -> String {
    let mut line = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => line.extend(chars.next().map(|c| match c {
                't' => '\t',
                'n' => '\n',
                other => other,
            })),
            '%' => directive(&mut chars, &mut line),
            other => line.push(other),
        }
    }
    line
}

fn directive(chars: &mut std::str::Chars<'_>, line: &mut String) {
    let mut argument = String::new();
    while let Some(c) = chars.next() {
        match c {
            '!' | '<' | '>' | ',' | '0'..='9' => {}
            '{' => argument = chars.by_ref().take_while(|&c| c != '}').collect(),
            '%' => return line.push('%'),
            '^' => {
                chars.nth(1); // %^ti, %^to, %^FB: two letters more
                return line.push('-');
            }
            letter => return line.push_str(&value(letter, &argument)),
        }
    }
}

fn value(letter: char, argument: &str) -> String {
    let text = match (letter, argument) {
        ('a' | 'h', "c") => "198.51.100.3",
        ('a' | 'h', _) => CLIENT,
        ('s', _) => "404",
        ('b' | 'B' | 'O' | 'I' | 'S', _) => "512",
        ('D', _) | ('T', "us") => "1500",
        ('T', "ms") => "1",
        ('T' | 'k', _) => "0",
        ('t', time) => return logged(time),
        ('r', _) => "GET /page?q=1 HTTP/1.1",
        ('m', _) => "GET",
        ('U', _) => "/page",
        ('q', _) => "?q=1",
        ('f', _) => "/var/www/page",
        ('H', _) => "HTTP/1.1",
        ('v' | 'V', _) => "www.example.org",
        ('p', _) => "80",
        ('P', "hextid") => "7f00a1b2c3d4",
        ('P', _) => "1234",
        ('X', _) => "+",
        ('i', name) if name.eq_ignore_ascii_case("user-agent") => "Mozilla/5.0 (X11; Linux)",
        ('i', name) if name.eq_ignore_ascii_case("referer") => "http://www.example.org/",
        _ => "-",
    };
    text.to_owned()
}

/// `%t` and `%{...}t`.
fn logged(argument: &str) -> String {
    let time = argument
        .strip_prefix("begin:")
        .or(argument.strip_prefix("end:"))
        .unwrap_or(argument);
    let strftime = match time {
        "sec" => "%s",
        "msec" => "%s000",
        "usec" => "%s000000",
        "msec_frac" => "000",
        "usec_frac" => "000000",
        "" => "[%d/%b/%Y:%H:%M:%S %z]",
        other => other,
    };
    let mut text = String::new();
    let moment = Utc.timestamp_opt(1_480_000_000, 0).single();
    match moment.map(|moment| write!(text, "{}", moment.format(strftime))) {
        Some(Ok(())) => text,
        _ => "-".into(), // a letter that only this host's strftime knows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Format;
    use crate::parse::format::NICKNAMES;

    #[test]
    fn the_sample_of_each_named_format_is_read_as_that_format() {
        for (name, text) in NICKNAMES {
            let line = sample(text);
            let format = Format::compile(name).unwrap();
            let mut access = crate::parse::Access::default();
            format
                .read(line.as_bytes(), &mut access)
                .unwrap_or_else(|e| panic!("{line}: {e:?}"));
            assert_eq!(access.client.unwrap().to_string(), CLIENT, "{line}");
            assert_eq!((access.status, access.path), (404, &b"/page"[..]), "{line}");
        }
    }

    #[test]
    fn own_times_are_written_as_strftime_writes_them() {
        assert_eq!(
            sample(r"%{%Y/%m/%d:%H:%M:%S}t %h \t%200>s %{end:msec}t %%"),
            "2016/11/24:15:06:40 192.0.2.7 \t404 1480000000000 %"
        );
    }
}
