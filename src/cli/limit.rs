//! `zmqlocker limit`: runs a command under permits.

use clap::Args;

use crate::cli::acquire::demand;
use crate::cli::guard::{GuardOptions, Thing};
use crate::cli::{Failure, Status};
use crate::engine::{Hold, Request};

const PERMIT: Thing = Thing { noun: "permit", has_token: false };

const STATUSES: &str = "\
Exit status: that of COMMAND, 128+N if signal N ended it; 75 if the permit was not got because \
others have it, 76 if it was lost while COMMAND ran, 126 if COMMAND cannot be run, 127 if there is \
none, 2 for wrong usage, 3 if no server answers or it refuses.";

const PROMISES: &str = "\
Example: zmqlocker limit openai --timeout 60 -- curl https://api.example.org/

Permits of a concurrency limit are held until COMMAND has ended, and are lost as a lock is: if the \
server is not heard for --ttl, or after --max-hold. COMMAND and what it has started then get \
SIGTERM, and SIGKILL after --kill-after. Permits of a rate are spent when COMMAND starts, and \
nothing is lost after that. Signals are passed on to COMMAND, as `zmqlocker lock` does. COMMAND \
finds the key in ZMQLOCKER_KEY; of several, one a line.";

/// Run a command under permits: as many at once, or as often, as the limits of a key allow.
#[derive(Args, Debug)]
#[command(
    override_usage = "zmqlocker limit [OPTIONS] KEY... -- COMMAND [ARGUMENT]...",
    after_help = STATUSES,
    after_long_help = format!("{PROMISES}\n\n{STATUSES}"),
)]
pub(super) struct Limit {
    /// The key. Of several, permits of all are taken together or of none.
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    /// How many permits to take; given once for all keys, or once for each in their order.
    #[arg(long = "cost", value_name = "COUNT", default_value = "1")]
    costs: Vec<u64>,
    #[command(flatten)]
    guard: GuardOptions,
}

impl Limit {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let demand = demand(&self.keys, &self.costs)?;
        let (wait, hold) = (self.guard.wait(), Hold::Lease(self.guard.term()?));
        self.guard.run(PERMIT, &self.keys, &Request::Acquire { demand, wait, hold })
    }
}
