//! `zmqlocker lock`: runs a command while it holds locks.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::emulate_default_handler;

use crate::cli::running::{Running, base_name};
use crate::cli::signals::{Signal, Signals};
use crate::cli::supervision::{Ending, Event, supervise};
use crate::cli::{ANSWER_TIMEOUT, Failure, Status, complain};
use crate::config::{ClientConfig, SECONDS_MAX, Span, Url};
use crate::engine::{Key, LockRequest, Locks, Mode, Request, Term, Wait};
use crate::error::Error;
use crate::net::{Client, Granted};
use crate::wire::request::NAME_BYTES_MAX;

/// The lock was not got.
const NOT_GOT: Status = Status::Other(75);

/// The lock was lost while the command ran.
const LOST: Status = Status::Other(76);

/// What is for the command, as much as for whoever waits to run it, and the end of a command.
const HEARD: [i32; 7] = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// The command is there and cannot be run.
const NOT_RUNNABLE: u8 = 126;

/// There is no such command.
const NOT_FOUND: u8 = 127;

const STATUSES: &str = "\
Exit status: that of COMMAND, 128+N if signal N ended it; 75 if the lock was not got, 76 if it was \
lost while COMMAND ran, 126 if COMMAND cannot be run, 127 if there is none, 2 for wrong usage.";

const PROMISES: &str = "\
COMMAND finds the fencing token in ZMQLOCKER_TOKEN: a number that rises with each grant. Have what \
you write to refuse lower ones. ZMQLOCKER_KEY has the key; of several, one a line.

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
    /// The command and its arguments. No shell reads them.
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<OsString>,
    /// The server.
    #[arg(long, default_value = "tcp://localhost:7777")]
    url: String,
    /// How long to wait for the lock: 0 is not at all, "none" without an end.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "10",
        allow_negative_numbers = true,
        value_parser = parse_patience
    )]
    timeout: Patience,
    /// How long the lock outlives the last sign of life, from 0.1. It is renewed until then.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.8, allow_negative_numbers = true)]
    ttl: f64,
    /// How long the lock is held at most; without it, as long as the command runs.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    max_hold: Option<f64>,
    /// How long the command may take to end if the lock is lost.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, allow_negative_numbers = true)]
    kill_after: f64,
    /// Who others see as the holder; without it, the name of the command.
    #[arg(long)]
    name: Option<String>,
}

/// How long to wait for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    Nothing,
    UpTo(Duration),
    Endless,
}

impl Lock {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let kill_after = Span::NotNegative.parse("--kill-after", self.kill_after)?;
        let request = self.request()?;
        let urls = vec![Url::parse(&self.url)?];
        let config = ClientConfig::new(urls, Some(ANSWER_TIMEOUT))?.named(&self.holder())?;
        let client = Arc::new(Client::new(config)?);
        let (sender, events) = mpsc::channel();
        let told = sender.clone();
        let listener = Signals::hear(&HEARD)?.act(move |signal| {
            let is_of_child = signal.number == SIGCHLD;
            told.send(if is_of_child { Event::Child } else { Event::Signal(signal) }).is_ok()
        })?;
        let ended = match self.take(&client, &request, &events) {
            Ok(granted) => self.hold(&client, granted, sender, &events, kill_after),
            Err(Ended::Failed(problem)) => {
                complain(&problem);
                Ok(NOT_GOT)
            }
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

    fn request(&self) -> Result<Request<'_>, Error> {
        let keys = self.keys.iter().map(|key| Ok((Key::parse(key)?, Mode::Exclusive)));
        let locks = Locks::new(keys.collect::<Result<Vec<_>, Error>>()?)?;
        let ttl = Span::Positive.parse("--ttl", self.ttl)?;
        let max_hold = self.max_hold.map(|length| Span::Positive.parse("--max-hold", length));
        let term = Term::new(ttl, max_hold.transpose()?)?;
        let wait = match self.timeout {
            Patience::Nothing => Wait::No,
            Patience::UpTo(length) => Wait::UpTo(length),
            Patience::Endless => Wait::UpTo(Duration::from_secs_f64(SECONDS_MAX)),
        };
        Ok(Request::Lock { wanted: LockRequest { locks, term, actor: 0 }, wait })
    }

    /// The name under which others see us.
    fn holder(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let name = self.command.first().map(|word| base_name(word)).unwrap_or_default();
            let fits =
                |(place, letter): &(usize, char)| place + letter.len_utf8() <= NAME_BYTES_MAX;
            name.char_indices().take_while(fits).map(|(_, letter)| letter).collect()
        })
    }

    fn take(
        &self,
        client: &Client,
        request: &Request<'_>,
        events: &Receiver<Event>,
    ) -> Result<Granted, Ended> {
        let timeout = match self.timeout {
            Patience::Nothing => Some(ANSWER_TIMEOUT),
            Patience::UpTo(length) => Some(length),
            Patience::Endless => None,
        };
        let mut signal = None;
        let mut go_on = || {
            signal = signal.or_else(|| signal_of(events));
            signal.is_none()
        };
        let heard = client.ask(request, None, timeout, &mut go_on);
        // It may have come with the answer.
        go_on();
        if let Some(signal) = signal {
            return Err(Ended::By(signal));
        }
        let heard = heard.map_err(|error| Ended::Failed(error.to_string()))?;
        heard.granted().ok_or_else(|| {
            let keys: Vec<_> = self.keys.iter().map(|key| format!("{key:?}")).collect();
            Ended::Failed(format!("{} is not free", keys.join(", ")))
        })
    }

    fn hold(
        &self,
        client: &Arc<Client>,
        granted: Granted,
        sender: Sender<Event>,
        events: &Receiver<Event>,
        kill_after: Duration,
    ) -> Result<Status, Failure> {
        let watching = Arc::clone(client);
        thread::Builder::new().name("zmql-loss".to_owned()).spawn(move || {
            if watching.wait_for_loss(granted, &|| false, &mut || true) == Ok(true) {
                // Nobody hears it after the command has ended.
                let _ = sender.send(Event::Lost);
            }
        })?;
        let token = granted.grant().0.to_string();
        let variables = [("ZMQLOCKER_TOKEN", token), ("ZMQLOCKER_KEY", self.keys.join("\n"))];
        let ended = match Running::start(&self.command, &variables) {
            Ok(running) => supervise(running, events, kill_after)?,
            Err(error) => {
                let command = base_name(&self.command[0]);
                complain(&format!("cannot run {command:?}: {error}"));
                let is_missing = error.kind() == io::ErrorKind::NotFound;
                Ending { status: if is_missing { NOT_FOUND } else { NOT_RUNNABLE }, is_lost: false }
            }
        };
        if ended.is_lost {
            return Ok(LOST);
        }
        let Some(left) = client.lease_remaining(granted) else {
            complain(&"the lock was lost before the command ended");
            return Ok(LOST);
        };
        // It is free when we are gone, and if the server cannot be told, then it soon is.
        let release = Request::Release { grant: granted.grant() };
        let timeout = left.min(ANSWER_TIMEOUT);
        let _ = client.ask(&release, Some(granted), Some(timeout), &mut || true);
        Ok(Status::Other(ended.status))
    }
}

fn parse_patience(text: &str) -> Result<Patience, String> {
    if text == "none" {
        return Ok(Patience::Endless);
    }
    let seconds = text.parse().map_err(|_| "must be a number or \"none\"".to_owned())?;
    let length = Span::NotNegative.parse("it", seconds).map_err(|error| error.to_string())?;
    Ok(if length.is_zero() { Patience::Nothing } else { Patience::UpTo(length) })
}

/// What ends the wait for a lock early.
enum Ended {
    Failed(String),
    By(Signal),
}

/// The first signal that has come meanwhile.
fn signal_of(events: &Receiver<Event>) -> Option<Signal> {
    events.try_iter().find_map(|event| match event {
        Event::Signal(signal) => Some(signal),
        Event::Child | Event::Lost => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_number_or_the_word_for_no_end() {
        assert_eq!(parse_patience("none"), Ok(Patience::Endless));
        assert_eq!(parse_patience("0"), Ok(Patience::Nothing));
        assert_eq!(parse_patience("1e-12"), Ok(Patience::UpTo(Duration::from_nanos(1))));
        for (bad, problem) in [
            ("soon", "must be a number or \"none\""),
            ("-1", "it must be from 0 and at most 1000000000 seconds, not -1.0"),
        ] {
            assert_eq!(parse_patience(bad), Err(problem.to_owned()));
        }
    }
}
