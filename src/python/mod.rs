//! The Python module `zmqlocker._zmqlocker`: newtypes and conversions, nothing that decides.

#![allow(clippy::needless_pass_by_value, reason = "Python hands arguments over by value")]

mod argument;
mod block;
mod client;
mod decision;
mod demand;
mod door;
mod error;
mod event_loop;
mod exit;
mod held;
mod limit;
mod lock;
mod locker;
mod logging;
mod server;
mod status;

use pyo3::pymodule;

/// The Rust side of the package `zmqlocker`.
#[pymodule(gil_used = false)]
mod _zmqlocker {
    use std::ffi::OsString;

    use pyo3::prelude::*;

    #[pymodule_export]
    use super::block::Block;
    #[pymodule_export]
    use super::client::LockerClient;
    #[pymodule_export]
    use super::decision::Decision;
    #[pymodule_export]
    use super::event_loop::EventLoopClient;
    #[pymodule_export]
    use super::held::Held;
    #[pymodule_export]
    use super::limit::Limit;
    #[pymodule_export]
    use super::lock::LockWish;
    #[pymodule_export]
    use super::locker::Locker;
    #[pymodule_export]
    use super::server::LockerServer;

    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// The version of the ZeroMQ library inside the package, such as "4.3.5".
    #[pyfunction]
    fn libzmq_version() -> String {
        crate::net::libzmq_version()
    }

    /// Whether the ZeroMQ library inside the package can encrypt and authenticate with CURVE.
    #[pyfunction]
    fn has_curve() -> bool {
        crate::net::has_curve()
    }

    /// Runs the command line and returns its exit status: `arguments` are those of the shell,
    /// `program` starts the command anew.
    #[pyfunction]
    fn run_command(py: Python<'_>, program: Vec<String>, arguments: Vec<OsString>) -> u8 {
        py.detach(|| crate::cli::run(&program, arguments, super::logging::divert))
    }

    #[pymodule_init]
    fn init(py: Python<'_>) -> PyResult<()> {
        super::error::install(py);
        super::logging::install(py)?;
        super::exit::install(py)
    }
}
