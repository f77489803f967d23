//! `zmqlocker lock`: runs a command while it holds locks.

use clap::Args;

use crate::cli::client::keys;
use crate::cli::guard::{GuardOptions, Thing};
use crate::cli::{Failure, Status};
use crate::engine::{LockRequest, Locks, Mode, Request};

const LOCK: Thing = Thing { noun: "lock", has_token: true };

const STATUSES: &str = "\
Exit status: that of COMMAND, 128+N if signal N ended it; 75 if the lock was not got because \
others have it, 76 if it was lost while COMMAND ran, 126 if COMMAND cannot be run, 127 if there is \
none, 2 for wrong usage, 3 if no server answers or it refuses.";

const PROMISES: &str = "\
Example: zmqlocker lock nightly --timeout 0 -- ./report.sh

COMMAND finds the fencing token in ZMQLOCKER_TOKEN: a number that rises with each grant. Have what \
you write to refuse lower ones. ZMQLOCKER_KEY has the key; of several, one a line. Others see the \
name of COMMAND as the holder, unless --name says another one.

SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1 and SIGUSR2 are passed on to COMMAND. The lock is given \
back when COMMAND has ended, even if something that it has started goes on.

A lock is lost if the server is not heard for --ttl, after --max-hold, or if somebody breaks it. \
COMMAND and what it has started then get SIGTERM, before anybody else can have the lock unless it \
was broken, and SIGKILL after --kill-after: with 0 at once. While they take their time to end, \
somebody else may have the lock. In the foreground of a terminal, COMMAND alone gets the signals.

If zmqlocker itself is killed by SIGKILL, the lock is free after --ttl, but COMMAND runs on. On \
Linux, `zmqlocker lock KEY -- setpriv --pdeathsig KILL COMMAND` ends it as well.";

/// Run a command while holding a lock, or several together.
#[derive(Args, Debug)]
#[command(
    override_usage = "zmqlocker lock [OPTIONS] KEY... -- COMMAND [ARGUMENT]...",
    after_help = STATUSES,
    after_long_help = format!("{PROMISES}\n\n{STATUSES}"),
)]
pub(super) struct Lock {
    /// The lock. Of several, all are taken together or none.
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    guard: GuardOptions,
}

impl Lock {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let locks = Locks::new(keys(&self.keys)?.into_iter().map(|key| (key, Mode::Exclusive)))?;
        let wanted = LockRequest { locks, term: self.guard.term()?, actor: 0 };
        let request = Request::Lock { wanted, wait: self.guard.wait() };
        self.guard.run(LOCK, &self.keys, &request)
    }
}
