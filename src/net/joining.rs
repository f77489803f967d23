//! How a server becomes one of several.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::{Epoch, Memory, RunId, ServerName, Settings};
use crate::config::{Member, Place, ServerConfig, Url};
use crate::engine::Machine;
use crate::error::Error;
use crate::net::clock::{BootClock, unix_time};
use crate::net::forwarder::Forwarder;
use crate::net::homes::Homes;
use crate::net::host::host_name;
use crate::net::membership::Membership;
use crate::net::server::{Control, number_by_time_of_day};
use crate::time::Clock;

/// The file within the data directory that says what was known of the cluster.
const FILE: &str = "cluster";

/// Has a server join its cluster, if its settings name one. From now on its machine decides for no
/// key that it is not given.
pub(super) fn join<E>(
    config: &ServerConfig,
    (endpoint, number): (&str, u64),
    control: &Arc<Control>,
    machine: &mut Machine<E>,
) -> Result<Option<Box<Homes>>, Error> {
    let Some(member) = &config.member else { return Ok(None) };
    let url = url_of(member, &Url::parse(endpoint)?)?;
    let name = name_of(member, &url)?;
    let memory = config.data_dir.as_deref().map(read_memory).transpose()?;
    let settings = Settings {
        name: name.clone(),
        run: RunId(number),
        url: url.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: String::new(),
        above: Epoch(0),
        first: Epoch(u32::try_from(number_by_time_of_day(unix_time()).0 >> 32).unwrap_or(0)),
        memory: memory.as_ref().map(|(_, memory)| memory.clone()).unwrap_or_default(),
    };
    let is_woken = Arc::new(AtomicBool::new(true));
    let (woken, server) = (Arc::clone(&is_woken), Arc::clone(control));
    let wake = move || {
        woken.store(true, Ordering::Release);
        server.wake();
    };
    let membership = Membership::start(&member.registry, settings, wake)?;
    machine.share_keys(BootClock.now());
    while machine.poll_output().is_some() {}
    let forwarder = Forwarder::default();
    Ok(Some(Box::new(Homes::new(membership, name, is_woken, memory, forwarder))))
}

/// Where clients and the other servers find this one.
fn url_of(member: &Member, endpoint: &Url) -> Result<Url, Error> {
    if endpoint.place() == Place::Inproc {
        let problem = format!("is of no use for {endpoint}, which no other server finds");
        return Err(Error::Config { argument: "registry", problem });
    }
    let url = member.advertise.as_ref().unwrap_or(endpoint);
    if url.is_wildcard() {
        let problem = format!(
            "must say where clients and the other servers find this one, as tcp://HOST:PORT: it \
             serves all addresses of its host, by {url}"
        );
        return Err(Error::Config { argument: "advertise", problem });
    }
    if url.as_str().contains(char::is_whitespace) {
        let problem = format!("must be without spaces where servers share the keys, not {url}");
        return Err(Error::Config { argument: "url", problem });
    }
    Ok(url.clone())
}

/// The server's name: the host and the port, if there is no other.
fn name_of(member: &Member, url: &Url) -> Result<ServerName, Error> {
    if let Some(name) = &member.name {
        return Ok(name.clone());
    }
    let Place::Tcp { port: Some(port), .. } = url.place() else {
        let problem = "must be given: there is no port that tells this server from others".into();
        return Err(Error::Config { argument: "name", problem });
    };
    let is_good = |letter: char| letter.is_ascii_alphanumeric() || letter == '.';
    let host = host_name();
    let host: String = host.chars().map(|it| if is_good(it) { it } else { '-' }).take(56).collect();
    ServerName::parse(&format!("{host}-{port}"))
}

/// What an earlier run has known of the cluster, and where it is written down.
fn read_memory(folder: &Path) -> Result<(PathBuf, Memory), Error> {
    let path = folder.join(FILE);
    let unusable = |problem: String| Error::Config {
        argument: "data_dir",
        problem: format!("{:?} cannot be used: {problem}", folder.display().to_string()),
    };
    fs::create_dir_all(folder).map_err(|error| unusable(error.to_string()))?;
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((path, Memory::default()));
        }
        Err(error) => return Err(unusable(error.to_string())),
    };
    match Memory::decode(&text) {
        Some(memory) => Ok((path, memory)),
        None => Err(unusable(format!(
            "its file {FILE} is not what a server writes: put a backup in its place, or remove it"
        ))),
    }
}
