//! Which columns of a pane have room, and how wide they are.

use crate::cli::table::columns;
use crate::cli::top::line::{BARS, Column, Line};
use crate::cli::top::pane::Subject;

/// What stands between two columns.
pub(super) const GAP: usize = 2;

/// How wide the first column is at least, where there is room for another one.
const NAME_MIN: usize = 16;

/// How many bars are drawn at least: with 5 seconds each, a minute.
const BARS_MIN: usize = 12;

/// How many at most.
const BARS_MAX: usize = 60;

/// Which columns are drawn in a line of this width, each with its own.
pub(super) fn fit(subject: Subject, lines: &[Line], width: usize) -> Vec<(usize, usize)> {
    let all = subject.columns();
    let measure = |place: usize, column: &Column| {
        if subject == Subject::Keys && place == BARS {
            return BARS_MIN;
        }
        let cells = lines.iter().filter_map(|line| line.cells.get(place));
        let widest = cells.map(|cell| columns(&cell.text)).max().unwrap_or(0);
        // Beside a title there may be the mark of the order.
        widest.max(columns(column.title) + 1)
    };
    let measured: Vec<usize> =
        all.iter().enumerate().map(|(place, column)| measure(place, column)).collect();
    let name = measured.first().copied().unwrap_or(0);
    let mut kept: Vec<usize> = (0..all.len()).collect();
    let needs = |kept: &[usize]| -> usize {
        let others = kept.iter().filter(|place| **place > 0);
        name.min(NAME_MIN) + others.map(|place| GAP + measured[*place]).sum::<usize>()
    };
    while kept.len() > 1 && needs(&kept) > width {
        let least = kept.iter().copied().max_by_key(|place| all[*place].rank);
        kept.retain(|place| Some(*place) != least);
    }
    let spare = width.saturating_sub(needs(&kept));
    let base = name.min(NAME_MIN);
    let first = (base + spare.min(name - base)).min(width);
    let spare = spare.saturating_sub(first.saturating_sub(base));
    let wide = |place: usize| match place {
        0 => first,
        BARS if subject == Subject::Keys => (BARS_MIN + spare).min(BARS_MAX),
        _ => measured[place],
    };
    kept.into_iter().map(|place| (place, wide(place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::line::{brief, key, per_second};
    use crate::engine::KeyRow;

    fn line(name: &str, limit: &str) -> Line {
        let row = KeyRow {
            key: name.into(),
            is_lock: false,
            rate_millis: 12_300,
            allowed: 900,
            refused: 1_234_567_890,
            waiting: 0,
            holders: 1,
            remaining: 18,
            reset_after: std::time::Duration::ZERO,
            frozen: std::time::Duration::ZERO,
            limit: limit.into(),
        };
        key(&row, Vec::new())
    }

    fn titles(width: usize) -> Vec<&'static str> {
        let lines = [line(&"tenant:".repeat(9), "500/min sliding")];
        let fitting = fit(Subject::Keys, &lines, width);
        let used: usize = fitting.iter().map(|(_, wide)| wide + GAP).sum::<usize>() - GAP;
        assert!(used <= width, "{fitting:?} is wider than {width}");
        fitting.iter().map(|(place, _)| Subject::Keys.columns()[*place].title).collect()
    }

    #[test]
    fn a_narrow_line_has_what_counts_most() {
        let all =
            ["KEY", "RATE", "LAST MINUTE", "ALLOWED", "REFUSED", "WAIT", "HELD", "LEFT", "LIMIT"];
        assert_eq!(titles(120), all);
        assert_eq!(titles(80), all[..8]);
        assert_eq!(titles(64), ["KEY", "RATE", "LAST MINUTE", "ALLOWED", "REFUSED", "WAIT"][..]);
        assert_eq!(titles(36), ["KEY", "RATE", "REFUSED"]);
        for width in 1..20 {
            assert_eq!(titles(width)[0], "KEY");
        }
    }

    #[test]
    fn a_wide_line_has_longer_bars_and_whole_names() {
        let lines = [line(&"鍵".repeat(10), "1/s")];
        for (width, name, bars) in [(80, 18, 12), (84, 20, 14), (100, 20, 22), (200, 20, 60)] {
            let fitting = fit(Subject::Keys, &lines, width);
            assert_eq!((fitting[0], fitting[2]), ((0, name), (BARS, bars)), "{width}");
        }
    }

    #[test]
    fn a_number_takes_six_letters_at_most() {
        for (number, text) in [
            (999_999, "999999"),
            (1_000_000, "1.00M"),
            (12_399_999, "12.3M"),
            (123_999_999, "123M"),
            (1_234_567_890, "1.23G"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(brief(number), text);
        }
        assert_eq!([12.34, 99_999.9, 1e6].map(per_second), ["12.3", "99999.9", "1.00M"]);
    }
}
