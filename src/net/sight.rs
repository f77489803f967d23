//! What a server's thread shows to those who watch it: when it is asked to, and without ever
//! waiting for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};

use mio::Waker;

use crate::observe::{News, Observation};
use crate::time::Timestamp;

/// How many news may be on their way; those beyond are dropped.
const NEWS_UNREAD_MAX: usize = 256;

/// What those who watch want to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Wanted {
    /// Nothing.
    Nothing = 0,
    /// What programs see.
    Numbers = 1,
    /// What people see, too.
    All = 2,
}

/// What both sides share.
#[derive(Debug)]
struct Shared {
    wanted: AtomicU8,
    ended: AtomicBool,
    /// Wakes those who watch.
    watcher: Waker,
}

/// The server's side.
#[derive(Debug)]
pub(super) struct Sight {
    shared: Arc<Shared>,
    observations: SyncSender<Box<Observation>>,
    news: SyncSender<News>,
}

/// The side of those who watch.
#[derive(Debug)]
pub(super) struct Watching {
    shared: Arc<Shared>,
    pub(super) observations: Receiver<Box<Observation>>,
    pub(super) news: Receiver<News>,
}

/// Both sides.
pub(super) fn sight(watcher: Waker) -> (Sight, Watching) {
    let shared = Arc::new(Shared {
        wanted: AtomicU8::new(Wanted::Nothing as u8),
        ended: AtomicBool::new(false),
        watcher,
    });
    let (observations, observed) = mpsc::sync_channel(1);
    let (news, heard) = mpsc::sync_channel(NEWS_UNREAD_MAX);
    let sight = Sight { shared: Arc::clone(&shared), observations, news };
    (sight, Watching { shared, observations: observed, news: heard })
}

impl Sight {
    /// What is to be shown now; asked again, nothing.
    pub(super) fn take_wanted(&self) -> Wanted {
        let wanted = &self.shared.wanted;
        if wanted.load(Ordering::Relaxed) == Wanted::Nothing as u8 {
            return Wanted::Nothing;
        }
        match wanted.swap(Wanted::Nothing as u8, Ordering::Relaxed) {
            0 => Wanted::Nothing,
            1 => Wanted::Numbers,
            _ => Wanted::All,
        }
    }

    /// Shows how things stand. If what was shown last was not seen yet, this is not seen either.
    pub(super) fn show(&self, observation: Box<Observation>) {
        let _ = self.observations.try_send(observation);
        self.wake();
    }

    /// Where to tell what happens.
    pub(super) fn reporter(&self) -> Reporter {
        Reporter(Some(self.news.clone()))
    }

    fn wake(&self) {
        // The only way to fail is that nobody watches any more.
        let _ = self.shared.watcher.wake();
    }
}

impl Drop for Sight {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.wake();
    }
}

impl Watching {
    /// Asks to be shown something. Whoever drives the server is to be woken.
    pub(super) fn want(&self, wanted: Wanted) {
        self.shared.wanted.fetch_max(wanted as u8, Ordering::Relaxed);
    }

    /// Has the thread look again at once, instead of waiting.
    pub(super) fn look_again(&self) {
        // The only way to fail is that the thread's end of it is gone.
        let _ = self.shared.watcher.wake();
    }

    /// Whether the server is gone.
    pub(super) fn is_over(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }
}

/// Tells what happens to those who watch, if somebody does.
#[derive(Clone, Debug, Default)]
pub(super) struct Reporter(Option<SyncSender<News>>);

impl Reporter {
    pub(super) fn tell(&self, now: Timestamp, kind: &'static str, text: impl FnOnce() -> String) {
        if let Some(news) = &self.0 {
            // Who does not listen misses it.
            let _ = news.try_send(News::new(now, kind, text()));
        }
    }
}
