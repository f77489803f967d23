//! `zmqlocker serve`: a server in the foreground, as systemd and containers want one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use log::Log;
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};

use crate::cli::logger::LogOptions;
use crate::cli::notify::Notifier;
use crate::cli::signals::{Signal, Signals};
use crate::cli::{Failure, Status};
use crate::cluster::ServerName;
use crate::config::{PeersConfig, ServerConfig, Span, Url, parse_advertise};
use crate::engine::{Limits, SomeBounds};
use crate::error::Error;
use crate::net::{ClientList, Server, ServerSettings};
use crate::observe::WatchAddress;
use crate::registry::RegistryUrl;

const SIGNALS: &str = "\
SIGTERM and SIGINT stop the server: who waits is told to ask again, and with --data-dir who holds \
a lock goes on holding it. With --drain those who wait are served first, and without --data-dir \
those who hold something may give it back, while nobody else begins to wait or to hold; a second \
signal stops it at once. SIGHUP reads the limits of --config and the list of --clients anew, what \
was used stays used, and a file that is wrong changes nothing; without either it stops the server.";

const STATUSES: &str = "\
Exit status: 0 stopped by a signal, 2 a wrong option or file, a URL that cannot be bound or a \
folder that cannot be used, 3 any other failure.";

/// Serve limits and locks, in the foreground, until SIGTERM or Ctrl-C.
#[derive(Args, Debug)]
#[command(after_help = STATUSES, after_long_help = format!("{SIGNALS}\n\n{STATUSES}"))]
pub(super) struct Serve {
    /// Where to serve: tcp://HOST:PORT or ipc://PATH. A `*` in the place of a port is a free one.
    /// [default: tcp://127.0.0.1:7777]
    #[arg(long, env = "ZMQLOCKER_URL", hide_env_values = true)]
    url: Option<String>,
    /// A limit of a key, or of all keys that match a pattern with `*`; may be given several times.
    /// Several of one key must all agree. TEXT is as "500/min sliding" or "20 at once".
    /// [default: 1/s for each key, if the file has none either]
    #[arg(
        long = "limit",
        value_name = "KEY=TEXT",
        env = "ZMQLOCKER_LIMITS",
        hide_env_values = true,
        value_delimiter = ';'
    )]
    limits: Vec<String>,
    /// How long a `next` may wait for the slot in which it gets its permit. [default: 0]
    #[arg(
        long,
        value_name = "SECONDS",
        env = "ZMQLOCKER_PATIENCE",
        hide_env_values = true,
        allow_negative_numbers = true
    )]
    patience: Option<f64>,
    /// A file of settings, as zmqlocker.toml; the options given here go before it.
    #[arg(long, value_name = "FILE", env = "ZMQLOCKER_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// A folder in which usage and locks outlive the server. [default: none]
    #[arg(long, value_name = "FOLDER", env = "ZMQLOCKER_DATA_DIR", hide_env_values = true)]
    data_dir: Option<PathBuf>,
    /// Where to serve metrics for Prometheus and a page for people, such as 127.0.0.1:9464.
    /// [default: nowhere]
    #[arg(long, value_name = "HOST:PORT", env = "ZMQLOCKER_METRICS", hide_env_values = true)]
    metrics: Option<String>,
    /// How many of what there may be at a time, such as keys_max=1000; may be given several times.
    /// docs/configuration.md has the names and the defaults.
    #[arg(
        long = "bound",
        value_name = "NAME=NUMBER",
        env = "ZMQLOCKER_BOUNDS",
        hide_env_values = true,
        value_delimiter = ';'
    )]
    bounds: Vec<String>,
    /// The file of the server's secret key, as `keygen` makes it: everything is encrypted then.
    #[arg(long, value_name = "FILE", env = "ZMQLOCKER_CURVE_KEY", hide_env_values = true)]
    curve_key: Option<PathBuf>,
    /// The file of the clients that are let in, with their keys and rights; `*` for anybody who
    /// knows the server's public key, to use all keys and administer none.
    #[arg(long, value_name = "FILE", env = "ZMQLOCKER_CLIENTS", hide_env_values = true)]
    clients: Option<PathBuf>,
    /// Share the keys with other servers, and keep in this store who is home of what:
    /// etcd://HOST:PORT,..., postgresql://USER:PASSWORD@HOST/DATABASE or file:///FOLDER.
    #[arg(long, value_name = "URL", env = "ZMQLOCKER_REGISTRY", hide_env_values = true)]
    registry: Option<String>,
    /// The name of this server, which no other of the same registry has. [default: HOST-PORT]
    #[arg(long, value_name = "NAME", env = "ZMQLOCKER_SERVER_NAME", hide_env_values = true)]
    name: Option<String>,
    /// Where clients and the other servers find this one. [default: the URL that it serves]
    #[arg(long, value_name = "URL", env = "ZMQLOCKER_ADVERTISE", hide_env_values = true)]
    advertise: Option<String>,
    /// Where another server tells what it grants, which this one counts too; may be given several
    /// times. All servers may be given the same list.
    #[arg(
        long = "peer",
        value_name = "URL",
        env = "ZMQLOCKER_PEERS",
        hide_env_values = true,
        value_delimiter = ';'
    )]
    peers: Vec<String>,
    /// Where this server tells others what it grants. [default: the port after that of --url]
    #[arg(long, value_name = "URL", env = "ZMQLOCKER_PEERS_URL", hide_env_values = true)]
    peers_url: Option<String>,
    /// Serve other hosts although nothing is encrypted and everybody is let in.
    #[arg(long)]
    bind_anyway: bool,
    /// How long a stop may take while somebody waits, or holds what does not outlive the server.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0.0,
        env = "ZMQLOCKER_DRAIN",
        hide_env_values = true,
        allow_negative_numbers = true
    )]
    drain: f64,
    #[command(flatten)]
    log: LogOptions,
}

impl Serve {
    pub(super) fn run(self, take_log: impl FnOnce(Box<dyn Log>)) -> Result<Status, Failure> {
        self.log.start(take_log);
        let bind_anyway = self.bind_anyway;
        let drain = Span::NotNegative.parse("drain", self.drain)?;
        let settings = self.settings()?;
        let config = settings.resolve()?;
        if !bind_anyway {
            refuse_strangers(&config)?;
        }
        // A log that nobody reads any more is no reason to end.
        let signals = Signals::hear(&[SIGHUP, SIGINT, SIGPIPE, SIGTERM])?;
        let server = Arc::new(Server::start(&config)?);
        let notifier = Arc::new(Notifier::from_environment());
        notifier.ready(server.url());
        let (running, told) = (Arc::clone(&server), Arc::clone(&notifier));
        let mut desk = Desk { server: running, settings, notifier: told, drain, stops: false };
        let listener = signals.act(move |signal| {
            desk.handle(signal);
            true
        })?;
        let outcome = wait(&server, &notifier);
        listener.stop();
        server.stop();
        log::logger().flush();
        outcome?;
        Ok(Status::Done)
    }

    fn settings(self) -> Result<ServerSettings, Error> {
        let peers = self.peers.iter().map(|url| url.trim()).filter(|url| !url.is_empty());
        let peers = peers.map(PeersConfig::peer).collect::<Result<_, _>>()?;
        let patience = self.patience.map(|patience| Span::NotNegative.parse("patience", patience));
        Ok(ServerSettings {
            config: self.config,
            url: self.url.as_deref().map(Url::parse).transpose()?,
            is_local: true,
            rate: None,
            limits: Some(limits_by_key(&self.limits)?).filter(|limits| !limits.is_empty()),
            patience: patience.transpose()?,
            data_dir: self.data_dir,
            metrics: self.metrics.as_deref().map(WatchAddress::parse).transpose()?,
            registry: self.registry.as_deref().map(RegistryUrl::parse).transpose()?,
            name: self.name.as_deref().map(ServerName::parse).transpose()?,
            advertise: self.advertise.as_deref().map(parse_advertise).transpose()?,
            bounds: some_bounds(&self.bounds)?,
            curve_key: self.curve_key,
            clients: self.clients.map(ClientList::from),
            peers: Some(peers).filter(|peers: &Vec<_>| !peers.is_empty()),
            peers_url: self.peers_url.as_deref().map(PeersConfig::own).transpose()?,
        })
    }
}

/// The limits of each key, in the order in which the keys were named first.
fn limits_by_key(texts: &[String]) -> Result<Vec<(String, Limits)>, Error> {
    let mut keys: Vec<(&str, Vec<&str>)> = Vec::new();
    for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        // A key may have the sign in it, a limit has none.
        let (key, limit) = text.rsplit_once('=').ok_or_else(|| Error::Config {
            argument: "limit",
            problem: format!("must read KEY=TEXT, as \"openai=500/min\", not {text:?}"),
        })?;
        match keys.iter_mut().find(|(known, _)| *known == key) {
            Some((_, limits)) => limits.push(limit),
            None => keys.push((key, vec![limit])),
        }
    }
    let limits = |(key, limits): (&str, Vec<&str>)| Ok((key.to_owned(), Limits::parse(&limits)?));
    keys.into_iter().map(limits).collect()
}

fn some_bounds(texts: &[String]) -> Result<SomeBounds, Error> {
    let mut bounds = SomeBounds::default();
    for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let number = |(name, number): (&str, &str)| Some((name.to_owned(), number.parse().ok()?));
        let (name, number) = text.split_once('=').and_then(number).ok_or_else(|| {
            let problem = format!("must read NAME=NUMBER, as \"keys_max=1000\", not {text:?}");
            Error::Config { argument: "bound", problem }
        })?;
        bounds.set(&name, number)?;
    }
    Ok(bounds)
}

/// An error if other hosts could reach a server that lets everybody in.
fn refuse_strangers(config: &ServerConfig) -> Result<(), Error> {
    if config.security.is_some() {
        return Ok(());
    }
    if let Some(peers) = config.peers.as_ref().filter(|it| it.url.is_open_to_other_hosts()) {
        let problem = format!(
            "{} is open to other hosts, without encryption and authentication: give --curve-key, \
             which is that of all the servers, or say --bind-anyway",
            peers.url
        );
        return Err(Error::Config { argument: "peers_url", problem });
    }
    if !config.url.is_open_to_other_hosts() {
        return Ok(());
    }
    let problem = format!(
        "{} is open to other hosts, without encryption and authentication: give --curve-key and \
         --clients, serve tcp://127.0.0.1:PORT or an ipc:// path, or say --bind-anyway",
        config.url
    );
    Err(Error::Config { argument: "url", problem })
}

/// What signals do to a server.
struct Desk {
    server: Arc<Server>,
    settings: ServerSettings,
    notifier: Arc<Notifier>,
    /// How long a stop may take.
    drain: Duration,
    /// Whether it is stopping.
    stops: bool,
}

impl Desk {
    fn handle(&mut self, signal: Signal) {
        match signal.number {
            SIGPIPE => {}
            SIGHUP if self.settings.config.is_some() || self.settings.clients.is_some() => {
                self.reload();
            }
            _ => self.stop(),
        }
    }

    fn reload(&self) {
        self.notifier.reloading();
        match self.settings.resolve() {
            Ok(config) => self.server.reload(config),
            Err(error) => self.server.refuse_reload(&error),
        }
        self.notifier.ready(self.server.url());
    }

    /// Stops: the first time in order, and then at once.
    fn stop(&mut self) {
        let is_first = !std::mem::replace(&mut self.stops, true);
        if is_first {
            self.notifier.stopping(self.drain);
        }
        if is_first && !self.drain.is_zero() {
            self.server.stopper().drain(self.drain);
        } else {
            self.server.stopper().stop();
        }
    }
}

/// Waits for the end of a server, and tells meanwhile that it lives.
fn wait(server: &Server, notifier: &Notifier) -> Result<(), Error> {
    let watchdog = notifier.watchdog_interval();
    let mut seen = None;
    loop {
        // The number is of the turn before: one that hangs shows in the next round.
        let turns = watchdog.map(|_| server.turns());
        if turns != seen {
            notifier.alive();
            seen = turns;
        }
        if let Some(outcome) = server.wait(watchdog.unwrap_or(Duration::from_secs(3600))) {
            return outcome;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Result<Vec<(String, Vec<String>)>, Error> {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        let texts_of = |limits: &Limits| {
            (0..limits.count()).map(|place| limits.text(place).to_string()).collect()
        };
        let keys = limits_by_key(&texts)?;
        Ok(keys.iter().map(|(key, limits)| (key.clone(), texts_of(limits))).collect())
    }

    #[test]
    fn the_limits_of_a_key_are_gathered_and_a_key_may_have_an_equals_sign() {
        let owned = |key: &str, limits: &[&str]| {
            (key.to_owned(), limits.iter().map(|limit| (*limit).to_owned()).collect::<Vec<_>>())
        };
        let expected = vec![owned("a", &["5/s", "2 at once"]), owned("b=c", &["1/min"])];
        assert_eq!(parsed(&["a=5/s", "b=c=1/min", " ", "a=2 at once"]), Ok(expected));
    }

    #[test]
    fn a_limit_without_a_key_is_refused() {
        let problem = parsed(&["500/min"]).unwrap_err().to_string();
        assert_eq!(problem, "limit must read KEY=TEXT, as \"openai=500/min\", not \"500/min\"");
        assert!(parsed(&["a=5"]).is_err());
    }
}
