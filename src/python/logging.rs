//! Log lines on their way to Python's `logging`.
//!
//! A handler may block or raise, and needs the GIL. So whoever logs only puts the line into a
//! queue, and a thread of its own hands it to Python; when the queue is full, lines are counted.

use std::sync::OnceLock;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::log_queue::LogQueue;
use crate::net::PerProcess;

/// The name of the Python logger.
const LOG: &str = "zmqlocker";

static PYTHON: OnceLock<pyo3_log::Logger> = OnceLock::new();
/// Where lines go instead, if this process is the command.
static COMMAND: OnceLock<Box<dyn Log>> = OnceLock::new();
static QUEUE: PerProcess<LogQueue<Line>> = PerProcess::new();

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
    QUEUE.get_or_init(LogQueue::closed).finish(length);
}

struct Line {
    level: Level,
    text: String,
}

fn start() -> LogQueue<Line> {
    let lost_line = |lost| Line {
        level: Level::Warn,
        text: format!("{lost} log lines were lost: a handler is slow"),
    };
    LogQueue::start(|line: Line| write(line.level, format_args!("{}", line.text)), lost_line)
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
            QUEUE.get_or_init(start).put(line);
        }
    }

    fn flush(&self) {
        if let Some(command) = COMMAND.get() {
            command.flush();
        }
    }
}
