//! What happened last at a server, for those who look: a bounded number of it.

use std::collections::VecDeque;

use crate::time::Timestamp;

/// How much is remembered.
pub const NEWS_MAX: usize = 100;

/// How many bytes a text has at most.
const TEXT_BYTES_MAX: usize = 400;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// When.
    pub at: Timestamp,
    /// What kind of thing, in a word: `client`, `bound`, `security`, `lock`, `limits`, `grace`,
    /// `homes`, `peer`.
    pub kind: &'static str,
    /// What, for people.
    pub text: String,
}

impl News {
    /// Something that happened at `at`; a text that is too long is cut.
    #[must_use]
    pub fn new(at: Timestamp, kind: &'static str, mut text: String) -> Self {
        if text.len() > TEXT_BYTES_MAX {
            let mut end = TEXT_BYTES_MAX;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push('…');
        }
        Self { at, kind, text }
    }
}

/// The last things that happened.
#[derive(Debug, Default)]
pub struct Latest(VecDeque<News>);

impl Latest {
    /// Adds what happened, and forgets the oldest if there is too much.
    pub fn push(&mut self, news: News) {
        if self.0.len() == NEWS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(news);
    }

    /// The last first.
    pub fn iter(&self) -> impl Iterator<Item = &News> {
        self.0.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hundred_are_kept_and_none_is_long() {
        let mut latest = Latest::default();
        for number in 0..250_u64 {
            let at = Timestamp::from_nanos(number);
            latest.push(News::new(at, "client", "ü".repeat(500)));
        }
        let kept: Vec<_> = latest.iter().map(|news| news.at.as_nanos()).collect();
        assert_eq!(kept, (150..250).rev().collect::<Vec<_>>());
        assert!(latest.iter().all(|news| news.text.len() <= TEXT_BYTES_MAX + 3));
    }
}
