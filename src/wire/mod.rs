//! Bytes to messages and back. Pure: no socket, no clock.

pub mod curve;
mod frames;
pub mod homes;
mod item;
mod lock;
mod message_pack;
pub mod peers;
pub mod reply;
pub mod request;
pub mod seed;
mod status;
pub mod zap;
pub mod zmtp;

pub use frames::Frames;
pub use item::{ITEMS_MAX, VERSION};
