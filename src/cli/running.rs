//! A command that runs while a lock is held, and the signals that it gets.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

use rustix::process::{Pid, Signal, getpgrp};
use rustix::process::{kill_process, kill_process_group, test_kill_process_group};
use rustix::termios::tcgetpgrp;

use crate::cli::signals;

/// A command in a process, and its children.
///
/// They are a process group of their own, so that all of them can be stopped. Not where this
/// process is in the foreground of a terminal: they could not read from it any more.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pid: Pid,
    is_group: bool,
}

impl Running {
    /// Starts a command with these variables in its environment.
    pub(super) fn start(command: &[OsString], variables: &[(&str, String)]) -> io::Result<Self> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let is_group = !is_in_foreground();
        let mut command = Command::new(program);
        command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
        if is_group {
            command.process_group(0);
        }
        let child = command.spawn()?;
        Ok(Self { pid: Pid::from_child(&child), child, is_group })
    }

    /// The exit status, once the command has ended.
    pub(super) fn status(&mut self) -> io::Result<Option<u8>> {
        Ok(self.child.try_wait()?.map(status))
    }

    /// Whether anything that the command has started and left behind still runs.
    pub(super) fn has_left_any(&self) -> bool {
        self.is_group && test_kill_process_group(self.pid).is_ok()
    }

    /// Passes a signal on, unless the command has heard it as well. One that asks to end is for all
    /// that the command has started.
    pub(super) fn pass_on(&self, signal: signals::Signal) {
        let heard = signal.is_typed() && !self.is_group;
        if let Some(number) = Signal::from_named_raw(signal.number).filter(|_| !heard) {
            self.send(number, signal.asks_to_end() && self.is_group);
        }
    }

    /// Asks the command and what it has started to end, also if it is suspended.
    pub(super) fn ask_to_end(&self) {
        self.send(Signal::TERM, self.is_group);
        self.send(Signal::CONT, self.is_group);
    }

    /// Ends the command and what it has started.
    pub(super) fn kill(&self) {
        self.send(Signal::KILL, self.is_group);
    }

    fn send(&self, signal: Signal, to_group: bool) {
        let send = if to_group { kill_process_group } else { kill_process };
        // It fails where all have ended, or have become somebody else: nothing can be done then.
        let _ = send(self.pid, signal);
    }
}

/// The status of a command in the words of a shell.
fn status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Whether what is typed at the terminal of this process, if it has one, is for it.
fn is_in_foreground() -> bool {
    let terminal = File::open("/dev/tty").ok();
    terminal.and_then(|terminal| tcgetpgrp(terminal).ok()) == Some(getpgrp())
}

/// The last part of a command's path.
pub(super) fn base_name(command: &OsStr) -> String {
    let path = std::path::Path::new(command);
    path.file_name().unwrap_or(command).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_as_shells_tell_it() {
        assert_eq!(status(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(status(ExitStatus::from_raw(9)), 137);
    }
}
