//! What the crate `zmq` needs of libzmq: its C declarations and its error numbers.
//!
//! And what it has no word for: a look at one [`connection`] of many, and its end.
//!
//! This replaces the published `zmq-sys`, which builds libzmq 4.3.4 without CURVE. See
//! `docs/decisions/0003-libzmq-from-source.md`.

#[allow(dead_code, non_camel_case_types, non_upper_case_globals, clippy::all)]
mod ffi;

pub mod connection;
pub mod errno;

pub use ffi::*;
pub use std::os::unix::io::RawFd;

// The C++ library uses libsodium; naming the crate makes the linker see both.
use libsodium_sys as _;
