//! The addresses of etcd's servers, looked up when they are needed and not for each request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// What look-ups have found, by name. The library would look a name up for each request, on a
/// thread of its own, whether there is a connection or not.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<Mutex<BTreeMap<String, Found>>>);

#[derive(Debug)]
struct Found {
    addresses: Vec<SocketAddr>,
    is_doubted: bool,
}

impl Names {
    /// What was found may be true no more: it is looked up again when it is needed, and used on if
    /// nothing else is found.
    pub(super) fn doubt(&self) {
        self.lock().values_mut().for_each(|found| found.is_doubted = true);
    }

    /// The addresses of a name, and whether they are doubted.
    fn found(&self, name: &str) -> Option<(ResolvedSocketAddrs, bool)> {
        let all = self.lock();
        let found = all.get(name)?;
        let mut addresses = DefaultResolver::default().empty();
        found.addresses.iter().for_each(|address| addresses.push(*address));
        Some((addresses, found.is_doubted))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Found>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let name = uri.authority().map(ToString::to_string).unwrap_or_default();
        let before = self.found(&name);
        if let Some((addresses, false)) = before {
            return Ok(addresses);
        }
        match DefaultResolver::default().resolve(uri, config, timeout) {
            Ok(addresses) => {
                let found = Found { addresses: addresses.to_vec(), is_doubted: false };
                self.lock().insert(name, found);
                Ok(addresses)
            }
            Err(error) => before.map(|(addresses, _)| addresses).ok_or(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ureq::Timeout;

    use super::*;

    fn look_up(names: &Names, url: &str) -> Result<Vec<SocketAddr>, Error> {
        let within = NextTimeout {
            after: Duration::from_secs(5).into(),
            reason: Timeout::Resolve,
            per_read: None,
            per_write: None,
        };
        let found = names.resolve(&url.parse().unwrap(), &Config::default(), within)?;
        Ok(found.to_vec())
    }

    #[test]
    fn what_is_doubted_is_looked_up_again_and_used_if_nothing_is_found() {
        let names = Names::default();
        let [known, gone] = ["http://127.0.0.1:7/a", "http://no..name:7/a"];
        assert_eq!(look_up(&names, known).unwrap(), ["127.0.0.1:7".parse().unwrap()]);
        assert!(look_up(&names, gone).is_err());
        let other: SocketAddr = "192.0.2.1:7".parse().unwrap();
        for name in ["127.0.0.1:7", "no..name:7"] {
            let found = Found { addresses: vec![other], is_doubted: false };
            names.lock().insert(name.to_owned(), found);
        }
        assert_eq!(look_up(&names, known).unwrap(), [other]);
        names.doubt();
        assert_eq!(look_up(&names, known).unwrap(), ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(look_up(&names, gone).unwrap(), [other]);
    }
}
