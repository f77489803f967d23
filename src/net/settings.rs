//! What a server is told, by its caller and by a file: what the caller says goes first.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::access::Clients;
use crate::cluster::ServerName;
use crate::config::{Member, PeersConfig, Security, ServerConfig, Url};
pub use crate::config_file::ClientList;
use crate::config_file::FileConfig;
use crate::engine::{Bounds, Limits, Rate, Rules, SomeBounds};
use crate::error::Error;
use crate::net::key_file::read_secret;
use crate::observe::WatchAddress;
use crate::registry::RegistryUrl;

/// Where a server serves if nothing else is said.
const URL: &str = "tcp://*:7777";

/// Where it does so for this host alone.
const LOCAL_URL: &str = "tcp://127.0.0.1:7777";

/// What the caller says; what is left out, the file says, or else the default holds.
#[derive(Clone, Debug, Default)]
pub struct ServerSettings {
    /// The file `zmqlocker.toml`.
    pub config: Option<PathBuf>,
    /// Where to serve.
    pub url: Option<Url>,
    /// Whether this host alone is served where no URL is said.
    pub is_local: bool,
    /// The limit of every key without a rule.
    pub rate: Option<Rate>,
    /// The limits of keys and patterns. They go before those of the file for the same ones.
    pub limits: Option<Vec<(String, Limits)>>,
    /// How long a request may wait for its permits.
    pub patience: Option<Duration>,
    /// Where usage outlives the server.
    pub data_dir: Option<PathBuf>,
    /// Where the server is watched.
    pub metrics: Option<WatchAddress>,
    /// Where several servers keep who is home of what.
    pub registry: Option<RegistryUrl>,
    /// The name of the server among them.
    pub name: Option<ServerName>,
    /// Where the others and clients find it.
    pub advertise: Option<Url>,
    /// How many of what there may be at a time.
    pub bounds: SomeBounds,
    /// The file of the server's secret key.
    pub curve_key: Option<PathBuf>,
    /// Which clients are let in.
    pub clients: Option<ClientList>,
    /// The servers that count for each other with this one.
    pub peers: Option<Vec<Url>>,
    /// Where this one tells them what it grants.
    pub peers_url: Option<Url>,
}

impl ServerSettings {
    /// The settings, with the file as it is now.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the file cannot be read, or is wrong anywhere.
    pub fn resolve(&self) -> Result<ServerConfig, Error> {
        let file = self.config.as_deref().map(read_config).transpose()?.unwrap_or_default();
        let url = self.url.clone().or(file.url);
        let default_url = if self.is_local { LOCAL_URL } else { URL };
        let curve_key = self.curve_key.clone().or(file.curve_key);
        let clients = self.clients.clone().or(file.clients);
        let registry = self.registry.clone().or(file.registry);
        let name = self.name.clone().or(file.name);
        let advertise = self.advertise.clone().or(file.advertise);
        let rules = self.rules(file.limits, file.rate)?;
        let url = url.map_or_else(|| Url::parse(default_url), Ok)?;
        let peers_url = self.peers_url.clone().or(file.peers_url);
        let peers = peers(&url, &rules, peers_url, self.peers.clone().or(file.peers))?;
        let member = member(registry, name, advertise)?;
        both(peers.as_ref(), member.as_ref())?;
        Ok(ServerConfig {
            rules,
            url,
            peers,
            patience: self.patience.or(file.patience).unwrap_or_default(),
            data_dir: self.data_dir.clone().or(file.data_dir),
            security: security(curve_key.as_deref(), clients.as_ref())?,
            metrics: self.metrics.or(file.metrics),
            member,
            bounds: self.bounds.over(file.bounds.over(Bounds::default())),
        })
    }

    /// Whether what a file says goes together. Files that it names are not looked at: they may be
    /// on another host.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a server would refuse it.
    pub fn check(file: FileConfig) -> Result<(), Error> {
        key_and_clients(file.curve_key.as_deref(), file.clients.as_ref())?;
        let member = member(file.registry, file.name, file.advertise)?;
        let rules = Self::default().rules(file.limits, file.rate)?;
        let url = file.url.map_or_else(|| Url::parse(LOCAL_URL), Ok)?;
        both(peers(&url, &rules, file.peers_url, file.peers)?.as_ref(), member.as_ref())
    }

    /// The rules of both. Where neither names a key nor a rate, all keys have the seed's limit.
    fn rules(&self, file: Vec<(String, Limits)>, rate: Option<Rate>) -> Result<Rules, Error> {
        let none_named = self.limits.is_none() && file.is_empty();
        let ours = self.limits.as_deref().unwrap_or_default();
        let is_ours = |key: &String| ours.iter().any(|(our, _)| our == key);
        let theirs = file.into_iter().filter(|(key, _)| !is_ours(key));
        let rate = self.rate.or(rate);
        let others = match rate {
            Some(rate) => Some(rate),
            None if none_named => Some(Rate::new(1, 1.0)?),
            None => None,
        };
        Rules::new(ours.iter().cloned().chain(theirs), others.map(Limits::of_rate))
    }
}

/// The servers that count for each other with this one.
fn peers(
    url: &Url,
    rules: &Rules,
    peers_url: Option<Url>,
    peers: Option<Vec<Url>>,
) -> Result<Option<PeersConfig>, Error> {
    match peers.filter(|peers| !peers.is_empty()) {
        Some(peers) => PeersConfig::new(url, rules, peers_url, peers).map(Some),
        None if peers_url.is_some() => {
            let problem = "needs peers: the URLs of the other servers".to_owned();
            Err(Error::Config { argument: "peers_url", problem })
        }
        None => Ok(None),
    }
}

/// A server has others in one way only.
fn both(peers: Option<&PeersConfig>, member: Option<&Member>) -> Result<(), Error> {
    if peers.is_some() && member.is_some() {
        let problem = "goes without a registry: with one, each key has one server that decides";
        return Err(Error::Config { argument: "peers", problem: problem.to_owned() });
    }
    Ok(())
}

/// The server's place among several.
fn member(
    registry: Option<RegistryUrl>,
    name: Option<ServerName>,
    advertise: Option<Url>,
) -> Result<Option<Member>, Error> {
    if let Some(registry) = registry {
        return Ok(Some(Member { registry, name, advertise }));
    }
    let given = [("name", name.is_some()), ("advertise", advertise.is_some())];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        None => Ok(None),
        Some((argument, _)) => {
            let problem = "is of no use without a registry: it is for one of several servers";
            Err(Error::Config { argument, problem: problem.to_owned() })
        }
    }
}

/// The file of the server's key and the list of clients: both, or neither.
fn key_and_clients<'a>(
    curve_key: Option<&'a Path>,
    clients: Option<&'a ClientList>,
) -> Result<Option<(&'a Path, &'a ClientList)>, Error> {
    let bad = |argument, problem: &str| Error::Config { argument, problem: problem.to_owned() };
    match (curve_key, clients) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(bad("clients", "needs curve_key: clients are known by their keys")),
        (Some(_), None) => {
            let problem = "needs clients: the file with the clients that are let in, or \"*\" for \
                           whoever knows the server's public key";
            Err(bad("curve_key", problem))
        }
        (Some(curve_key), Some(clients)) => Ok(Some((curve_key, clients))),
    }
}

/// The server's key, and the clients that are let in.
fn security(
    curve_key: Option<&Path>,
    clients: Option<&ClientList>,
) -> Result<Option<Security>, Error> {
    let Some((curve_key, clients)) = key_and_clients(curve_key, clients)? else {
        return Ok(None);
    };
    let keys = read_secret("curve_key", curve_key)?;
    let clients = match clients {
        ClientList::Anybody => Clients::anybody(),
        ClientList::File(path) => {
            let text = read_text("clients", path, Clients::TEXT_BYTES_MAX)?;
            Clients::parse(&path.to_string_lossy(), &text)?
        }
    };
    Ok(Some(Security { keys, clients }))
}

/// Reads a file of settings.
///
/// # Errors
///
/// [`Error::Config`] that names the file; of one that is wrong, every line that is.
pub fn read_config(path: &Path) -> Result<FileConfig, Error> {
    let text = read_text("config", path, FileConfig::TEXT_BYTES_MAX)?;
    FileConfig::parse(&path.to_string_lossy(), &text)
}

/// The text of a file, or as much of it as shows that it is too long.
fn read_text(argument: &'static str, path: &Path, bytes_max: usize) -> Result<String, Error> {
    let name = path.to_string_lossy();
    let unreadable = |error: std::io::Error| Error::Config {
        argument,
        problem: format!("{name} cannot be read: {}", error.to_string().to_lowercase()),
    };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    // One byte more than a file may have, at most: then it is seen to be too long.
    file.take(bytes_max as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}
