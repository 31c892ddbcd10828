//! How httpd cuts its configuration into words: bytes of a file to logical lines, lines to words, words of a piped log
//! to arguments. Rule for rule what httpd 2.4 does (server/util.c `ap_getword_conf`, `substring_conf`,
//! `ap_resolve_env`; apr `apr_tokenize_to_argv`), because a reader that is a little more lenient approves of a line
//! that httpd reads differently.

use std::collections::BTreeMap;

/// Lines with their numbers (of the first physical line): a backslash at the end continues, a `#` at the beginning is a
/// comment (and continues, too), blanks around are cut.
pub(super) fn lines(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    for (number, raw) in (1..).zip(text.lines()) {
        let (start, mut line) = pending.take().unwrap_or((number, String::new()));
        if let Some(continued) = raw.strip_suffix('\\') {
            line.push_str(continued);
            pending = Some((start, line));
            continue;
        }
        line.push_str(raw);
        keep(&mut found, start, &line);
    }
    if let Some((start, line)) = pending {
        keep(&mut found, start, &line);
    }
    found
}

fn keep(found: &mut Vec<(usize, String)>, start: usize, line: &str) {
    let line = line.trim();
    if !line.is_empty() && !line.starts_with('#') {
        found.push((start, line.to_owned()));
    }
}

/// What `Define` and the environment give.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables(BTreeMap<String, String>);

impl Variables {
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The lines `NAME=value` and `export NAME=value` of a shell file such as Debian's `envvars`. What needs a shell (a
    /// condition, a command) is passed over; `$NAME` in a value is what an earlier line gave, or nothing.
    pub(super) fn add_shell_file(&mut self, text: &str) {
        for (_, line) in lines(text) {
            let line = line.strip_prefix("export ").unwrap_or(&line).trim_start();
            let Some((name, value)) = line.split_once('=') else {
                continue;
            };
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(is_name) || value.contains(['`', '(']) {
                continue;
            }
            let bare = value.trim_matches(['"', '\'']);
            let value = self.expand_shell(bare);
            self.set(name, &value);
        }
    }

    fn expand_shell(&self, text: &str) -> String {
        let mut pieces = text.split('$');
        let mut out = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (name, rest) = match piece.strip_prefix('{').and_then(|p| p.split_once('}')) {
                Some(braced) => braced,
                None => {
                    let end = piece
                        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                        .unwrap_or(piece.len());
                    piece.split_at(end)
                }
            };
            out.push_str(self.0.get(name).map_or("", String::as_str));
            out.push_str(rest);
        }
        out
    }

    /// `${NAME}` replaced; an unknown one stays as it is, as in httpd.
    pub(super) fn expand(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let known = after
                .split_once('}')
                .and_then(|(name, behind)| Some((self.0.get(name)?, behind)));
            rest = if let Some((value, behind)) = known {
                out.push_str(value);
                behind
            } else {
                out.push_str("${");
                after
            };
        }
        out + rest
    }
}

/// The words of a directive, each unquoted, then with its variables in place.
pub(super) fn words(line: &str, variables: &Variables) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let mut word = String::new();
        let mut chars = rest.chars();
        if quote.is_some() {
            chars.next();
        }
        while let Some(c) = chars.next() {
            let next = chars.clone().next();
            match c {
                '\\' if next == Some('\\') || (quote.is_some() && next == quote) => {
                    word.extend(next);
                    chars.next();
                }
                c if Some(c) == quote => break,
                c if quote.is_none() && c.is_ascii_whitespace() => break,
                c => word.push(c),
            }
        }
        found.push(variables.expand(&word));
        rest = chars.as_str().trim_start();
    }
    found
}

/// The arguments of a piped program: cut at blanks; quotes count only where an argument begins; a backslash keeps a
/// blank or a quote from ending it, and in the end each backslash is taken away, but for one behind another.
pub(super) fn argv(command: &str) -> Vec<String> {
    let is_blank = |c: char| c == ' ' || c == '\t';
    let mut found = Vec::new();
    let mut rest = command.trim_start_matches(is_blank);
    while let Some(first) = rest.chars().next() {
        let quote = matches!(first, '"' | '\'').then_some(first);
        let mut chars = rest.chars();
        if quote.is_some() {
            chars.next();
        }
        let mut word = String::new();
        while let Some(c) = chars.next() {
            let kept = chars
                .clone()
                .next()
                .filter(|&n| is_blank(n) || n == '"' || n == '\'');
            match c {
                '\\' if kept.is_some() => {
                    word.push(c);
                    word.extend(chars.next());
                }
                c if quote == Some(c) || (quote.is_none() && is_blank(c)) => break,
                c => word.push(c),
            }
        }
        found.push(without_backslashes(&word));
        rest = chars.as_str().trim_start_matches(is_blank);
    }
    found
}

fn without_backslashes(word: &str) -> String {
    let mut out = String::new();
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        if c == '\\' {
            out.extend(chars.next());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backslash_joins_lines_and_the_first_number_stays() {
        let got = lines("# a \\\n comment\nListen 80\n\nCustomLog \\\r\n x\n  y \\\n  z\n");
        let want = [(3, "Listen 80"), (5, "CustomLog  x"), (7, "y   z")];
        assert_eq!(got, want.map(|(n, s)| (n, s.to_owned())));
    }

    #[test]
    fn words_are_cut_as_httpd_cuts_them() {
        let mut v = Variables::default();
        v.set("DIR", "/var/log");
        let cut = |s| words(s, &v);
        assert_eq!(
            cut(r#"LogFormat "%h \"%r\" \\n ${DIR}"   'a "b" \'c' x"y\\z"#),
            [
                "LogFormat",
                r#"%h "%r" \n /var/log"#,
                r#"a "b" 'c"#,
                r#"x"y\z"#
            ]
        );
        assert_eq!(cut("a ${NONE}/x \"\""), ["a", "${NONE}/x", ""]);
    }

    #[test]
    fn piped_commands_are_cut_as_apr_cuts_them() {
        assert_eq!(
            argv(r#"/bin/p --format "%h \"%r\"" 'a b' '' c\ d $X ; e"f"#),
            [
                "/bin/p",
                "--format",
                r#"%h "%r""#,
                "a b",
                "",
                "c d",
                "$X",
                ";",
                "e\"f"
            ]
        );
    }

    #[test]
    fn debians_envvars_give_the_log_directory() {
        let mut v = Variables::default();
        v.add_shell_file(
            "unset HOME\nif [ \"${X##/etc}\" != \"$X\" ] ; then\n\tSUFFIX=\"-${X##/etc/apache2-}\"\nelse\n\tSUFFIX=\nfi\n\
             export APACHE_LOG_DIR=/var/log/apache2$SUFFIX\nA=`id`\n",
        );
        assert_eq!(
            v.expand("${APACHE_LOG_DIR}/a.log ${A}"),
            "/var/log/apache2/a.log ${A}"
        );
    }
}
