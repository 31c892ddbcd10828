//! The answer as one page for a browser: it asks nobody for anything, and has no scripts.
//!
//! Positions in the plots are in percent of their width, so that the plot is as wide as the window and its letters stay
//! as they are.

use super::clients::Kind;
use super::report::{RULES, counted, head, rule};
use super::{Told, ToldJail};

/// A plot's bars are at most so high, pixels; below them stand the counts, above them the marks.
const HEIGHT: f64 = 150.0;
const TOP: f64 = 34.0;
/// The left edge of the first bar, percent.
const LEFT: f64 = 1.0;

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>f2b-pipe tune</title>
<style>
:root { color-scheme: light dark; --paper: #fcfcfa; --ink: #1d1f21; --faint: #6b7075; --line: #dcdcd6; --card: #fff;
  --ordinary: #4c8dd6; --search-engines: #8d7cc9; --authenticated: #3fa37c; --attackers: #d9534f; --take: #b26a00 }
@media (prefers-color-scheme: dark) { :root { --paper: #16181a; --ink: #e6e6e3; --faint: #9aa0a6; --line: #34383c;
  --card: #1e2124; --ordinary: #6aa5e8; --search-engines: #a797e0; --authenticated: #58bd95; --attackers: #ee7370; --take: #f0b25a } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.5rem; margin: 0 0 .25rem } h2 { font-size: 1.15rem; margin: 0 }
p { margin: .4rem 0 } .faint { color: var(--faint); font-size: .9rem }
section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin: 1.25rem 0 }
.wide { overflow-x: auto; margin: .75rem 0 }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .2rem .6rem; white-space: nowrap; border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--faint) } th:first-child, td:first-child { text-align: left; padding-left: 0 }
small { color: var(--faint) } tr.take td, tr.take small { font-weight: 600; color: var(--take) }
pre { background: var(--paper); border: 1px solid var(--line); border-radius: .35rem; padding: .6rem .8rem; margin: .6rem 0 0; overflow-x: auto }
.remark { border-left: 3px solid var(--take); padding-left: .7rem }
.why { font-weight: 600 }
.key { display: flex; margin-top: .75rem; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; color: var(--faint) }
.key i { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .35em }
svg { display: block; width: 100%; margin-top: .75rem } svg text { font: 11px system-ui, sans-serif; fill: var(--faint) }
svg text.take { fill: var(--take); font-weight: 600 }
td small { margin-left: .4rem }
@media (max-width: 36rem) { body { padding: 1rem .6rem 2rem } section { padding: .75rem } table { font-size: .78rem; width: 100% }
  th, td { padding: .2rem } th { white-space: normal; font-size: .68rem; vertical-align: bottom; overflow-wrap: normal; hyphens: manual }
  small { display: block; white-space: normal; font-size: .7rem } td small { margin-left: 0 } }
</style></head><body>
"#;

pub(super) fn page(told: &Told) -> String {
    let mut page = HEAD.to_owned();
    page += "<h1>Which numbers fit?</h1>\n";
    page += &format!("<p class=\"faint\">{}</p>\n", escaped(&head(told)));
    for remark in &told.remarks {
        page += &format!("<p class=\"remark\">{}</p>\n", escaped(remark));
    }
    for jail in &told.jails {
        section(jail, &mut page);
    }
    page += &format!(
        "<p class=\"faint\">{}</p>\n</body></html>\n",
        escaped(RULES)
    );
    page
}

fn section(jail: &ToldJail, page: &mut String) {
    *page += &format!(
        "<section><h2>{}</h2>\n<p class=\"faint\">{}</p>\n<p class=\"why\">{}</p>\n",
        escaped(&jail.name),
        escaped(&rule(jail)),
        escaped(&jail.why)
    );
    if let Some(paste) = &jail.paste {
        *page += &format!("<pre>{}</pre>\n", escaped(paste));
    }
    if !jail.histogram.is_empty() {
        plot(jail, page);
        spreads(jail, page);
        candidates(jail, page);
    }
    if jail.spared > 0 {
        *page += &format!(
            "<p class=\"faint\">Without {} clients that are never banned.</p>\n",
            jail.spared
        );
    }
    *page += "</section>\n";
}

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Ordinary => "ordinary",
        Kind::SearchEngine => "search-engines",
        Kind::Authenticated => "authenticated",
        Kind::Attacker => "attackers",
    }
}

/// How many clients came to which count. The height of a bar is the logarithm of its clients, and its colours share that
/// as the kinds share the clients.
fn plot(jail: &ToldJail, page: &mut String) {
    let bins = &jail.histogram;
    let all = |bin: &super::Bin| {
        Kind::ALL
            .iter()
            .map(|kind| *bin.clients.of(*kind))
            .sum::<usize>()
    };
    let most = bins.iter().map(all).max().unwrap_or(1).max(1);
    // The present and the recommended number must be in it, too.
    let highest = jail.maxretry.max(jail.recommended.unwrap_or(0));
    let mut edges: Vec<(u32, u32)> = bins.iter().map(|bin| (bin.from, bin.to)).collect();
    while let Some(&(_, to)) = edges.last()
        && to < highest
    {
        edges.push((to + 1, to.saturating_mul(2)));
    }
    let step = (100.0 - 2.0 * LEFT) / edges.len().max(1) as f64;
    let height = |many: usize| HEIGHT * (many as f64 + 1.0).ln() / (most as f64 + 1.0).ln();
    *page += "<div class=\"key\">";
    for kind in Kind::ALL {
        *page += &format!(
            "<span><i style=\"background:var(--{})\"></i>{}</span>",
            colour(kind),
            kind.words()
        );
    }
    *page += "</div>\n";
    let bottom = TOP + HEIGHT;
    *page += &format!(
        "<svg role=\"img\" aria-label=\"Clients by their highest count within findtime\" height=\"{}\">\n",
        bottom + 36.0
    );
    for (at, (from, to)) in edges.iter().enumerate() {
        let x = LEFT + step * at as f64;
        let middle = x + step / 2.0;
        if let Some(bin) = bins.get(at) {
            let many = all(bin);
            let mut y = bottom;
            for kind in Kind::ALL {
                let part = *bin.clients.of(kind);
                if part == 0 {
                    continue;
                }
                let high = height(many) * part as f64 / many as f64;
                y -= high;
                *page += &format!(
                    "<rect x=\"{:.2}%\" y=\"{y:.1}\" width=\"{:.2}%\" height=\"{high:.1}\" fill=\"var(--{})\"><title>{part} {} with {}</title></rect>\n",
                    x + step * 0.1,
                    step * 0.8,
                    colour(kind),
                    kind.words(),
                    span(*from, *to),
                );
            }
            if many > 0 {
                *page += &format!(
                    "<text x=\"{middle:.2}%\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                    y - 4.0,
                    short(many)
                );
            }
        }
        *page += &format!(
            "<text x=\"{middle:.2}%\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            bottom + 14.0,
            short(*from as usize)
        );
    }
    *page += &format!(
        "<line x1=\"0\" x2=\"100%\" y1=\"{bottom}\" y2=\"{bottom}\" stroke=\"var(--line)\"/>\n<text x=\"50%\" y=\"{:.1}\" text-anchor=\"middle\">highest count within findtime, from; heights are logarithms</text>\n",
        bottom + 31.0
    );
    let at = |number: u32| {
        let bin = edges.partition_point(|(_, to)| *to < number);
        let (from, to) = edges.get(bin).copied().unwrap_or((1, 1));
        let within =
            f64::from(number.saturating_sub(from)) / f64::from(to.saturating_sub(from) + 1);
        LEFT + step * (bin as f64 + within)
    };
    // The words of two marks stand away from each other, and inside the plot.
    let mut mark = |number: u32, class: &str, stroke: &str, is_left: bool, y: f64| {
        let x = at(number);
        let is_left = x > 82.0 || (is_left && x > 18.0);
        let (anchor, dx) = if is_left { ("end", -4) } else { ("start", 4) };
        *page += &format!(
            "<line x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"2\" y2=\"{bottom}\" stroke=\"{stroke}\" stroke-dasharray=\"4 3\"/>\n<text class=\"{class}\" x=\"{x:.2}%\" dx=\"{dx}\" y=\"{y}\" text-anchor=\"{anchor}\">{class} {number}</text>\n"
        );
    };
    let take = jail.recommended.filter(|take| *take != jail.maxretry);
    let is_left = take.is_none_or(|take| take > jail.maxretry);
    mark(jail.maxretry, "now", "var(--faint)", is_left, 11.0);
    if let Some(take) = take {
        mark(take, "take", "var(--take)", !is_left, 24.0);
    }
    *page += "</svg>\n";
}

fn spreads(jail: &ToldJail, page: &mut String) {
    *page += "<div class=\"wide\"><table><tr><th>highest count<th>clients<th>half<th>90 %<th>99 %<th>99.9 %<th>most</tr>\n";
    for kind in Kind::ALL {
        let spread = jail.kinds.of(kind);
        *page += &format!("<tr><td>{}", kind.words());
        if let Some(who) = &spread.busiest {
            *page += &format!(" <small>most: {}</small>", escaped(who));
        }
        *page += &format!("<td>{}", spread.clients);
        for count in [spread.p50, spread.p90, spread.p99, spread.p999, spread.max] {
            match spread.clients {
                0 => *page += "<td>",
                _ => *page += &format!("<td>{}", counted(count, jail)),
            }
        }
        *page += "</tr>\n";
    }
    *page += "</table></div>\n";
}

fn candidates(jail: &ToldJail, page: &mut String) {
    *page += "<div class=\"wide\"><table><tr><th>maxretry<th>banned<th>like people<th>attack&shy;ers<th>ordi&shy;nary<th>search engines<th>authen&shy;ti&shy;cated</tr>\n";
    for candidate in &jail.candidates {
        let is_taken = Some(candidate.maxretry) == jail.recommended;
        let is_now = candidate.maxretry == jail.maxretry;
        let (class, word) = match (is_taken, is_now) {
            (true, true) => (" class=\"take\"", "now, and good"),
            (true, false) => (" class=\"take\"", "take this"),
            (false, true) => ("", "now"),
            (false, false) => ("", ""),
        };
        let kinds = &candidate.by_kind;
        *page += &format!(
            "<tr{class}><td>{} <small>{word}</small><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>\n",
            candidate.maxretry,
            candidate.banned,
            candidate.people,
            kinds.attackers,
            kinds.ordinary,
            kinds.search_engines,
            kinds.authenticated
        );
    }
    *page += "</table></div>\n";
}

fn span(from: u32, to: u32) -> String {
    if from == to {
        from.to_string()
    } else {
        format!("{from} to {to}")
    }
}

/// A number in a few characters: `999`, `1.2k`, `33k`, `1.5M`.
fn short(number: usize) -> String {
    match number {
        0..=999 => number.to_string(),
        1000..=9999 => format!("{:.1}k", number as f64 / 1e3),
        10_000..=999_999 => format!("{}k", number / 1000),
        _ => format!("{:.1}M", number as f64 / 1e6),
    }
}

/// Text as it stands in a page.
fn escaped(text: &str) -> String {
    let mut page = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => page += "&lt;",
            '>' => page += "&gt;",
            '&' => page += "&amp;",
            '"' => page += "&quot;",
            c if c.is_control() && c != '\n' => page += "\u{fffd}",
            c => page.push(c),
        }
    }
    page
}
