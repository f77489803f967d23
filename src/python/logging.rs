//! Log lines on their way to Python's `logging`.
//!
//! A handler may block or raise, and needs the GIL. So whoever logs only puts the line into a
//! queue, and a thread of its own hands it to Python; when the queue is full, lines are counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::net::PerProcess;

/// The name of the Python logger.
const LOG: &str = "zmqlocker";

/// How many lines may wait for Python.
const LINES_MAX: usize = 1024;

static PYTHON: OnceLock<pyo3_log::Logger> = OnceLock::new();
/// Where lines go instead, if this process is the command.
static COMMAND: OnceLock<Box<dyn Log>> = OnceLock::new();
static QUEUE: PerProcess<Queue> = PerProcess::new();

/// Makes Python's `logging` the place where log lines go.
pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    // Handlers and levels may change at any time: only the logger objects are cached.
    let logger = pyo3_log::Logger::new(py, pyo3_log::Caching::Loggers)?.filter(LevelFilter::Trace);
    let first = PYTHON.set(logger).is_ok() && log::set_boxed_logger(Box::new(Door)).is_ok();
    if !first {
        return Err(PyRuntimeError::new_err("zmqlocker is loaded already in this process"));
    }
    log::set_max_level(LevelFilter::Debug);
    Ok(())
}

/// Has lines go to the log of the command from now on.
pub(super) fn divert(logger: Box<dyn Log>) {
    // The second command of a process writes where the first one did.
    let _ = COMMAND.set(logger);
}

/// Writes out what waits, for at most `length`; what is logged later is dropped.
pub(super) fn finish(length: Duration) {
    let queue = QUEUE.get_or_init(Queue::closed);
    drop(queue.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
    let finished = queue.finished.lock().unwrap_or_else(PoisonError::into_inner);
    // Either the thread has ended, or it is stuck in a handler, which cannot be helped.
    let _ = finished.recv_timeout(length);
}

struct Line {
    level: Level,
    text: String,
}

/// What stands between those who log and the thread that tells Python.
struct Queue {
    lines: Mutex<Option<SyncSender<Line>>>,
    finished: Mutex<Receiver<()>>,
    lost: AtomicU64,
}

impl Queue {
    fn start() -> Self {
        let (lines, waiting) = mpsc::sync_channel(LINES_MAX);
        let (ending, finished) = mpsc::channel();
        let writer = move || {
            write_lines(&waiting);
            drop(ending);
        };
        // Without a thread there is no log; there is nobody to tell.
        let thread = thread::Builder::new().name("zmql-log".to_owned()).spawn(writer);
        Self {
            lines: Mutex::new(thread.is_ok().then_some(lines)),
            finished: Mutex::new(finished),
            lost: AtomicU64::new(0),
        }
    }

    /// A queue that nobody empties, and that takes nothing.
    fn closed() -> Self {
        let (_, finished) = mpsc::channel();
        Self { lines: Mutex::new(None), finished: Mutex::new(finished), lost: AtomicU64::new(0) }
    }

    fn put(&self, line: Line) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.as_ref().is_some_and(|lines| lines.try_send(line).is_err()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_lines(waiting: &Receiver<Line>) {
    for line in waiting {
        write(line.level, format_args!("{}", line.text));
        let lost = QUEUE.get().map_or(0, |queue| queue.lost.swap(0, Ordering::Relaxed));
        if lost > 0 {
            write(Level::Warn, format_args!("{lost} log lines were lost: a handler is slow"));
        }
    }
}

fn write(level: Level, text: std::fmt::Arguments<'_>) {
    let Some(python) = PYTHON.get() else { return };
    Python::attach(|py| {
        python.log(&Record::builder().level(level).target(LOG).args(text).build());
        // A handler that raises is told about as Python does it for destructors, and that is all.
        if let Some(raised) = PyErr::take(py) {
            raised.write_unraisable(py, None);
        }
    });
}

/// Where the crate `log` delivers.
struct Door;

impl Log for Door {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == LOG
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(command) = COMMAND.get() {
            command.log(record);
        } else if self.enabled(record.metadata()) {
            let line = Line { level: record.level(), text: record.args().to_string() };
            QUEUE.get_or_init(Queue::start).put(line);
        }
    }

    fn flush(&self) {}
}
