//! Another server, as far as it was heard.

use crate::cluster::peers::{Message, Run, Times};
use crate::time::Timestamp;

/// What is known of another server.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Its present run; none if it was never heard.
    pub(super) run: Option<Run>,
    /// The number of its last message.
    pub(super) number: u64,
    heard_at: Timestamp,
    sync: Sync,
    /// Up to which of our messages it has heard us; none if it has not, or not without a gap.
    pub(super) hears_us: Option<u64>,
    /// It has said that it grants nothing any more.
    pub(super) has_left: bool,
    /// It is this very server, or one that is known by another URL.
    pub(super) is_double: bool,
    /// Whether it counts as one whose grants are known.
    pub(super) in_touch: bool,
}

/// Whether all is known that another server has granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sync {
    /// It is to tell all that is used.
    #[default]
    Lost,
    /// It is telling.
    Under,
    /// Since it has told, nothing was missed.
    Whole,
}

/// How a server stands to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Each hears the other, so each counts what the other grants.
    InTouch,
    /// It has said that it grants nothing any more.
    Stopped,
    /// One does not hear the other: what it grants is not known.
    OutOfTouch,
    /// It is this very server, or one at another place too: it counts for nothing.
    Double,
}

/// What is to be done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// It was heard before.
    Nothing,
    /// What was granted counts.
    Goes,
    /// So does what was used.
    All,
}

impl Peer {
    /// Takes notice of a message.
    pub(super) fn hear(&mut self, now: Timestamp, us: Run, message: &Message) -> Take {
        if self.run == Some(message.run) {
            if message.number <= self.number {
                return Take::Nothing;
            }
            if message.number > self.number + 1 {
                self.sync = Sync::Lost;
            }
        } else {
            self.run = Some(message.run);
            self.sync = Sync::Lost;
        }
        (self.number, self.heard_at, self.has_left) = (message.number, now, message.leaves);
        self.hears_us = message.heard.iter().find(|(run, _)| *run == us).map(|(_, number)| *number);
        let Some(part) = &message.usage else { return Take::Goes };
        if part.is_first && self.sync == Sync::Lost {
            self.sync = Sync::Under;
        }
        if self.sync != Sync::Under {
            return Take::Goes;
        }
        if part.is_last {
            self.sync = Sync::Whole;
        }
        Take::All
    }

    /// When it has been silent for too long, unless it is heard before.
    pub(super) fn silent_at(&self, times: &Times) -> Timestamp {
        self.heard_at + times.silence
    }

    /// Up to which of its messages it was heard without a gap, if it was and still is.
    pub(super) fn heard_up_to(&self, now: Timestamp, times: &Times) -> Option<(Run, u64)> {
        let is_heard = self.sync == Sync::Whole && now < self.silent_at(times);
        self.run.filter(|_| is_heard && !self.is_double).map(|run| (run, self.number))
    }

    /// Up to which of our messages it says that it knows what was granted, while we hear it too.
    pub(super) fn word(&self, now: Timestamp, times: &Times) -> Option<u64> {
        if self.has_left {
            return None;
        }
        self.heard_up_to(now, times).and(self.hears_us)
    }

    pub(super) fn touch(&self) -> Touch {
        match self {
            Self { is_double: true, .. } => Touch::Double,
            Self { in_touch: false, .. } => Touch::OutOfTouch,
            _ if self.is_gone() => Touch::Stopped,
            _ => Touch::InTouch,
        }
    }

    /// Whether it grants nothing any more, and all is known that it did.
    pub(super) fn is_gone(&self) -> bool {
        self.has_left && self.sync == Sync::Whole
    }
}
