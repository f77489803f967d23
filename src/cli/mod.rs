//! The command line: one sub-command a file.

#![allow(clippy::doc_markdown, reason = "much of it is help, which terminals show as it is")]

mod break_lock;
mod check;
mod demo;
mod json;
mod lock;
mod logger;
mod ls;
mod next;
mod running;
mod serve;
mod signals;
mod supervision;
mod timeline;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use clap::{Parser, Subcommand};
use log::Log;

use crate::error::Error;

/// How long a server may take to answer what needs no wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How a command ended, for the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// It did what it was asked to do; `next` heard "go".
    Done,
    /// `next` heard "sorry"; `demo` saw a slot with too many; nobody held what `break` was to take.
    Refused,
    /// The command line is wrong, or the file that `check` was given.
    Usage,
    /// Something is missing: a server, a port, a place to write to.
    Failed,
    /// What `lock` and the command that it runs have to say.
    Other(u8),
}

impl Status {
    const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Failed => 3,
            Self::Other(code) => code,
        }
    }
}

/// A gate for shared resources: at most so many requests in so much time, and locks.
#[derive(Debug, Parser)]
#[command(
    name = "zmqlocker",
    version,
    after_help = "Exit status: 0 done or \"go\", 1 \"sorry\" or not held, 2 wrong usage or a wrong \
                  file, 3 no server or another failure; of lock, see `zmqlocker lock --help`."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Break(break_lock::Break),
    Check(check::Check),
    Demo(demo::Demo),
    Lock(lock::Lock),
    Ls(ls::Ls),
    Next(next::Next),
    Serve(serve::Serve),
}

/// Runs a command line. `program` starts the command anew, `arguments` are what follows it, and
/// `take_log` has all that is logged go to a logger. Gives the exit status.
pub fn run(
    program: &[String],
    arguments: impl IntoIterator<Item = OsString>,
    take_log: impl FnOnce(Box<dyn Log>),
) -> u8 {
    let words = ["zmqlocker".into()].into_iter().chain(arguments);
    let parsed = match CommandLine::try_parse_from(words) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and the version come this way too; where they go cannot be helped.
            let _ = error.print();
            return if error.use_stderr() { Status::Usage.code() } else { Status::Done.code() };
        }
    };
    let ended = match parsed.command {
        Command::Break(break_lock) => break_lock.run(),
        Command::Check(check) => check.run(),
        Command::Demo(demo) => demo.run(program),
        Command::Lock(lock) => lock.run(),
        Command::Ls(ls) => ls.run(),
        Command::Next(next) => next.run(),
        Command::Serve(serve) => serve.run(take_log),
    };
    let status = ended.unwrap_or_else(|failure| {
        complain(&failure);
        if matches!(failure, Failure::Ours(Error::Config { .. })) {
            Status::Usage
        } else {
            Status::Failed
        }
    });
    status.code()
}

/// Tells whoever runs a command what went wrong.
fn complain(problem: &dyn fmt::Display) {
    // Where it goes cannot be helped.
    let _ = writeln!(io::stderr(), "zmqlocker: {problem}");
}

/// What ends a command early.
#[derive(Debug)]
enum Failure {
    Ours(Error),
    Io(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(error) => error.fmt(formatter),
            Self::Io(error) => error.fmt(formatter),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_wrong_command_line_is_wrong_usage() {
        for words in [vec!["nothing"], vec!["next", "--url", "x"], vec!["next", "--every", "-1"]] {
            assert_eq!(run(&[], words.into_iter().map(OsString::from), drop), Status::Usage.code());
        }
    }
}
