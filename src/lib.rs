//! A gate for resources that many processes share: at most so many requests in so much time.
//!
//! [`Locker`](locker::Locker) decides within one process. With the feature `net`, a
//! [`Server`](net::Server) owns the time and the count, and a [`Client`](net::Client) asks it over
//! ZeroMQ and hears [`Go`](answer::Answer::Go) or [`Sorry`](answer::Answer::Sorry).
//!
//! The decisions are made by [`engine`], which reads no clock and opens no socket; [`asking`] says
//! which server a client asks, and when again; [`cluster`] says which of several servers decides,
//! and [`registry`] keeps what they agree on; [`wire`] turns both into bytes. Only [`net`] touches
//! the world.

pub mod access;
pub mod answer;
pub mod asking;
pub mod cluster;
pub mod config;
pub mod config_file;
pub mod conversation;
pub mod engine;
pub mod error;
pub mod fallback;
mod json;
pub mod locker;
pub mod observe;
pub mod pace;
pub mod registry;
pub mod spending;
pub mod time;
pub mod wire;

#[cfg(feature = "net")]
pub mod net;

#[cfg(feature = "cli")]
pub mod cli;

#[cfg(feature = "cli")]
mod log_queue;

#[cfg(feature = "python")]
mod python;
