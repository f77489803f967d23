//! The registry of several servers, for commands that ask it and not a server.

use std::time::Duration;

use crate::cli::next::pause;
use crate::cluster::{Overview, Wish};
use crate::error::Error;
use crate::net::BootClock;
use crate::registry::{Outcome, Registry, RegistryUrl};
use crate::time::{Clock, Timestamp};

/// How long one question to it may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Before another look.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A registry that is asked until there is an answer, or the time is up.
pub(super) struct Asked {
    registry: Box<dyn Registry>,
    cluster: String,
    until: Timestamp,
}

impl Asked {
    /// The registry of this URL, to be asked for so long.
    pub(super) fn open(url: &str, timeout: Duration) -> Result<Self, Error> {
        let url = RegistryUrl::parse(url)?;
        if !url.may_be_there() {
            return Err(Error::system("use the registry", &format!("{url} is no folder")));
        }
        let until = BootClock.now() + timeout;
        // The URL is right; what it names is not there, or lets nobody in.
        let registry = url.open(timeout).map_err(|error| match error {
            Error::Config { problem, .. } => Error::system("use the registry", &problem),
            other => other,
        })?;
        Ok(Self { registry, cluster: url.cluster().to_owned(), until })
    }

    /// The cluster as it is now.
    pub(super) fn overview(&mut self) -> Result<Overview, Error> {
        let snapshot = loop {
            match self.registry.read(Overview::PREFIX, CALL_TIMEOUT) {
                Ok(snapshot) => break snapshot,
                Err(trouble) if self.is_late() => {
                    return Err(Error::system("read the registry", &trouble));
                }
                Err(_) => pause(LOOK_AGAIN),
            }
        };
        let wrong = |problem| Err(Error::Config { argument: "registry", problem });
        let overview = match Overview::read(&snapshot) {
            Ok(overview) => overview,
            Err(problem) => return wrong(format!("cannot be used: {problem}")),
        };
        match overview.cluster() {
            Some(found) if found == self.cluster => Ok(overview),
            Some(found) => wrong(format!(
                "is of the cluster {found:?}, not of {:?}: say so by ?cluster={found} in its URL",
                self.cluster
            )),
            None => wrong(
                "has no cluster: no server was ever started with it, or it is another one's"
                    .to_owned(),
            ),
        }
    }

    /// Writes a wish, and waits until all is as it says; whether it is in time.
    pub(super) fn fulfil(&mut self, wish: &Wish) -> Result<bool, Error> {
        let mut is_written = false;
        while !self.overview()?.shows(wish) {
            if !is_written {
                match self.registry.transact(&wish.transaction(), CALL_TIMEOUT) {
                    // Not twice: what another one wishes after us counts.
                    Outcome::Done(_) => is_written = true,
                    Outcome::Unknown(trouble) if self.is_late() => {
                        return Err(Error::system("write to the registry", &trouble));
                    }
                    // It may have been done all the same: the next look shows it.
                    Outcome::Unknown(_) | Outcome::Refused => {}
                }
            } else if self.is_late() {
                return Ok(false);
            } else {
                pause(LOOK_AGAIN);
            }
        }
        Ok(true)
    }

    fn is_late(&self) -> bool {
        self.until <= BootClock.now()
    }
}
