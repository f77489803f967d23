//! The world: the only folder that names ZeroMQ or reads a clock.

mod address;
mod alarm;
mod asking_all;
mod claim;
mod client;
mod clock;
mod connections;
mod context;
mod desk;
mod exchange;
mod host;
mod inproc;
mod journal;
mod judge;
mod keeper;
mod ledger;
mod lender;
mod link;
mod per_process;
mod records;
mod refusals;
mod server;
mod service;
mod settings;
mod socket;
mod stream;
mod stream_socket;
mod survey;

pub use asking_all::AskingAll;
pub use client::{Client, Granted, Heard};
pub use clock::{BootClock, unix_time};
pub use context::{has_curve, libzmq_version};
pub use lender::{AtOnce, Lender};
pub use per_process::PerProcess;
pub use server::{Server, ServerStats, Stopper};
pub use settings::{ServerSettings, read_config};
