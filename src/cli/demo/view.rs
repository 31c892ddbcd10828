//! The board for people: on a terminal a table that is drawn again and again, elsewhere the story line by line.

use std::io::{self, Write};
use std::time::Instant;

use super::board::{Ban, Board, Cut, Event, Mood, Row, millis};

/// Lines of the story below the table.
const STORY_LINES: usize = 8;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";
/// A longer line would wrap and break the count of lines to go up, so no wrapping; and no cursor running about.
const BEGIN: &str = "\x1b[?7l\x1b[?25l";
const END: &str = "\x1b[?7h\x1b[?25h";

/// How the play is shown.
pub(super) struct View {
    live: bool,
    /// The title of the table.
    title: String,
    /// Lines drawn last time.
    drawn: usize,
    /// Lines of the story that are out.
    told: usize,
}

impl View {
    /// `live`: a terminal is there that understands cursor movements.
    pub(super) fn new(live: bool, title: String) -> Self {
        Self {
            live,
            title,
            drawn: 0,
            told: 0,
        }
    }

    /// Shows what is new.
    pub(super) fn show(&mut self, board: &Board, out: &mut dyn Write) -> io::Result<()> {
        if self.live {
            self.draw(board, out)?;
        } else {
            for event in board.story.iter().skip(self.told) {
                writeln!(out, "{}", event_line(event, false))?;
            }
            self.told = board.story.len();
        }
        out.flush()
    }

    fn draw(&mut self, board: &Board, out: &mut dyn Write) -> io::Result<()> {
        let mut text = String::from(BEGIN);
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        let lines = self.table(board);
        for line in &lines {
            text.push_str(&format!("\r\x1b[2K{line}\n"));
        }
        self.drawn = lines.len();
        out.write_all(text.as_bytes())
    }

    /// Leaves the terminal as it was.
    pub(super) fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.live {
            out.write_all(END.as_bytes())?;
        }
        out.flush()
    }

    fn table(&self, board: &Board) -> Vec<String> {
        let now = Instant::now();
        let seconds = board.began.elapsed().as_secs_f64();
        let mut lines = vec![
            format!("{BOLD}{}{PLAIN}  {DIM}{seconds:4.1} s{PLAIN}", self.title),
            String::new(),
            format!(
                "{DIM}  {:<18}{:<20}{:>8}{:>9}   state{PLAIN}",
                "who", "address", "requests", "answered"
            ),
        ];
        lines.extend(board.rows.iter().map(|row| {
            let (colour, state) = state(row, now);
            format!(
                "  {:<18}{DIM}{:<20}{PLAIN}{:>8}{:>9}   {colour}{state}{PLAIN}",
                row.who,
                row.address.to_string(),
                row.requests.len(),
                row.answered(),
            )
        }));
        lines.push(String::new());
        let first = board.story.len().saturating_sub(STORY_LINES);
        let story = board.story.iter().skip(first);
        lines.extend(story.map(|event| event_line(event, true)));
        // Always as many lines, so that the table stands still.
        lines.resize(board.rows.len() + STORY_LINES + 4, String::new());
        lines
    }
}

fn state(row: &Row, now: Instant) -> (&'static str, String) {
    if row.friend {
        return match row.cut {
            None if row.requests.is_empty() => (DIM, "not here yet".to_owned()),
            None => (GREEN, "served".to_owned()),
            Some((_, how)) => (RED, format!("NOT SERVED: {}", how.text())),
        };
    }
    match (&row.ban, &row.cut, &row.back) {
        (Some(Ban { jail, .. }), _, Some(_)) => {
            (GREEN, format!("was banned by {jail}, is served again"))
        }
        (Some(Ban { jail, at }), _, None) => {
            let since = now.saturating_duration_since(*at).as_secs_f64();
            (RED, format!("BANNED by {jail} since {since:.1} s"))
        }
        (None, Some((_, how)), _) => (YELLOW, how.text().to_owned()),
        (None, None, _) if row.requests.is_empty() => (DIM, "not here yet".to_owned()),
        (None, None, _) => (YELLOW, "attacks".to_owned()),
    }
}

fn event_line(event: &Event, colours: bool) -> String {
    let seconds = event.at.as_secs_f64();
    let colour = match event.mood {
        Mood::Plain => PLAIN,
        Mood::Ban => RED,
        Mood::Cut => YELLOW,
        Mood::Good => GREEN,
        Mood::Wrong => BOLD,
    };
    if colours {
        format!(
            "  {DIM}{seconds:7.3} s{PLAIN}  {colour}{}{PLAIN}",
            event.text
        )
    } else {
        format!("  {seconds:7.3} s  {}", event.text)
    }
}

/// One line for each actor, and whether all went as it should.
pub(super) fn summary(board: &Board, dry: bool) -> (String, bool) {
    let mut text = String::new();
    let mut fine = true;
    for row in &board.rows {
        let (good, what) = if row.friend {
            let (asked, answered) = (row.requests.len(), row.answered());
            let longest = millis(row.longest());
            let what = format!("{answered} of {asked} requests served, longest wait {longest}");
            (asked > 0 && asked == answered, what)
        } else {
            attacker(row, dry)
        };
        fine &= good;
        let mark = if good { ' ' } else { '!' };
        text.push_str(&format!("{mark} {:<18}{what}\n", row.who));
    }
    (text, fine)
}

/// Whether it went as it should, and what happened, on two lines.
fn attacker(row: &Row, dry: bool) -> (bool, String) {
    let Some(ban) = &row.ban else {
        let served = row.answered();
        return (false, format!("not banned, {served} requests served"));
    };
    let jail = &ban.jail;
    let mut what = match row.deciding() {
        // The address was banned before this one came.
        None => format!("not served: its network was banned with the flood by {jail}"),
        Some((number, after)) => {
            let word = if dry { "would be banned" } else { "banned" };
            let requests = if number == 1 { "request" } else { "requests" };
            let after = millis(after);
            format!("{word} by {jail} after {number} {requests}, {after} after the last answer")
        }
    };
    if dry {
        return (true, what);
    }
    let Some((at, how)) = row.cut else {
        what.push_str(", but was not cut off");
        return (false, what);
    };
    if row.answered() > 0 {
        what.push_str(&format!("\n{:20}{}", "", how.text()));
        // Who opens a new connection waits in vain; how long he waits says nothing about us.
        if how == Cut::Reset {
            let after = millis(at.saturating_duration_since(ban.at));
            what.push_str(&format!(" {after} after that"));
        }
    }
    if let Some(back) = row.back {
        let after = back.saturating_duration_since(ban.at).as_secs_f64();
        what.push_str(&format!("; served again after {after:.1} s"));
    }
    (true, what)
}
