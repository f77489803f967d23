//! A queue of log lines, which a thread of its own empties: whoever logs never waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How many lines may wait to be written; those beyond it are counted.
const LINES_MAX: usize = 1024;

/// What stands between those who log and the thread that writes.
pub(crate) struct LogQueue<T> {
    lines: Mutex<Option<SyncSender<T>>>,
    finished: Mutex<Receiver<()>>,
    lost: Arc<AtomicU64>,
}

impl<T: Send + 'static> LogQueue<T> {
    /// A queue whose lines go to `write`. Lines that were lost are told of by one that
    /// `lost_line` makes of their number.
    pub(crate) fn start(
        mut write: impl FnMut(T) + Send + 'static,
        lost_line: impl Fn(u64) -> T + Send + 'static,
    ) -> Self {
        let (lines, waiting) = mpsc::sync_channel(LINES_MAX);
        let (ending, finished) = mpsc::channel();
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let writer = move || {
            for line in waiting {
                write(line);
                let lost = counted.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    write(lost_line(lost));
                }
            }
            drop(ending);
        };
        // Without a thread there is no log; there is nobody to tell.
        let thread = thread::Builder::new().name("zmql-log".to_owned()).spawn(writer);
        let lines = Mutex::new(thread.is_ok().then_some(lines));
        Self { lines, finished: Mutex::new(finished), lost }
    }

    /// A queue that nobody empties, and that takes nothing.
    #[cfg(feature = "python")]
    pub(crate) fn closed() -> Self {
        let (_, finished) = mpsc::channel();
        Self { lines: Mutex::new(None), finished: Mutex::new(finished), lost: Arc::default() }
    }

    pub(crate) fn put(&self, line: T) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.as_ref().is_some_and(|lines| lines.try_send(line).is_err()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes out what waits, for at most `length`; what is put in later is dropped.
    pub(crate) fn finish(&self, length: Duration) {
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        // Either the thread has ended, or what it writes to is stuck, which cannot be helped.
        let _ = finished.recv_timeout(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_logs_never_waits_and_what_was_lost_is_counted() {
        let (opener, gate) = mpsc::channel::<()>();
        let (written, lines) = mpsc::channel();
        let queue = LogQueue::start(
            move |line: String| {
                // The gate is shut until the test opens it for good.
                let _ = gate.recv();
                let _ = written.send(line);
            },
            |lost| format!("{lost} lost"),
        );
        // One is in the hands of the thread, or not yet.
        for number in 0..LINES_MAX + 10 {
            queue.put(number.to_string());
        }
        drop(opener);
        queue.finish(Duration::from_secs(30));
        let lines: Vec<String> = lines.iter().collect();
        assert_eq!(lines[0], "0");
        assert!(["9 lost", "10 lost"].contains(&&*lines[1]), "{:?}", &lines[..2]);
        assert!([LINES_MAX + 1, LINES_MAX + 2].contains(&lines.len()));
        queue.put("too late".to_owned());
    }
}
