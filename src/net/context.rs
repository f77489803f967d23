//! The ZeroMQ context of a process, and what the library says of itself.

use crate::net::per_process::PerProcess;

static CONTEXT: PerProcess<zmq::Context> = PerProcess::new();

/// The context that all clients of this process share, and with them its `inproc` endpoints. It is
/// never terminated: a process may end while sockets are open.
pub(super) fn shared() -> &'static zmq::Context {
    CONTEXT.get_or_init(zmq::Context::new)
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
