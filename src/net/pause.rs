//! When the thread of a server has nothing to do, and until when.

use mio::Events;

use crate::engine::Input;
use crate::error::Error;
use crate::net::service::{ALARM, Service};
use crate::time::Clock;

impl Service {
    /// Lets the engine see the time if it asked for it.
    pub(super) fn tick(&mut self) {
        let mut due = self.machine.poll_timeout();
        while let Some(at) = due {
            let now = self.clock.now();
            if now < at {
                break;
            }
            self.handle(now, Input::Tick);
            due = self.machine.poll_timeout();
        }
    }

    /// Has the alarm set to when something is due.
    pub(super) fn set_alarm(&mut self) -> Result<(), Error> {
        let due = self.machine.poll_timeout().into_iter().chain(self.drained_at);
        let now = self.clock.now();
        let homes = self.homes.as_ref().and_then(|homes| homes.poll_timeout(now));
        let due = due.chain(homes).chain(self.peers_timeout());
        self.alarm.set(due.min()).map_err(|error| Error::system("set an alarm", &error))
    }

    pub(super) fn wait(&mut self, events: &mut Events) -> Result<(), Error> {
        if let Some(showing) = &mut self.showing {
            showing.pause(self.clock.now());
        }
        match self.poll.poll(events, None) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(Error::system("watch a socket", &error));
            }
            _ => {}
        }
        if let Some(showing) = &mut self.showing {
            showing.resume(self.clock.now());
        }
        if events.iter().any(|event| event.token() == ALARM) {
            self.alarm.rang();
        }
        Ok(())
    }
}
