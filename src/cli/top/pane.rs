//! A part of the view: what it lists, how that is sorted, and which line is selected.

use crate::cli::top::line::{CLIENT_COLUMNS, Column, KEY_COLUMNS, LOCK_COLUMNS, Line};

/// How far a page goes.
pub(super) const PAGE: usize = 10;

/// Which part of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Keys,
    Locks,
    Clients,
}

impl Subject {
    pub(super) const ALL: [Self; 3] = [Self::Keys, Self::Locks, Self::Clients];

    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Keys => KEY_COLUMNS,
            Self::Locks => LOCK_COLUMNS,
            Self::Clients => CLIENT_COLUMNS,
        }
    }

    pub(super) const fn next(self) -> Self {
        match self {
            Self::Keys => Self::Locks,
            Self::Locks => Self::Clients,
            Self::Clients => Self::Keys,
        }
    }

    pub(super) const fn previous(self) -> Self {
        self.next().next()
    }

    /// The column by which it is sorted at first: keys by rate, the others by name.
    const fn first_order(self) -> usize {
        match self {
            Self::Keys => 1,
            Self::Locks | Self::Clients => 0,
        }
    }
}

/// Where the selection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Up(usize),
    Down(usize),
    First,
    Last,
}

/// How a part of the view is sorted, and which of its lines is selected.
#[derive(Clone, Debug)]
pub(super) struct Pane {
    pub(super) column: usize,
    pub(super) reversed: bool,
    pub(super) selected: usize,
    /// The line that somebody has chosen: the selection moves with it.
    chosen: Option<String>,
    columns: usize,
}

impl Pane {
    pub(super) fn new(subject: Subject) -> Self {
        let columns = subject.columns().len();
        let column = subject.first_order();
        Self { column, reversed: false, selected: 0, chosen: None, columns }
    }

    /// Sorts by the next column.
    pub(super) fn sort_by_next(&mut self) {
        self.column = (self.column + 1) % self.columns;
        self.reversed = false;
    }

    pub(super) fn reverse(&mut self) {
        self.reversed = !self.reversed;
    }

    /// Sorts the lines that have this text in their names; the others are left out.
    pub(super) fn arrange(&self, mut lines: Vec<Line>, filter: &str) -> Vec<Line> {
        lines.retain(|line| line.fits(filter));
        lines.sort_by(|one, other| one.compare(other, self.column, self.reversed));
        lines
    }

    /// The lines are these now.
    pub(super) fn follow(&mut self, lines: &[Line]) {
        let chosen = self.chosen.as_ref();
        let place = chosen.and_then(|id| lines.iter().position(|line| line.id == *id));
        self.selected = place.unwrap_or(self.selected).min(lines.len().saturating_sub(1));
    }

    /// Selects another line. The first one is a place, not a line: what comes there is selected.
    pub(super) fn go(&mut self, to: Move, lines: &[Line]) {
        let last = lines.len().saturating_sub(1);
        self.selected = match to {
            Move::Up(lines) => self.selected.saturating_sub(lines),
            Move::Down(lines) => self.selected.saturating_add(lines).min(last),
            Move::First => 0,
            Move::Last => last,
        };
        let line = lines.get(self.selected).filter(|_| self.selected > 0);
        self.chosen = line.map(|line| line.id.clone());
    }
}
