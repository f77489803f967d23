//! SANS-IO: who gets a permit, and when. No clock, socket, thread or random number lives here.

mod asked;
mod bounds;
mod busiest;
mod event;
mod gate;
mod grant;
mod handing;
mod holders;
mod homes;
mod index;
mod key;
mod lease_record;
mod limit;
mod lock;
mod look;
mod machine;
mod measure;
mod partitions;
mod peering;
mod record;
mod request;
mod rules;
mod run;
mod session;
mod status;
mod table;
mod timers;
mod waiters;

pub use bounds::{Bounds, SomeBounds};
pub use event::{Input, Output, Tally};
pub use gate::{Restored, Unfit};
pub use key::Key;
pub use limit::{AtOnce, Burst, FixedWindow, Kind, Limit, Rate};
pub use lock::{LockPage, LockRequest, LockRow, Locks, Mode, Shape, Term};
pub use machine::Machine;
pub use measure::{Ending, Histogram, Measures, PatternCounts};
pub use partitions::Gain;
pub use peering::{Difference, Go, Left, Peering, Usage};
pub use request::{
    Block, Code, Cost, Decision, Demand, GrantId, Hold, Problem, Reply, Request, RequestId, Wait,
};
pub use rules::{Limits, Pattern, Rules};
pub use session::{ClientInfo, SESSION_SILENCE_MAX, SessionId, SessionName, WAITER_SILENCE_MAX};
pub use status::{ClientPage, ClientRow, Happening, KeyPage, KeyRow, ServerFacts, ServerStatus};
