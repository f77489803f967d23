//! SANS-IO: who gets a permit, and when. No clock, socket, thread or random number lives here.

mod key;
mod limit;
mod machine;
mod request;
mod wait_queue;

pub use key::Key;
pub use limit::{AtOnce, Burst, FixedWindow, Kind, Limit, Rate};
pub use machine::{Input, Machine, Patience, Reply as SeedReply};
pub use request::{
    Block, Code, Cost, Decision, Demand, GrantId, Hold, Problem, Reply, Request, RequestId, Wait,
};
