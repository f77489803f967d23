//! What is known of keys, locks and clients, as lines of cells that can be sorted and sought.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::cli::ls;
use crate::cli::status::rate;
use crate::cli::table::{Align, harmless, short};
use crate::engine::{ClientRow, KeyRow, LockRow, Mode};
use crate::observe::Answers;

/// A column of a pane.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) align: Align,
    /// Where there is no room for all, those with the highest rank are left out first.
    pub(super) rank: u8,
}

/// The place of the column that is drawn as bars, among those of the keys.
pub(super) const BARS: usize = 2;

const fn text(title: &'static str, rank: u8) -> Column {
    Column { title, align: Align::Left, rank }
}

const fn number(title: &'static str, rank: u8) -> Column {
    Column { title, align: Align::Right, rank }
}

pub(super) const KEY_COLUMNS: &[Column] = &[
    text("KEY", 0),
    number("RATE", 1),
    text("LAST MINUTE", 5),
    number("ALLOWED", 3),
    number("REFUSED", 2),
    number("WAIT", 4),
    number("HELD", 6),
    number("LEFT", 7),
    text("LIMIT", 8),
];

pub(super) const LOCK_COLUMNS: &[Column] = &[
    text("LOCK", 0),
    text("STATE", 4),
    number("SINCE", 3),
    number("LEFT", 1),
    number("QUEUE", 2),
    text("WHO", 5),
];

pub(super) const CLIENT_COLUMNS: &[Column] = &[
    text("CLIENT", 0),
    number("PID", 3),
    number("SINCE", 6),
    number("SILENT", 4),
    number("HELD", 1),
    number("WAIT", 2),
    text("FROM", 5),
];

/// A cell: how it reads, and what it is sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    weight: Option<u64>,
}

impl Cell {
    fn text(text: &str) -> Self {
        Self { text: harmless(text), weight: None }
    }

    fn number(text: String, weight: u64) -> Self {
        Self { text, weight: Some(weight) }
    }

    fn count(count: u64) -> Self {
        Self::number(brief(count), count)
    }

    fn length(length: std::time::Duration) -> Self {
        Self::number(short(length), u64::try_from(length.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The largest number first, and the first letter.
    fn compare(&self, other: &Self) -> Ordering {
        match (self.weight, other.weight) {
            (None, None) => self.text.cmp(&other.text),
            (one, two) => two.cmp(&one),
        }
    }
}

/// A line of a pane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// What it is about: a line that moves is known by it.
    pub(super) id: String,
    pub(super) cells: Vec<Cell>,
    /// What was answered in each of the last points of time.
    pub(super) points: Vec<Answers>,
    /// All that is known of it, where the cells are too narrow.
    pub(super) whole: String,
}

impl Line {
    /// The order of lines that are sorted by this column. No two are equal.
    pub(super) fn compare(&self, other: &Self, column: usize, reversed: bool) -> Ordering {
        let cell = |line: &Self| line.cells.get(column).cloned();
        let order = match (cell(self), cell(other)) {
            (Some(one), Some(two)) => one.compare(&two),
            _ => Ordering::Equal,
        };
        let order = if reversed { order.reverse() } else { order };
        order.then_with(|| self.id.cmp(&other.id))
    }

    /// Whether its name has this text in it, in small letters or large ones.
    pub(super) fn fits(&self, filter: &str) -> bool {
        let name = self.cells.first().map_or("", |cell| &cell.text);
        name.to_lowercase().contains(&filter.to_lowercase())
    }
}

/// The line of a key.
pub(super) fn key(row: &KeyRow, points: Vec<Answers>) -> Line {
    let left = if row.is_lock {
        Cell::number("-".to_owned(), 0)
    } else if row.frozen.is_zero() {
        Cell::count(row.remaining)
    } else {
        Cell::number("frozen".to_owned(), 0)
    };
    let rate = Cell::number(per_second(rate(row)), row.rate_millis);
    let mut whole = vec![format!("{}: {}", row.key, row.limit)];
    if !row.frozen.is_zero() {
        whole.push(format!("frozen for {}", short(row.frozen)));
    }
    if !row.reset_after.is_zero() {
        whole.push(format!("unused in {}", short(row.reset_after)));
    }
    let bars = Cell { text: String::new(), weight: rate.weight };
    let cells = vec![
        Cell::text(&row.key),
        rate,
        bars,
        Cell::count(row.allowed),
        Cell::count(row.refused),
        Cell::count(row.waiting),
        Cell::count(row.holders),
        left,
        Cell::text(&row.limit),
    ];
    Line {
        id: format!("{} {}", row.is_lock, row.key),
        cells,
        points,
        whole: harmless(&whole.join(", ")),
    }
}

/// The lines of locks: one for each holder, and one for each lock that has none yet.
pub(super) fn locks(rows: &[LockRow], busy: &[KeyRow]) -> Vec<Line> {
    let mut queues: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows {
        *queues.entry(&row.key).or_default() += u64::from(row.grant.is_none());
    }
    // Of a long queue not all are seen; of the busiest locks the server has counted them.
    for row in busy.iter().filter(|row| row.is_lock) {
        if let Some(queue) = queues.get_mut(&*row.key) {
            *queue = (*queue).max(row.waiting);
        }
    }
    let mut held: BTreeMap<&str, u64> = BTreeMap::new();
    for row in rows {
        *held.entry(&row.key).or_default() += u64::from(row.grant.is_some());
    }
    let mut lines = Vec::new();
    for row in rows {
        let has_holder = held.get(&*row.key).is_some_and(|count| *count > 0);
        if row.grant.is_none() && has_holder {
            continue;
        }
        if row.grant.is_none() {
            // The first who waits stands for all.
            held.insert(&row.key, 1);
        }
        lines.push(lock(row, queues.get(&*row.key).copied().unwrap_or(0)));
    }
    lines
}

fn lock(row: &LockRow, queue: u64) -> Line {
    let verb = if row.grant.is_some() { "held" } else { "wanted" };
    let state = match row.mode {
        Mode::Exclusive => verb.to_owned(),
        Mode::Read => format!("{verb} read"),
        Mode::Write => format!("{verb} write"),
        Mode::Permits { cost, .. } => format!("{verb} {}", cost.permits()),
    };
    let (name, pid, host) = (&row.client.name, row.client.pid, &row.client.host);
    let who = format!("{name} {pid} {host}");
    let who = who.trim();
    let token = row.grant.map_or_else(|| "-".to_owned(), |grant| grant.0.to_string());
    let kind = ls::kind(row.mode.shape());
    let cells = vec![
        Cell::text(&row.key),
        Cell::text(&state),
        Cell::length(row.since),
        Cell::length(row.left),
        Cell::count(queue),
        Cell::text(who),
    ];
    let whole = harmless(&format!("{}: {kind}, token {token}, {who}", row.key));
    Line { id: format!("{} {token}", row.key), cells, points: Vec::new(), whole }
}

/// The line of a client.
pub(super) fn client(row: &ClientRow) -> Line {
    let from = format!("{} {}", row.address, row.client.host);
    let from = from.trim();
    let name = if row.client.name.is_empty() { "-" } else { &*row.client.name };
    let cells = vec![
        Cell::text(name),
        Cell::number(row.client.pid.to_string(), row.client.pid.into()),
        Cell::length(row.since),
        Cell::length(row.silent),
        Cell::count(row.leases),
        Cell::count(row.waiting),
        Cell::text(from),
    ];
    let whole = harmless(&format!("{name}: process {} at {from}", row.client.pid));
    let id = format!("{:?} {name} {} {from}", row.session, row.client.pid);
    Line { id, cells, points: Vec::new(), whole }
}

/// A number in at most six letters.
pub(super) fn brief(number: u64) -> String {
    const UNITS: [(u64, char); 5] = [
        (1_000_000_000_000_000_000, 'E'),
        (1_000_000_000_000_000, 'P'),
        (1_000_000_000_000, 'T'),
        (1_000_000_000, 'G'),
        (1_000_000, 'M'),
    ];
    let Some((unit, letter)) = UNITS.into_iter().find(|(unit, _)| number >= *unit) else {
        return number.to_string();
    };
    // Cut, not rounded: nothing is shown that was not reached.
    let (whole, hundredths) = (number / unit, number % unit / (unit / 100));
    match whole {
        0..10 => format!("{whole}.{hundredths:02}{letter}"),
        10..100 => format!("{whole}.{}{letter}", hundredths / 10),
        _ => format!("{whole}{letter}"),
    }
}

/// How many a second, in at most seven letters.
pub(super) fn per_second(rate: f64) -> String {
    if rate < 99_999.95 {
        return format!("{rate:.1}");
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is above zero")]
    brief(rate as u64)
}
