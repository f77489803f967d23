//! What becomes of a command that runs while a lock or a permit is held.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::cli::complain;
use crate::cli::running::Running;
use crate::cli::signals::Signal;
use crate::net::BootClock;
use crate::time::{Clock, Timestamp};

/// How often it is looked whether what a command has left behind has ended: nobody tells us, for
/// these are no children of ours.
const SLICE: Duration = Duration::from_millis(20);

/// What happens while something is waited for or held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A signal came.
    Signal(Signal),
    /// Something became of a child.
    Child,
    /// It is lost.
    Lost,
}

/// How a command has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) status: u8,
    /// Whether it was made to, because that was lost.
    pub(super) is_lost: bool,
}

/// Waits for the end of a command, passes signals on to it, and stops it if what people call `noun`
/// is lost: it has `grace` to end by itself, and so has what it leaves behind.
pub(super) fn supervise(
    mut running: Running,
    events: &Receiver<Event>,
    grace: Duration,
    noun: &str,
) -> io::Result<Ending> {
    let mut is_lost = false;
    let mut kill_at: Option<Timestamp> = None;
    loop {
        let now = BootClock.now();
        if kill_at.is_some_and(|kill_at| kill_at <= now) {
            running.kill();
            kill_at = None;
        }
        let status = running.status()?;
        if let Some(status) = status
            && !(kill_at.is_some() && running.has_left_any())
        {
            return Ok(Ending { status, is_lost });
        }
        let left = kill_at.map_or(Duration::MAX, |kill_at| kill_at.since(now));
        let wait = if status.is_some() { left.min(SLICE) } else { left };
        match events.recv_timeout(wait) {
            Ok(Event::Signal(signal)) => running.pass_on(signal),
            Ok(Event::Lost) => {
                is_lost = true;
                kill_at = Some(BootClock.now() + grace);
                running.ask_to_end();
                complain(&format_args!("the {noun} is lost: the command is stopped"));
            }
            Ok(Event::Child) | Err(RecvTimeoutError::Timeout) => {}
            // Those who tell of signals live as long as this process.
            Err(RecvTimeoutError::Disconnected) => running.kill(),
        }
    }
}
