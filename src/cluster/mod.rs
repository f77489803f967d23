//! SANS-IO: which of several servers decides for which keys. No registry, socket or clock is here:
//! what a registry has to be asked comes out, what it answered goes in.

mod assignment;
mod home;
mod partition;
mod record;

pub use home::{
    Answer, Holds, Home, Input, Lane, Memory, Message, Output, Problem, Purpose, Request, Settings,
    Standing, Times,
};
pub use partition::{Partition, PartitionMap};
pub use record::{ClusterId, Epoch, HOLDS_BYTES_MAX, RunId, ServerName};
