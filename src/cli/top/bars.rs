//! Numbers along the time, as bars of one line of text.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The last `width` numbers, each as a bar; the largest of them is as high as a line. What is zero
/// has none, and what is not known neither.
pub(super) fn bars(numbers: &[u64], width: usize) -> String {
    let shown = &numbers[numbers.len().saturating_sub(width)..];
    let most = shown.iter().copied().max().unwrap_or(0);
    let blank = std::iter::repeat_n(' ', width - shown.len());
    blank.chain(shown.iter().map(|number| bar(*number, most))).collect()
}

fn bar(number: u64, most: u64) -> char {
    let count = BARS.len() as u128;
    // Rounded up, so that all that is above zero is seen.
    let height = (u128::from(number) * count).div_ceil(u128::from(most.max(1)));
    let height = usize::try_from(height).unwrap_or(BARS.len());
    height.checked_sub(1).map_or(' ', |place| BARS[place.min(BARS.len() - 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_fills_the_line_and_the_smallest_is_seen() {
        assert_eq!(bars(&[0, 1, 500, 1000], 6), "   ▁▄█");
        assert_eq!(bars(&[9, 1, 2], 2), "▄█");
        assert_eq!(bars(&[u64::MAX, u64::MAX / 2], 2), "█▄");
    }

    #[test]
    fn where_nothing_is_known_there_is_nothing() {
        assert_eq!(
            (bars(&[], 3), bars(&[0, 0], 3), bars(&[1], 0)),
            ("   ".into(), "   ".into(), String::new())
        );
    }
}
