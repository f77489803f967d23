//! SANS-IO: which of several servers decides for which keys, or how several decide together. No
//! registry, socket or clock is here: what has to be asked or told comes out, what was heard goes
//! in.

mod assignment;
mod home;
mod overview;
mod partition;
pub mod peers;
mod record;
mod wish;

pub use home::{
    Answer, Holds, Home, Input, Lane, Memory, Message, Output, Problem, Purpose, Request, Settings,
    Standing, Times,
};
pub use overview::Overview;
pub use partition::{Partition, PartitionMap};
pub use record::{ClusterId, Epoch, HOLDS_BYTES_MAX, RunId, ServerName};
pub use wish::{Wish, Wishes};
