//! The addresses of etcd's servers, looked up when they are needed and not for each request.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How many addresses of one name are tried: as many as the library has room for.
const ADDRESSES_MAX: usize = 16;

/// What look-ups have found. The library would look a name up for each request, whether there is a
/// connection or not, and would not use one while names cannot be looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// By `HOST:PORT`.
    names: Mutex<BTreeMap<String, Name>>,
    /// A look-up has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Name {
    addresses: Vec<SocketAddr>,
    /// Whether the addresses may be others by now.
    is_doubted: bool,
    /// Whether a look-up is under way.
    is_sought: bool,
}

impl Names {
    /// What was found may be true no more: it is looked up again beside the next request for it,
    /// which uses it all the same.
    pub(super) fn doubt(&self) {
        self.0.lock().values_mut().for_each(|name| name.is_doubted = true);
    }

    /// Looks a name up. The system may block for seconds and cannot be interrupted: the thread ends
    /// with that and holds nothing else, so nobody waits for it.
    fn seek(&self, text: &str, name: &mut Name) {
        let (text, shared) = (text.to_owned(), Arc::clone(&self.0));
        let look_up = move || {
            let found = text.to_socket_addrs().map(|it| it.take(ADDRESSES_MAX).collect::<Vec<_>>());
            let mut names = shared.lock();
            let name = names.entry(text).or_default();
            // Where nothing is found, what was known is good enough until it fails again.
            (name.is_doubted, name.is_sought) = (false, false);
            if let Some(found) = found.ok().filter(|found| !found.is_empty()) {
                name.addresses = found;
            }
            shared.ended.notify_all();
        };
        let thread = thread::Builder::new().name("zmql-look-up".to_owned()).spawn(look_up);
        name.is_sought = thread.is_ok();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let text = uri.authority().map(ToString::to_string).unwrap_or_default();
        let mut resolved = self.empty();
        if let Ok(address) = text.parse() {
            resolved.push(address);
            return Ok(resolved);
        }
        let mut names = self.0.lock();
        let name = names.entry(text.clone()).or_default();
        if !name.is_sought && (name.is_doubted || name.addresses.is_empty()) {
            self.seek(&text, name);
        }
        let is_open = |names: &mut BTreeMap<String, Name>| {
            names.get(&text).is_some_and(|it| it.is_sought && it.addresses.is_empty())
        };
        let waited = self.0.ended.wait_timeout_while(names, *timeout.after, is_open);
        let (names, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        let found = names.get(&text).map(|name| &*name.addresses).unwrap_or_default();
        for address in found {
            resolved.push(*address);
        }
        match found {
            [] if waited.timed_out() => Err(Error::Timeout(timeout.reason)),
            [] => Err(Error::HostNotFound),
            _ => Ok(resolved),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ureq::Timeout;

    use super::*;

    fn look_up(names: &Names, name: &str) -> Result<Vec<SocketAddr>, Error> {
        let within = NextTimeout {
            after: Duration::from_secs(60).into(),
            reason: Timeout::Resolve,
            per_read: None,
            per_write: None,
        };
        let uri = format!("http://{name}/a").parse().unwrap();
        Ok(names.resolve(&uri, &Config::default(), within)?.to_vec())
    }

    #[test]
    fn what_is_found_is_used_until_something_else_is() {
        let names = Names::default();
        assert_eq!(look_up(&names, "[::1]:7").unwrap(), ["[::1]:7".parse().unwrap()]);
        let [known, gone] = ["localhost:7", "no..name:7"];
        let here = look_up(&names, known).unwrap();
        assert!(here.iter().all(|address| address.ip().is_loopback() && address.port() == 7));
        assert!(matches!(look_up(&names, gone), Err(Error::HostNotFound)));
        let other: SocketAddr = "192.0.2.1:7".parse().unwrap();
        for name in [known, gone] {
            names.0.lock().get_mut(name).unwrap().addresses = vec![other];
            assert_eq!(look_up(&names, name).unwrap(), [other]);
        }
        names.doubt();
        for (name, then) in [(known, here), (gone, vec![other])] {
            // Nobody waits for what is looked up again.
            assert_eq!(look_up(&names, name).unwrap(), [other]);
            let all = names.0.lock();
            let is_sought = |all: &mut BTreeMap<String, Name>| all[name].is_sought;
            drop(names.0.ended.wait_while(all, is_sought).unwrap());
            assert_eq!(look_up(&names, name).unwrap(), then);
            assert!(!names.0.lock()[name].is_doubted);
        }
    }
}
