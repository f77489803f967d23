//! The command line: one sub-command a file.

#![allow(clippy::doc_markdown, reason = "much of it is help, which terminals show as it is")]

mod acquire;
mod break_lock;
mod change;
mod check;
mod client;
mod cluster;
mod completions;
mod demo;
mod guard;
use crate::json;
mod keygen;
mod keys;
mod limit;
mod lock;
mod logger;
mod ls;
mod next;
mod notify;
mod ping;
mod registry;
mod running;
mod serve;
mod signals;
mod status;
mod supervision;
mod table;
mod timeline;
mod top;
mod wish;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, IntoRawFd};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, CommandFactory, Parser, Subcommand};
use log::Log;
use signal_hook::consts::SIGPIPE;
use signal_hook::low_level::emulate_default_handler;

use crate::error::Error;

/// How a command ended, for the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// It did what it was asked to do; what was asked for was allowed.
    Done,
    /// It was refused; `demo` saw a slot with too many; nobody held what `break` was to take.
    Refused,
    /// The command line is wrong, or the file that `check` was given.
    Usage,
    /// Something is missing: a server, a port, a place to write to.
    Failed,
    /// What `lock`, `limit` and the command that they run have to say.
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
    max_term_width = 80,
    after_help = "Exit status: 0 done, allowed or \"go\", 1 refused, \"sorry\" or not held, 2 \
                  wrong usage or a wrong file, 3 no server or another failure; of lock and limit, \
                  that of the command: see `zmqlocker lock --help`."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Next(next::Next),
    Acquire(acquire::Acquire),
    Peek(acquire::Peek),
    Limit(limit::Limit),
    Lock(lock::Lock),
    Ls(ls::Ls),
    Break(break_lock::Break),
    Freeze(change::Freeze),
    Reset(change::Reset),
    SetLimit(change::SetLimit),
    Status(status::Show),
    Top(top::Top),
    Cluster(cluster::Cluster),
    Ping(ping::Ping),
    Check(check::Check),
    Keygen(keygen::Keygen),
    Completions(completions::Completions),
    Demo(demo::Demo),
}

impl Command {
    fn run(
        self,
        program: &[String],
        take_log: impl FnOnce(Box<dyn Log>),
    ) -> Result<Status, Failure> {
        match self {
            Self::Serve(serve) => serve.run(take_log),
            Self::Next(next) => next.run(),
            Self::Acquire(acquire) => acquire.run(),
            Self::Peek(peek) => peek.run(),
            Self::Limit(limit) => limit.run(),
            Self::Lock(lock) => lock.run(),
            Self::Ls(ls) => ls.run(),
            Self::Break(break_lock) => break_lock.run(),
            Self::Freeze(freeze) => freeze.run(),
            Self::Reset(reset) => reset.run(),
            Self::SetLimit(set_limit) => set_limit.run(),
            Self::Status(show) => show.run(),
            Self::Top(top) => top.run(),
            Self::Cluster(cluster) => cluster.run(),
            Self::Ping(ping) => ping.run(),
            Self::Check(check) => check.run(),
            Self::Keygen(keygen) => keygen.run(),
            Self::Completions(completions) => completions.run(),
            Self::Demo(demo) => demo.run(program),
        }
    }
}

/// Runs a command line. `program` starts the command anew, `arguments` are what follows it, and
/// `take_log` has all that is logged go to a logger. Gives the exit status.
pub fn run(
    program: &[String],
    arguments: impl IntoIterator<Item = OsString>,
    take_log: impl FnOnce(Box<dyn Log>),
) -> u8 {
    fill_standard_descriptors();
    let words = ["zmqlocker".into()].into_iter().chain(arguments);
    let parsed = match CommandLine::try_parse_from(words) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and the version come this way too; where they go cannot be helped.
            let _ = error.print();
            if let Some(name) = variable_of(&error) {
                complain(&format!("{name} in the environment has that value"));
            }
            return if error.use_stderr() { Status::Usage.code() } else { Status::Done.code() };
        }
    };
    let ended = parsed.command.run(program, take_log);
    if matches!(&ended, Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe) {
        // Whoever read along has enough: the same end as that of any program of the system. Where
        // this returns, it cannot be had.
        let _ = emulate_default_handler(SIGPIPE);
    }
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

/// Whoever started us may have closed some of the first three descriptors: what is opened next
/// would get their numbers, and what we say would be written into it.
fn fill_standard_descriptors() {
    while let Ok(file) = File::options().read(true).write(true).open("/dev/null") {
        if file.as_raw_fd() > 2 {
            break;
        }
        // It stays for as long as the process.
        let _ = file.into_raw_fd();
    }
}

/// The variable of the environment whose value is not taken, if it is one's.
fn variable_of(error: &clap::Error) -> Option<String> {
    let text = |kind| match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        _ => None,
    };
    let (argument, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let has_it = |name: &&OsStr| std::env::var_os(name).is_some_and(|it| it == value.as_str());
    let mut command = CommandLine::command();
    // Only then do its arguments show themselves.
    command.build();
    let arguments = command.get_subcommands().flat_map(clap::Command::get_arguments);
    let mut names = arguments.filter(|it| it.to_string() == *argument).filter_map(Arg::get_env);
    names.find(has_it).map(|name| name.display().to_string())
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
