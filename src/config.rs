//! The settings of servers and clients: what exists is legal.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::access::{Clients, KeyPair};
use crate::cluster::ServerName;
use crate::cluster::peers::PEERS_MAX;
use crate::engine::{Bounds, Rate, Rules};
use crate::error::Error;
use crate::observe::WatchAddress;
use crate::registry::RegistryUrl;
use crate::wire::curve::Keys;
use crate::wire::request::NAME_BYTES_MAX;

/// The longest length of time that may be asked for: over 31 years.
pub const SECONDS_MAX: f64 = 1e9;

/// The longest URL, in bytes: what ZeroMQ allows for the name of an `inproc` endpoint.
pub const URL_BYTES_MAX: usize = 256;

/// How many servers one client may be given.
pub const URLS_MAX: usize = 64;

/// A server's settings.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Which key has which limits.
    pub rules: Rules,
    /// Where to serve; a `*` in the place of a port lets the system choose one.
    pub url: Url,
    /// How long a request may wait for the slot in which it gets its permit.
    pub patience: Duration,
    /// How many of what there may be at a time.
    pub bounds: Bounds,
    /// The folder in which usage outlives the server; none, and it is forgotten.
    pub data_dir: Option<PathBuf>,
    /// Where it is watched, if it is.
    pub metrics: Option<WatchAddress>,
    /// The server's key, and who is let in; none, and all are, without encryption.
    pub security: Option<Security>,
    /// Its place among several servers, if there are others.
    pub member: Option<Member>,
    /// The servers that count for each other with this one, if there are.
    pub peers: Option<PeersConfig>,
}

/// A server's place among several that share the keys through a registry.
#[derive(Clone, Debug)]
pub struct Member {
    /// Where they keep who is home of what.
    pub registry: RegistryUrl,
    /// Its name, which no other of them has; none, and it is made of the host and the port.
    pub name: Option<ServerName>,
    /// Where the others and clients find it; none, and it is where it serves.
    pub advertise: Option<Url>,
}

/// Servers that count for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeersConfig {
    /// Where this one tells the others what it grants.
    pub url: Url,
    /// Where they do.
    pub others: Vec<Url>,
}

impl PeersConfig {
    /// The URL of a peer.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that says how one reads.
    pub fn peer(text: &str) -> Result<Url, Error> {
        Url::parse(text).map_err(|error| error.about("peers"))
    }

    /// The URL at which peers are heard.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that says how one reads.
    pub fn own(text: &str) -> Result<Url, Error> {
        Url::parse(text).map_err(|error| error.about("peers_url"))
    }

    /// Other servers, for one that serves by these rules at `served`. Where it is not said at which
    /// URL it tells them what it grants, that is the port after the one that is served.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there are too many or none, if one is not a URL that others can reach,
    /// or if there is a concurrency limit among the rules.
    pub fn new(
        served: &Url,
        rules: &Rules,
        url: Option<Url>,
        others: Vec<Url>,
    ) -> Result<Self, Error> {
        let bad = |argument, problem: String| Err(Error::Config { argument, problem });
        if others.is_empty() || others.len() > PEERS_MAX {
            let problem = format!("must name 1 to {PEERS_MAX} servers, not {}", others.len());
            return bad("peers", problem);
        }
        let unreachable = |url: &&Url| match url.place() {
            Place::Inproc => true,
            Place::Tcp { host, port } => host == "*" || port.is_none(),
            Place::Ipc(_) => false,
        };
        if let Some(url) = others.iter().find(unreachable) {
            return bad("peers", format!("must name a host and a port of each server, not {url}"));
        }
        let held = rules.iter().find(|(_, limits)| limits.has_concurrency());
        if let Some((key, _)) = held {
            let problem = format!(
                "cannot serve the concurrency limit of {key:?}: whoever holds a permit must be \
                 known to all, so use a registry for it, or one server"
            );
            return bad("peers", problem);
        }
        let url = match (url, served.place()) {
            (Some(url), _) => url,
            (None, Place::Tcp { host, port: Some(port @ 1..=65534) }) => {
                Url::parse(&format!("tcp://{host}:{}", port + 1))?
            }
            (None, Place::Ipc(path)) => Url::parse(&format!("ipc://{path}.peers"))?,
            (None, _) => {
                let problem = format!("must be given: there is no port after that of {served}");
                return bad("peers_url", problem);
            }
        };
        if url.place() == Place::Inproc || served.place() == Place::Inproc {
            let problem = "is of no use within one process: give the server a tcp:// or ipc:// URL";
            return bad("peers", problem.to_owned());
        }
        Ok(Self { url, others })
    }
}

/// A server's key, and the clients that it lets in.
#[derive(Clone, Debug)]
pub struct Security {
    /// The server's key.
    pub keys: KeyPair,
    /// The clients.
    pub clients: Clients,
}

impl ServerConfig {
    /// Settings for a server that grants `rate` of every key, as the seed's.
    #[must_use]
    pub fn of_rate(rate: Rate, url: Url) -> Self {
        Self {
            rules: Rules::of_rate(rate),
            url,
            patience: Duration::ZERO,
            bounds: Bounds::default(),
            data_dir: None,
            security: None,
            metrics: None,
            member: None,
            peers: None,
        }
    }
}

/// A client's settings.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The servers to ask.
    pub urls: Vec<Url>,
    /// How long a caller waits for an answer; `None` is without an end.
    pub timeout: Option<Duration>,
    /// A name for people.
    pub name: String,
    /// The keys with which servers are spoken to; none, and it is not encrypted.
    pub keys: Option<Keys>,
}

impl ClientConfig {
    /// Settings for a client of `urls`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] unless there are 1 to [`URLS_MAX`] URLs.
    pub fn new(urls: Vec<Url>, timeout: Option<Duration>) -> Result<Self, Error> {
        if urls.is_empty() || urls.len() > URLS_MAX {
            let problem = format!("must name 1 to {URLS_MAX} servers, not {}", urls.len());
            return Err(Error::Config { argument: "url", problem });
        }
        Ok(Self { urls, timeout, name: String::new(), keys: None })
    }
}

impl ClientConfig {
    /// The same settings for a client of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the name is longer than [`NAME_BYTES_MAX`] bytes.
    pub fn named(self, name: &str) -> Result<Self, Error> {
        if name.len() > NAME_BYTES_MAX {
            let problem = format!("must be at most {NAME_BYTES_MAX} bytes, not {}", name.len());
            return Err(Error::Config { argument: "name", problem });
        }
        Ok(Self { name: name.to_owned(), ..self })
    }

    /// The same settings for a client that has keys, if there are any.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a server within this process: nothing is encrypted there.
    pub fn with_keys(self, keys: Option<Keys>) -> Result<Self, Error> {
        let inproc = self.urls.iter().find(|url| url.place() == Place::Inproc);
        if let (Some(url), Some(_)) = (inproc, &keys) {
            let problem = format!("is of no use for {url}, which is within this process");
            return Err(Error::Config { argument: "server_key", problem });
        }
        Ok(Self { keys, ..self })
    }
}

/// The transports that are served.
const TRANSPORTS: [&str; 3] = ["tcp://", "ipc://", "inproc://"];

/// A ZeroMQ endpoint over a transport that is served here: `tcp`, `ipc` or `inproc`.
///
/// ```
/// use zmqlocker::config::Url;
///
/// assert!(Url::parse("tcp://localhost:7777").is_ok());
/// assert!(Url::parse("http://localhost:7777").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// Checks what can be known without a socket.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that quotes the text and says how an URL reads.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |problem| Err(Error::Config { argument: "url", problem });
        let quoted: String = text.chars().take(80).collect();
        let url = Self(text.to_owned());
        if text.len() > URL_BYTES_MAX {
            return bad(format!("must be at most {URL_BYTES_MAX} bytes, not {}", text.len()));
        }
        let known = TRANSPORTS.iter().any(|transport| {
            text.strip_prefix(transport)
                .is_some_and(|rest| !rest.is_empty() && !rest.contains('\0'))
        });
        if !known {
            return bad(format!(
                "must read tcp://HOST:PORT, ipc://PATH or inproc://NAME, not {quoted:?}"
            ));
        }
        if let Some((_, port)) =
            text.strip_prefix("tcp://").map(|rest| rest.rsplit_once(':').unwrap_or((rest, "")))
            && port != "*"
            && !(port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
        {
            return bad(format!(
                "must end in a port from 1 to 65535, as tcp://HOST:PORT: {quoted:?}"
            ));
        }
        Ok(url)
    }

    /// The text of the URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the URL names.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        if let Some(path) = self.0.strip_prefix("ipc://") {
            return Place::Ipc(path);
        }
        match self.0.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')) {
            Some((host, port)) => Place::Tcp { host, port: port.parse().ok() },
            None => Place::Inproc,
        }
    }

    /// Whether a server at this URL is reached from other hosts.
    #[must_use]
    pub fn is_open_to_other_hosts(&self) -> bool {
        let Place::Tcp { host, .. } = self.place() else { return false };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let ip: Option<IpAddr> = bare.parse().ok();
        !ip.map_or(["localhost", "lo"].contains(&host), |ip| ip.to_canonical().is_loopback())
    }

    /// Whether it names all addresses of a host, so that nobody elsewhere finds it by that.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(self.place(), Place::Tcp { host: "*" | "0.0.0.0" | "[::]", .. })
    }

    /// Whether the host is written as an IPv6 address.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.0.starts_with("tcp://[")
    }
}

/// Where others find a server: a URL that leads to one port of one host.
///
/// # Errors
///
/// [`Error::Config`] that says what such a URL is.
pub fn parse_advertise(text: &str) -> Result<Url, Error> {
    let argument = "advertise";
    let url = Url::parse(text).map_err(|error| error.about(argument))?;
    let is_found = match url.place() {
        Place::Tcp { port, .. } => port.is_some() && !url.is_wildcard(),
        Place::Ipc(_) => true,
        Place::Inproc => false,
    };
    if is_found && !text.contains(char::is_whitespace) {
        return Ok(url);
    }
    let problem = format!(
        "must be where clients and the other servers find this one, as tcp://HOST:PORT, not \
         {text:?}"
    );
    Err(Error::Config { argument, problem })
}

/// What a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// A host and a port; without a number, any port that is free.
    Tcp {
        /// A name or an address, an IPv6 address in brackets.
        host: &'a str,
        /// The number of the port.
        port: Option<u16>,
    },
    /// The path of a Unix socket.
    Ipc(&'a str),
    /// A name within this process.
    Inproc,
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Which lengths of time an argument takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Above zero.
    Positive,
    /// Zero or more.
    NotNegative,
}

impl Span {
    /// Seconds as a length of time, to the nearest nanosecond; what is above zero stays above it.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that names `argument` and its bounds.
    pub fn parse(self, argument: &'static str, seconds: f64) -> Result<Duration, Error> {
        let (above, in_range) = match self {
            Self::Positive => ("above 0", seconds > 0.0),
            Self::NotNegative => ("from 0", seconds >= 0.0),
        };
        if !in_range || seconds.is_nan() || seconds > SECONDS_MAX {
            let problem =
                format!("must be {above} and at most {SECONDS_MAX} seconds, not {seconds:?}");
            return Err(Error::Config { argument, problem });
        }
        let length = Duration::from_secs_f64(seconds);
        Ok(if seconds > 0.0 { length.max(Duration::from_nanos(1)) } else { length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact_to_the_nanosecond() {
        assert_eq!(Span::Positive.parse("ttl", 0.8).unwrap(), Duration::from_millis(800));
        assert_eq!(Span::Positive.parse("ttl", 1e-12).unwrap(), Duration::from_nanos(1));
        assert_eq!(Span::NotNegative.parse("ttl", 0.0).unwrap(), Duration::ZERO);
    }

    #[test]
    fn an_error_names_the_argument_the_bound_and_the_value() {
        for (span, seconds, message) in [
            (Span::Positive, 0.0, "ttl must be above 0 and at most 1000000000 seconds, not 0.0"),
            (
                Span::Positive,
                f64::NAN,
                "ttl must be above 0 and at most 1000000000 seconds, not NaN",
            ),
            (
                Span::NotNegative,
                -0.1,
                "ttl must be from 0 and at most 1000000000 seconds, not -0.1",
            ),
            (
                Span::NotNegative,
                f64::INFINITY,
                "ttl must be from 0 and at most 1000000000 seconds, not inf",
            ),
        ] {
            assert_eq!(span.parse("ttl", seconds).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_url_is_of_a_transport_that_is_served() {
        for good in ["tcp://*:7777", "ipc:///tmp/a.sock", "inproc://a"] {
            assert_eq!(Url::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "tcp://", "localhost:7777", "udp://a:1", "tcp://a\0b:1"] {
            assert!(Url::parse(bad).is_err(), "{bad:?}");
        }
        for bad in
            ["tcp://a", "tcp://a:", "tcp://a:65536", "tcp://a:-1", "tcp://a:+1", "tcp://a:7/x"]
        {
            assert!(Url::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Url::parse(&format!("ipc://{}", "x".repeat(URL_BYTES_MAX))).is_err());
    }

    #[test]
    fn only_loopback_is_closed_to_other_hosts() {
        for (url, open) in [
            ("tcp://*:1", true),
            ("tcp://0.0.0.0:1", true),
            ("tcp://eth0:1", true),
            ("tcp://127.0.0.1:1", false),
            ("tcp://[::ffff:127.0.0.1]:1", false),
            ("tcp://[2001:db8::1]:1", true),
            ("tcp://[::1]:1", false),
            ("tcp://localhost:1", false),
            ("ipc:///tmp/a", false),
        ] {
            assert_eq!(Url::parse(url).unwrap().is_open_to_other_hosts(), open, "{url}");
        }
    }
}
