//! The signals that this process hears, as events.

use std::fs;
use std::io;
use std::thread::{self, JoinHandle};

use signal_hook::consts::{SIGINT, SIGQUIT, SIGUSR1, SIGUSR2};
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use signal_hook::iterator::{Handle, SignalsInfo};

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

/// Signals that are heard, and do not end this process any more.
pub(super) struct Signals(SignalsInfo<WithRawSiginfo>);

impl Signals {
    /// Hears these from now on.
    ///
    /// What this process was started to ignore stays ignored, for what it starts too: `nohup` does
    /// so, and shells that start something in the background.
    pub(super) fn hear(wanted: &[i32]) -> io::Result<Self> {
        let ignored = fs::read_to_string("/proc/self/status").map_or(0, |status| ignored(&status));
        let wanted = wanted.iter().filter(|number| ignored & (1 << (*number - 1)) == 0);
        SignalsInfo::new(wanted).map(Self)
    }

    /// Has a thread act on each of them, also on those that came before, until it says that this is
    /// enough.
    pub(super) fn act(
        mut self,
        mut act: impl FnMut(Signal) -> bool + Send + 'static,
    ) -> io::Result<Listener> {
        let handle = self.0.handle();
        let listen = move || {
            // Codes of signals that processes send are not positive.
            let mut signals = self
                .0
                .forever()
                .map(|info| Signal { number: info.si_signo, is_of_system: info.si_code > 0 });
            while signals.next().is_some_and(&mut act) {}
        };
        let thread = thread::Builder::new().name("zmql-signals".to_owned()).spawn(listen)?;
        Ok(Listener { handle, thread })
    }
}

/// The thread that acts on signals.
pub(super) struct Listener {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Listener {
    /// Ends the thread. Signals that come later are lost.
    pub(super) fn stop(self) {
        self.handle.close();
        // Whatever broke it has been told of.
        let _ = self.thread.join();
    }
}

/// The signals that a process ignores, by the text of its `/proc/PID/status`: bit n is signal
/// n + 1.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::SIGHUP;

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
