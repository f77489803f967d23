//! The world: the only folder that names ZeroMQ or reads a clock.

mod client;
mod clock;
mod connections;
mod context;
mod link;
mod journal;
mod per_process;
mod server;
mod socket;

pub use client::Client;
pub use clock::BootClock;
pub use context::{has_curve, libzmq_version};
pub use per_process::PerProcess;
pub use server::{Server, ServerStats, Stopper};
