//! The ZeroMQ context of a process, and what the library says of itself.

use rustix::event::{EventfdFlags, eventfd};

use crate::error::Error;
use crate::net::per_process::PerProcess;
use crate::net::socket::system;

/// More files than a server opens until it has taken its first message.
const FILES: usize = 16;

static CONTEXT: PerProcess<zmq::Context> = PerProcess::new();

/// The context that all clients of this process share, and with them its `inproc` endpoints. It is
/// never terminated: a process may end while sockets are open.
pub(super) fn shared() -> Result<&'static zmq::Context, Error> {
    if let Some(context) = CONTEXT.get() {
        return Ok(context);
    }
    let context = start()?;
    Ok(CONTEXT.get_or_init(|| context))
}

/// A context whose threads run.
pub(super) fn start() -> Result<zmq::Context, Error> {
    check_files()?;
    let context = zmq::Context::new();
    // The first socket starts the threads.
    context.socket(zmq::PAIR).map_err(|error| match error {
        // The library could not make the context itself, and has forgotten why.
        zmq::Error::EFAULT => system("open a socket", zmq::Error::EMFILE),
        error => system("open a socket", error),
    })?;
    Ok(context)
}

/// The library aborts the process if there is no file left for one of its threads.
fn check_files() -> Result<(), Error> {
    let open = |_| eventfd(0, EventfdFlags::CLOEXEC);
    let opened: Result<Vec<_>, _> = (0..FILES).map(open).collect();
    opened.map(drop).map_err(|error| {
        let problem = format!("{error}: raise the limit of open files (ulimit -n)");
        Error::system("open files for ZeroMQ", &problem)
    })
}

/// The version of the ZeroMQ library, such as `"4.3.5"`.
#[must_use]
pub fn libzmq_version() -> String {
    let (major, minor, patch) = zmq::version();
    format!("{major}.{minor}.{patch}")
}

/// Whether the ZeroMQ library can encrypt and authenticate with CURVE.
#[must_use]
pub fn has_curve() -> bool {
    zmq::has("curve").unwrap_or(false)
}
