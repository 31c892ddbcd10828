//! The parser against a naive second one (`tests/fuzz/oracle.rs`), and against httpd's own way to write what clients sent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

use std::net::IpAddr;

use f2b_pipe::parse::Format;
use proptest::prelude::*;
use proptest::sample::{Index, select};

#[path = "fuzz/oracle.rs"]
mod oracle;

/// Text that would like to be something else.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let words = select(vec![
        "\"",
        "\\",
        "\"\"",
        "\\\"",
        " ",
        "  ",
        "-",
        "[",
        "]",
        ":",
        "6.6.6.6",
        "6.6.6.6 - - ",
        "::1",
        "404",
        "200 5",
        "[00/AAA/0000:00:00:00 +0000]",
        " [00/AAA/0000:00:00:00 +0000] \"",
        "\" 401 1 \"-\" \"-\"",
        "GET / HTTP/1.1",
        "f2b:17:www",
        "\" f2b:17:www",
        "\n",
        "\r",
        "\t",
        "\0",
        "x",
        "1",
        "|",
    ]);
    let bytes = prop_oneof![
        8 => words.prop_map(|word| word.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    prop::collection::vec(bytes, 0..6).prop_map(|parts| parts.concat())
}

fn client() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ]
    .prop_map(|client| client.to_canonical())
}

/// What happens to a line on its way.
#[derive(Clone, Debug)]
enum Harm {
    Cut(Index, Index),
    Put(Index, Vec<u8>),
    Copy(Index, Index, Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<Index>;
    prop_oneof![
        (at(), at()).prop_map(|(a, b)| Harm::Cut(a, b)),
        (at(), text()).prop_map(|(a, text)| Harm::Put(a, text)),
        (at(), at(), at()).prop_map(|(a, b, c)| Harm::Copy(a, b, c)),
    ]
}

fn harmed(mut line: Vec<u8>, harms: &[Harm]) -> Vec<u8> {
    for harm in harms {
        let at = |index: &Index| index.index(line.len() + 1);
        let range = |a: &Index, b: &Index| at(a).min(at(b))..at(a).max(at(b));
        match harm {
            // Nearly always a small piece: a line that has lost half of itself is too easy.
            Harm::Cut(a, b) => {
                let range = range(a, b);
                let few = range.end.min(range.start + 3);
                line.drain(range.start..few);
            }
            Harm::Put(a, text) => {
                let at = at(a);
                line.splice(at..at, text.iter().copied());
            }
            Harm::Copy(a, b, c) => {
                let (piece, at) = (line[range(a, b)].to_vec(), at(c));
                line.splice(at..at, piece);
            }
        }
    }
    line
}

fn formats() -> Vec<Format> {
    oracle::FORMATS
        .map(|(format, _)| Format::compile(format).unwrap())
        .to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_line_is_read_in_the_only_way_there_is_or_not_at_all(
        number in 0..oracle::FORMATS.len(),
        client in client(),
        status in 100u16..1000,
        texts in prop::collection::vec(text(), 0..5),
        harms in prop::collection::vec(harm(), 0..4),
    ) {
        let line = oracle::written(oracle::FORMATS[number].1, client, status, &texts);
        let line = harmed(line, &harms);
        prop_assert_eq!(oracle::compare(number, &formats()[number], &line), Ok(()));
    }

    #[test]
    fn no_text_that_a_client_sends_makes_another_client_of_him(
        number in 0..oracle::FORMATS.len(),
        client in client(),
        status in 100u16..1000,
        texts in prop::collection::vec(text(), 1..5),
    ) {
        let line = oracle::written(oracle::FORMATS[number].1, client, status, &texts);
        let read = oracle::judged(&formats()[number], &line);
        prop_assert_eq!(read, Some((client, status)), "{}", line.escape_ascii());
    }

    #[test]
    fn two_pieces_of_different_f2b_lines_are_no_line(
        texts in prop::collection::vec(text(), 1..5),
        others in prop::collection::vec(text(), 1..5),
        cut in any::<Index>(),
        from in any::<Index>(),
    ) {
        let line = |client: &str, token: &str, texts| {
            let line = oracle::written(oracle::FORMATS[1].1, client.parse().unwrap(), 404, texts);
            let inner = line.strip_prefix(b"f2b:17:www").and_then(|l| l.strip_suffix(b"f2b:17:www")).unwrap();
            [token.as_bytes(), inner, token.as_bytes()].concat()
        };
        let (one, other) = (line("192.0.2.7", "f2b:17:a1", &texts), line("2001:db8::7", "f2b:18:a1", &others));
        let glued = [&one[..cut.index(one.len() + 1)], &other[from.index(other.len() + 1)..]].concat();
        let read = oracle::judged(&formats()[1], &glued);
        prop_assert!(read.is_none() || glued == one || glued == other, "{}", glued.escape_ascii());
    }
}

#[test]
fn the_naive_reader_is_not_blind() {
    let formats = formats();
    for (number, (name, pieces)) in oracle::FORMATS.iter().enumerate() {
        let client: IpAddr = "192.0.2.7".parse().unwrap();
        let line = oracle::written(
            pieces,
            client,
            404,
            &[b"al ice".to_vec(), b"GET /".to_vec()],
        );
        let naive = oracle::readings(pieces, &line, oracle::Taste::Strict);
        assert_eq!(
            naive.into_iter().collect::<Vec<_>>(),
            [(client, 404)],
            "{name}"
        );
        assert_eq!(
            oracle::judged(&formats[number], &line),
            Some((client, 404)),
            "{name}"
        );
    }
}
