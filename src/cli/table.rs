//! Text that fits a terminal.

use std::time::Duration;

use unicode_width::UnicodeWidthStr;

/// What fits in a line.
pub(super) const COLUMNS: usize = 80;

/// Lines whose cells stand below each other. What is a number stands to the right.
pub(super) struct Table<const N: usize> {
    lines: Vec<[String; N]>,
}

/// Where a cell stands in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

impl Align {
    /// A cell that is as wide as its column.
    pub(super) fn pad(self, cell: &str, width: usize) -> String {
        let blank = " ".repeat(width.saturating_sub(columns(cell)));
        match self {
            Self::Left => cell.to_owned() + &blank,
            Self::Right => blank + cell,
        }
    }
}

impl<const N: usize> Table<N> {
    /// A table with this first line.
    pub(super) fn new(header: [&str; N]) -> Self {
        Self { lines: vec![header.map(str::to_owned)] }
    }

    pub(super) fn add(&mut self, line: [String; N]) {
        self.lines.push(line);
    }

    /// The lines, each of which fits; the last column has what the others leave.
    pub(super) fn lines(&self, align: [Align; N]) -> Vec<String> {
        let width =
            |column: usize| self.lines.iter().map(|line| columns(&line[column])).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        let draw = |line: &[String; N]| {
            let cells = line.iter().zip(widths).zip(align);
            let cells = cells.map(|((cell, width), align)| align.pad(cell, width));
            fitting(cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        self.lines.iter().map(draw).collect()
    }
}

/// How many columns of a terminal a text takes.
pub(super) fn columns(text: &str) -> usize {
    text.width()
}

/// A line that fits, and that does to a terminal only what a line does.
pub(super) fn fitting(line: &str) -> String {
    shortened(&harmless(line), COLUMNS) + "\n"
}

/// A line that is as long as it is, and does to a terminal only what a line does.
pub(super) fn whole(line: &str) -> String {
    harmless(line) + "\n"
}

/// A text that does to a terminal only what a text does.
pub(super) fn harmless(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// A text that takes at most so many columns.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let mut start = String::new();
    for letter in text.chars() {
        start.push(letter);
        if columns(&start) >= most {
            start.pop();
            break;
        }
    }
    if most > 0 {
        start.push('…');
    }
    start
}

/// A length of time in at most six letters.
pub(super) fn short(length: Duration) -> String {
    // Rounded once, so that no 60 appears where a minute has passed.
    let tenths = (length.as_millis() + 50) / 100;
    let seconds = tenths / 10;
    let [minutes, hours, days] = [60, 3_600, 86_400].map(|unit| seconds / unit);
    match (hours, days) {
        _ if minutes == 0 => format!("{seconds}.{}s", tenths % 10),
        (0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (_, 0) => format!("{hours}h{:02}m", minutes % 60),
        // Who waits without an end says so by a number that no wait lasts.
        (_, 10_000..) => "-".to_owned(),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_each_other_and_lines_fit() {
        let mut table = Table::new(["KEY", "LEFT", "LIMIT"]);
        table.add(["é".to_owned(), "12".to_owned(), "5/s".to_owned()]);
        table.add(["openai".to_owned(), "1".to_owned(), "x".repeat(100)]);
        let lines = table.lines([Align::Left, Align::Right, Align::Left]);
        assert_eq!(lines[..2], ["KEY     LEFT  LIMIT\n", "é         12  5/s\n"]);
        assert_eq!(lines[2].chars().count(), COLUMNS + 1);
        assert!(lines[2].ends_with("x…\n"));
        assert_eq!(fitting("a\u{1b}[2J"), "a\u{fffd}[2J\n");
        assert_eq!(shortened("abcdef", 4), "abc…");
    }

    #[test]
    fn a_letter_that_is_two_columns_wide_counts_twice() {
        let mut table = Table::new(["KEY", "LIMIT"]);
        table.add(["鍵".to_owned(), "5/s".to_owned()]);
        table.add(["鍵".repeat(39), "1/s".to_owned()]);
        let lines = table.lines([Align::Left, Align::Left]);
        assert_eq!(lines[1], format!("鍵{}…\n", " ".repeat(77)));
        assert_eq!(lines[2], format!("{} …\n", "鍵".repeat(39)));
        for (most, text) in [(0, ""), (1, "…"), (2, "…"), (3, "鍵…"), (4, "鍵鍵")] {
            assert_eq!(shortened("鍵鍵", most), text);
        }
        assert_eq!(shortened("e\u{301}e\u{301}e", 2), "e\u{301}…");
    }

    #[test]
    fn a_length_of_time_is_short() {
        for (millis, text) in [
            (49, "0.0s"),
            (59_949, "59.9s"),
            (59_960, "1m00s"),
            (3_725_000, "1h02m"),
            (172_800_000, "2d"),
            (1_000_000_000_000, "-"),
        ] {
            assert_eq!(short(Duration::from_millis(millis)), text);
        }
    }
}
