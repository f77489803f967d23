//! The signals that this process hears, as events.

use std::fs;
use std::io;
use std::sync::mpsc::Sender;
use std::thread;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithRawSiginfo;

use crate::cli::supervision::Event;

/// Those that are for the command, as much as for whoever waits to run it.
const FOR_THE_COMMAND: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signal {
    pub(super) number: i32,
    /// Whether the system sent it, and no process.
    is_of_system: bool,
}

impl Signal {
    /// Whether it was typed at a terminal: all processes in its foreground hear it.
    pub(super) const fn is_typed(self) -> bool {
        self.is_of_system && matches!(self.number, SIGINT | SIGQUIT)
    }

    /// Whether it asks to end.
    pub(super) const fn asks_to_end(self) -> bool {
        !matches!(self.number, SIGUSR1 | SIGUSR2)
    }
}

/// Tells of the signals that come from now on, and of children that end.
///
/// What this process was started to ignore stays ignored, for the command too: `nohup` does so, and
/// shells that start something in the background.
pub(super) fn listen(events: Sender<Event>) -> io::Result<()> {
    let ignored = fs::read_to_string("/proc/self/status").map_or(0, |status| ignored(&status));
    let wanted = FOR_THE_COMMAND.into_iter().filter(|number| ignored & (1 << (number - 1)) == 0);
    let mut signals = SignalsInfo::<WithRawSiginfo>::new(wanted.chain([SIGCHLD]))?;
    thread::Builder::new().name("zmql-signals".to_owned()).spawn(move || {
        for info in signals.forever() {
            let event = match info.si_signo {
                SIGCHLD => Event::Child,
                // Codes of signals that processes send are not positive.
                number => Event::Signal(Signal { number, is_of_system: info.si_code > 0 }),
            };
            if events.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// The signals that a process ignores, by the text of its `/proc/PID/status`: bit n is signal
/// n + 1.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_status_of_the_process() {
        let status = "SigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert_eq!(ignored(status), 0x1001);
        assert_eq!(ignored("Name:\tzmqlocker\n"), 0);
    }

    #[test]
    fn only_a_key_that_the_system_heard_is_typed() {
        let signal = |number, is_of_system| Signal { number, is_of_system };
        assert!(signal(SIGINT, true).is_typed() && signal(SIGQUIT, true).is_typed());
        assert!(!signal(SIGINT, false).is_typed() && !signal(SIGHUP, true).is_typed());
    }
}
