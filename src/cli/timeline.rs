//! Answers drawn along the time, a line a client.

use std::fmt::Write;
use std::time::Duration;

use crate::answer::Answer;
use crate::cli::json::Object;
use crate::engine::Rate;

/// How much time a column stands for, at least.
const COLUMN_MIN: Duration = Duration::from_millis(100);

/// How many columns the whole time has, at most.
const COLUMNS_MAX: u32 = 50;

/// How much later than it was given a client may note an answer, as a part of a slot. Clients that
/// ask often use a slot up in its first part, so this hides no "go" too many.
const NOTED_LATE: u32 = 4;

/// How the drawing looks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    /// Letters that every terminal and file has.
    Plain,
    /// Colours and marks.
    Terminal,
}

impl Style {
    fn mark(self, cell: Option<Answer>) -> &'static str {
        match (cell, self) {
            (None, _) => " ",
            (Some(Answer::Go), Self::Plain) => "#",
            (Some(Answer::Go), Self::Terminal) => "\x1b[32m●\x1b[0m",
            (Some(Answer::Sorry), Self::Plain) => ".",
            (Some(Answer::Sorry), Self::Terminal) => "\x1b[2m.\x1b[0m",
        }
    }
}

/// When which client heard what.
#[derive(Debug)]
pub(super) struct Timeline {
    limit: Rate,
    column: Duration,
    clients: Vec<Vec<(Duration, Answer)>>,
}

impl Timeline {
    /// A timeline of so many clients of a server that started at 0, over about `length`.
    pub(super) fn new(limit: Rate, clients: usize, length: Duration) -> Self {
        let column = COLUMN_MIN.max(length / COLUMNS_MAX);
        Self { limit, column, clients: vec![Vec::new(); clients] }
    }

    pub(super) fn add(&mut self, client: usize, at: Duration, answer: Answer) {
        self.clients[client].push((at, answer));
    }

    /// The slots: when each opened, and how often "go" was heard in it. The first one opened with
    /// the server, the others with the first "go" after the end of the last one.
    pub(super) fn slots(&self) -> Vec<(Duration, u64)> {
        let heard = self.clients.iter().flatten();
        let mut times: Vec<_> =
            heard.filter(|(_, answer)| *answer == Answer::Go).map(|(at, _)| *at).collect();
        times.sort_unstable();
        let mut slots = vec![(Duration::ZERO, 0)];
        for at in times {
            let slot = self.limit.in_seconds();
            let noted_late = if slots.len() == 1 { Duration::ZERO } else { slot / NOTED_LATE };
            if let Some((opened, count)) = slots.last_mut() {
                if at + noted_late > *opened + slot {
                    slots.push((at, 1));
                } else {
                    *count += 1;
                }
            }
        }
        slots
    }

    /// Whether no slot had more than the limit.
    pub(super) fn is_kept(&self) -> bool {
        self.slots().iter().all(|(_, count)| *count <= self.limit.max_requests())
    }

    /// The drawing: the borders of the slots, a line a client, and what it comes to.
    pub(super) fn draw(&self, style: Style) -> String {
        let slots = self.slots();
        let last = self.clients.iter().flatten().map(|(at, _)| self.column(*at)).max().unwrap_or(0);
        let mut borders = vec![' '; last + 1];
        for (opened, _) in &slots {
            borders[self.column(*opened).min(last)] = '|';
        }
        let mut drawing = format!("slots    {}\n", borders.iter().collect::<String>());
        for (number, heard) in self.clients.iter().enumerate() {
            let count = |wanted| heard.iter().filter(|(_, answer)| *answer == wanted).count();
            let (go, sorry) = (count(Answer::Go), count(Answer::Sorry));
            let line = self.cells(heard, last, style);
            // Writing to a string does not fail.
            let _ = writeln!(drawing, "client {} {line} {go:>3} go {sorry:>3} sorry", number + 1);
        }
        let most = slots.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let total: u64 = slots.iter().map(|(_, count)| count).sum();
        let go = style.mark(Some(Answer::Go));
        let sorry = style.mark(Some(Answer::Sorry));
        let opened = slots.len();
        let verdict = if self.is_kept() { "kept" } else { "BROKEN" };
        let _ = writeln!(
            drawing,
            "{go} go  {sorry} sorry  | slot opens   {total} go in {opened} slots, \
             at most {most} in one: {verdict}",
        );
        drawing
    }

    /// What it comes to, for programs: how often each client heard what, and how often "go" was
    /// heard in each slot.
    pub(super) fn object(&self) -> Object {
        let client = |heard: &Vec<(Duration, Answer)>| {
            let go = heard.iter().filter(|(_, answer)| *answer == Answer::Go).count();
            Object::new().with("go", &go).with("sorry", &(heard.len() - go))
        };
        let slots: Vec<u64> = self.slots().iter().map(|(_, count)| *count).collect();
        Object::new()
            .with("limit", &self.limit.to_string())
            .with("clients", &self.clients.iter().map(client).collect::<Vec<_>>())
            .with("slots", &slots)
            .with("kept", &self.is_kept())
    }

    fn column(&self, at: Duration) -> usize {
        usize::try_from(at.as_millis() / self.column.as_millis()).unwrap_or(usize::MAX)
    }

    /// One client's line. A column with several answers shows a "go" if there is one.
    fn cells(&self, heard: &[(Duration, Answer)], last: usize, style: Style) -> String {
        let mut cells = vec![None; last + 1];
        for (at, answer) in heard {
            let cell = &mut cells[self.column(*at)];
            if *cell != Some(Answer::Go) {
                *cell = Some(*answer);
            }
        }
        cells.into_iter().map(|cell| style.mark(cell)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::json::document;

    fn timeline(heard: &[(usize, u64, Answer)]) -> Timeline {
        let limit = Rate::new(2, 0.8).unwrap();
        let mut timeline = Timeline::new(limit, 2, Duration::from_secs(5));
        for (client, millis, answer) in heard {
            timeline.add(*client, Duration::from_millis(*millis), *answer);
        }
        timeline
    }

    #[test]
    fn the_drawing_is_this() {
        use Answer::{Go, Sorry};

        let drawn = timeline(&[
            (0, 120, Go),
            (1, 130, Go),
            (0, 220, Sorry),
            (1, 860, Go),
            (0, 870, Go),
            (1, 960, Sorry),
        ]);
        assert_eq!(
            drawn.draw(Style::Plain),
            "slots    |       | \n\
             client 1  #.     #    2 go   1 sorry\n\
             client 2  #      #.   2 go   1 sorry\n\
             # go  . sorry  | slot opens   4 go in 2 slots, at most 2 in one: kept\n"
        );
        assert_eq!(
            document(&drawn.object()),
            "{\"limit\": \"2/0.8s\", \"clients\": [{\"go\": 2, \"sorry\": 1}, \
             {\"go\": 2, \"sorry\": 1}], \"slots\": [2, 2], \"kept\": true}"
        );
    }

    #[test]
    fn a_slot_with_too_many_is_seen() {
        let go = |millis| (0, millis, Answer::Go);
        assert!(timeline(&[go(100), go(200), go(900), go(1000), go(1590)]).is_kept());
        assert!(!timeline(&[go(100), go(200), go(300)]).is_kept());
        assert!(!timeline(&[go(100), go(900), go(1000), go(1100)]).is_kept());
    }
}
