//! Runs a command once something is granted, and for as long as it is held.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::emulate_default_handler;

use crate::cli::client::{ANSWER_TIMEOUT, Patience, Reach};
use crate::cli::running::{Running, base_name};
use crate::cli::signals::{Signal, Signals};
use crate::cli::supervision::{Ending, Event, supervise};
use crate::cli::{Failure, Status, complain};
use crate::config::Span;
use crate::engine::{Reply, Request, Term, Wait};
use crate::error::Error;
use crate::net::{Client, Granted};
use crate::wire::request::NAME_BYTES_MAX;

/// It was not got, for others have it.
const NOT_GOT: Status = Status::Other(75);

/// It was lost while the command ran.
const LOST: Status = Status::Other(76);

/// The command is there and cannot be run.
const NOT_RUNNABLE: u8 = 126;

/// There is no such command.
const NOT_FOUND: u8 = 127;

/// What is for the command, as much as for whoever waits to run it, and the end of a command.
const HEARD: [i32; 7] = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// What is run, and for how long what it runs under is waited for and held.
#[derive(Args, Debug)]
pub(super) struct GuardOptions {
    /// The command and its arguments. No shell reads them.
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<OsString>,
    #[command(flatten)]
    reach: Reach,
    /// How long to wait: 0 is not at all, "none" without an end.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "10",
        allow_negative_numbers = true,
        value_parser = Patience::parse
    )]
    timeout: Patience,
    /// How long the server may be away, as for a restart, before the command is stopped; and for
    /// how long it is kept when this process is killed. From 0.1.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, allow_negative_numbers = true)]
    ttl: f64,
    /// How long it is held at most; without it, as long as the command runs.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    max_hold: Option<f64>,
    /// How long the command may take to end if it is lost.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, allow_negative_numbers = true)]
    kill_after: f64,
}

/// What a command runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thing {
    /// What people call it.
    pub(super) noun: &'static str,
    /// Whether its number is worth knowing: that of a lock is a fencing token.
    pub(super) has_token: bool,
}

impl GuardOptions {
    pub(super) fn term(&self) -> Result<Term, Error> {
        Term::parse(("--ttl", self.ttl), ("--max-hold", self.max_hold))
    }

    pub(super) fn wait(&self) -> Wait {
        self.timeout.wait()
    }

    /// Asks for what the command runs under, and runs it.
    pub(super) fn run(
        &self,
        thing: Thing,
        keys: &[String],
        request: &Request<'_>,
    ) -> Result<Status, Failure> {
        let kill_after = Span::NotNegative.parse("--kill-after", self.kill_after)?;
        let client = Arc::new(self.reach.client_called(&self.holder(), Some(ANSWER_TIMEOUT))?);
        let (sender, events) = mpsc::channel();
        let told = sender.clone();
        let listener = Signals::hear(&HEARD)?.act(move |signal| {
            let is_of_child = signal.number == SIGCHLD;
            told.send(if is_of_child { Event::Child } else { Event::Signal(signal) }).is_ok()
        })?;
        let guard = Guard { options: self, thing, keys, client: &client, kill_after };
        let ended = match guard.take(request, &events) {
            Ok(granted) => guard.hold(granted, sender, &events),
            Err(Ended::NotGot(problem)) => {
                complain(&problem);
                Ok(NOT_GOT)
            }
            Err(Ended::Failed(error)) => Err(error.into()),
            Err(Ended::By(signal)) => {
                // Whoever is served next need not wait until the server has seen us die.
                client.close();
                emulate_default_handler(signal.number)?;
                Ok(NOT_GOT)
            }
        };
        client.close();
        listener.stop();
        ended
    }

    /// The name under which others see us, if there is no other.
    fn holder(&self) -> String {
        let name = self.command.first().map(|word| base_name(word)).unwrap_or_default();
        let fits = |(place, letter): &(usize, char)| place + letter.len_utf8() <= NAME_BYTES_MAX;
        name.char_indices().take_while(fits).map(|(_, letter)| letter).collect()
    }
}

/// A command that is about to run.
struct Guard<'a> {
    options: &'a GuardOptions,
    thing: Thing,
    keys: &'a [String],
    client: &'a Arc<Client>,
    kill_after: Duration,
}

impl Guard<'_> {
    /// What was granted, if it is something that is held.
    fn take(
        &self,
        request: &Request<'_>,
        events: &Receiver<Event>,
    ) -> Result<Option<Granted>, Ended> {
        let mut signal = None;
        let mut go_on = || {
            signal = signal.or_else(|| signal_of(events));
            signal.is_none()
        };
        let timeout = self.options.timeout.timeout();
        let heard = self.client.ask(request, None, timeout, &mut go_on);
        // It may have come with the answer.
        go_on();
        if let Some(signal) = signal {
            return Err(Ended::By(signal));
        }
        let heard = heard.map_err(Ended::of)?;
        match &heard.reply {
            Reply::Decision(decision) if decision.allowed => Ok(heard.granted()),
            Reply::Decision(decision) => {
                let keys: Vec<_> = self.keys.iter().map(|key| format!("{key:?}")).collect();
                let are = if keys.len() == 1 { "is not free" } else { "are not free together" };
                let keys = keys.join(", ");
                Err(Ended::NotGot(if self.thing.has_token {
                    format!("{keys} {are}")
                } else {
                    format!("no permit of {keys}: the limit is {:?}", decision.limit)
                }))
            }
            other => Err(Ended::Failed(Error::unexpected(other))),
        }
    }

    fn hold(
        &self,
        granted: Option<Granted>,
        sender: Sender<Event>,
        events: &Receiver<Event>,
    ) -> Result<Status, Failure> {
        let Some(granted) = granted else {
            return Ok(Status::Other(self.supervise(&self.variables(None), events)?.status));
        };
        let watching = Arc::clone(self.client);
        thread::Builder::new().name("zmql-loss".to_owned()).spawn(move || {
            if watching.wait_for_loss(granted, &|| false, &mut || true) == Ok(true) {
                // Nobody hears it after the command has ended.
                let _ = sender.send(Event::Lost);
            }
        })?;
        let ended = self.supervise(&self.variables(Some(granted)), events)?;
        if ended.is_lost {
            return Ok(LOST);
        }
        let Some(left) = self.client.lease_remaining(granted) else {
            complain(&format_args!("the {} was lost before the command ended", self.thing.noun));
            return Ok(LOST);
        };
        // It is free when we are gone, and if the server cannot be told, then it soon is.
        let release = Request::Release { grant: granted.grant() };
        let timeout = left.min(ANSWER_TIMEOUT);
        let _ = self.client.ask(&release, Some(granted), Some(timeout), &mut || true);
        Ok(Status::Other(ended.status))
    }

    /// What the command finds in its environment.
    fn variables(&self, granted: Option<Granted>) -> Vec<(&'static str, String)> {
        let mut variables = vec![("ZMQLOCKER_KEY", self.keys.join("\n"))];
        if let Some(granted) = granted.filter(|_| self.thing.has_token) {
            let each = self.client.grants(granted);
            let tokens: Vec<_> = each.iter().map(|grant| grant.0.to_string()).collect();
            // Where each key has a token of its own, they are in the order of the keys.
            variables.push(if tokens.is_empty() {
                ("ZMQLOCKER_TOKEN", granted.grant().0.to_string())
            } else {
                ("ZMQLOCKER_TOKENS", tokens.join("\n"))
            });
        }
        variables
    }

    fn supervise(
        &self,
        variables: &[(&str, String)],
        events: &Receiver<Event>,
    ) -> io::Result<Ending> {
        let command = &self.options.command;
        match Running::start(command, variables) {
            Ok(running) => supervise(running, events, self.kill_after, self.thing.noun),
            Err(error) => {
                let command = command[0].to_string_lossy();
                complain(&format!("cannot run {command:?}: {error}"));
                let is_missing = error.kind() == io::ErrorKind::NotFound;
                let status = if is_missing { NOT_FOUND } else { NOT_RUNNABLE };
                Ok(Ending { status, is_lost: false })
            }
        }
    }
}

/// What ends a wait early.
enum Ended {
    NotGot(String),
    Failed(Error),
    By(Signal),
}

impl Ended {
    /// Whoever came too late may try again; all else is wrong.
    fn of(error: Error) -> Self {
        match error {
            Error::NotFree { .. } | Error::Late { .. } => Self::NotGot(error.to_string()),
            error => Self::Failed(error),
        }
    }
}

/// The first signal that has come meanwhile.
fn signal_of(events: &Receiver<Event>) -> Option<Signal> {
    events.try_iter().find_map(|event| match event {
        Event::Signal(signal) => Some(signal),
        Event::Child | Event::Lost => None,
    })
}
