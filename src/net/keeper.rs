//! The thread that keeps what a client holds: it beats when nobody else of the client is awake.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::Error;
use crate::net::connections::Room;
use crate::time::{Clock, Timestamp};

/// How often a link that is down is looked at while there is something to keep.
const RECONNECT_SLICE: Duration = Duration::from_millis(100);

/// How soon an answer is looked for that what is held hangs on, if nobody else watches the sockets:
/// after something has come, and twice as long each time that nothing has.
const ANSWER_SLICE: Duration = Duration::from_millis(2);

/// How rarely it is looked for in the end.
const ANSWER_SLICE_MAX: Duration = Duration::from_secs(1);

/// Starts its thread when there is something to keep for the first time. Neither the GIL nor an
/// event loop that is busy holds it up.
#[derive(Debug)]
pub(super) struct Keeper {
    desk: Arc<Desk>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Desk {
    room: Arc<Room>,
    diary: Mutex<Diary>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Diary {
    stopped: bool,
    /// When the thread looks at the client again; nothing if it has no reason to.
    due: Option<Timestamp>,
}

impl Keeper {
    pub(super) fn new(room: Arc<Room>) -> Self {
        let desk = Desk { room, diary: Mutex::default(), changed: Condvar::new() };
        Self { desk: Arc::new(desk), thread: Mutex::new(None) }
    }

    /// The thread is to beat at `due`, if it does not do so before.
    pub(super) fn be_there(&self, due: Timestamp) -> Result<(), Error> {
        let mut diary = self.desk.diary();
        if diary.due.is_some_and(|earlier| earlier <= due) || diary.stopped {
            return Ok(());
        }
        diary.due = Some(due);
        drop(diary);
        self.desk.changed.notify_one();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let desk = Arc::clone(&self.desk);
            let keep = thread::Builder::new().name("zmql-keeper".to_owned());
            let started = keep.spawn(move || desk.keep());
            *thread = Some(started.map_err(|error| Error::system("start a thread", &error))?);
        }
        Ok(())
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(&self) {
        self.desk.diary().stopped = true;
        self.desk.changed.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It can only have broken, and then there is nothing left to end.
            let _ = thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Desk {
    fn keep(&self) {
        let mut answer_slice = ANSWER_SLICE;
        while self.wait() {
            let mut shared = self.room.lock();
            if shared.closed {
                return;
            }
            let now = shared.clock.now();
            // What goes wrong here goes wrong again for whoever asks next, who is told.
            let came =
                shared.glance().and_then(|()| shared.exchange(now, || self.room.wake_watcher()));
            let due = shared.next_visit(now).map(|beat| {
                let links = shared.links.iter().filter_map(|link| link.poll_timeout()).min();
                let slice = now + RECONNECT_SLICE;
                links.map_or(beat, |link| beat.min(link.max(slice)))
            });
            let due = due.map(|due| {
                let awaited = shared.is_keeping_awaited();
                let goes_on = !awaited || matches!(came, Ok(true));
                let longer = (answer_slice * 2).min(ANSWER_SLICE_MAX);
                answer_slice = if goes_on { ANSWER_SLICE } else { longer };
                if awaited { due.min(now + answer_slice) } else { due }
            });
            let news = shared.take_news();
            drop(shared);
            if news {
                // The event loop has to come and collect, or who waits for a loss has to look.
                self.room.wake_watcher();
            }
            let mut diary = self.diary();
            // Others may have asked for an earlier visit meanwhile.
            diary.due = diary.due.into_iter().chain(due).min();
        }
    }

    /// Waits until it is time. Whether to go on.
    fn wait(&self) -> bool {
        let mut diary = self.diary();
        loop {
            if diary.stopped {
                return false;
            }
            let now = crate::net::clock::BootClock.now();
            diary = match diary.due {
                Some(due) if due <= now => {
                    diary.due = None;
                    return true;
                }
                Some(due) => {
                    let waited = self.changed.wait_timeout(diary, due.since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(diary).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn diary(&self) -> MutexGuard<'_, Diary> {
        self.diary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
