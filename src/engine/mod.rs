//! SANS-IO: who gets a permit, and when. No clock, socket, thread or random number lives here.

mod limit;
mod machine;
mod wait_queue;

pub use limit::{FixedWindow, Limit};
pub use machine::{Input, Machine, Patience, Reply};
