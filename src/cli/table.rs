//! Text that fits a terminal.

use std::time::Duration;

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
        let width = |column: usize| {
            self.lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let draw = |line: &[String; N]| {
            let cells =
                line.iter().zip(widths).zip(align).map(|((cell, width), align)| match align {
                    Align::Left => format!("{cell:width$}"),
                    Align::Right => format!("{cell:>width$}"),
                });
            fitting(cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        self.lines.iter().map(draw).collect()
    }
}

/// A line that fits, and that does to a terminal only what a line does.
pub(super) fn fitting(line: &str) -> String {
    let line = line.replace(char::is_control, "\u{fffd}");
    if line.chars().count() <= COLUMNS {
        return line + "\n";
    }
    line.chars().take(COLUMNS - 1).chain(['…', '\n']).collect()
}

/// A name that leaves room for others in its line.
pub(super) fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most - 1).chain(['…']).collect()
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
