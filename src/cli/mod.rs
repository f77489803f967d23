//! The command line: one sub-command a file.

mod check;
mod demo;
mod next;
mod timeline;

use std::fmt;
use std::io::{self, Write};

use clap::{Parser, Subcommand};

use crate::error::Error;

/// How a command ended, for the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// It did what it was asked to do; `next` heard "go".
    Done = 0,
    /// `next` heard "sorry"; `demo` saw a slot with too many.
    Refused = 1,
    /// The command line is wrong, or the file that `check` was given.
    Usage = 2,
    /// Something is missing: a server, a port, a place to write to.
    Failed = 3,
}

/// A gate for shared resources: at most so many requests in so much time.
#[derive(Debug, Parser)]
#[command(
    name = "zmqlocker",
    version,
    after_help = "Exit status: 0 done or \"go\", 1 \"sorry\", 2 wrong usage or \
                  a wrong file, 3 no server or another failure."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    Demo(demo::Demo),
    Next(next::Next),
}

/// Runs a command line. `program` starts the command anew, `arguments` are what follows it. Gives
/// the exit status.
pub fn run(program: &[String], arguments: impl IntoIterator<Item = String>) -> u8 {
    let words = ["zmqlocker".to_owned()].into_iter().chain(arguments);
    let parsed = match CommandLine::try_parse_from(words) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and the version come this way too; where they go cannot be helped.
            let _ = error.print();
            return if error.use_stderr() { Status::Usage as u8 } else { Status::Done as u8 };
        }
    };
    let ended = match parsed.command {
        Command::Check(check) => check.run(),
        Command::Demo(demo) => demo.run(program),
        Command::Next(next) => next.run(),
    };
    let status = ended.unwrap_or_else(|failure| {
        let _ = writeln!(io::stderr(), "zmqlocker: {failure}");
        if matches!(failure, Failure::Ours(Error::Config { .. })) {
            Status::Usage
        } else {
            Status::Failed
        }
    });
    status as u8
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
            let words = words.into_iter().map(str::to_owned);
            assert_eq!(run(&[], words), Status::Usage as u8);
        }
    }
}
