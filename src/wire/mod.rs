//! Bytes to messages and back. Pure: no socket, no clock.

mod frames;
pub mod seed;
pub mod zmtp;

pub use frames::Frames;
