//! Servers that share the keys through a folder, in this process: what their clients see.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use zmqlocker::answer::Answer::{Go, Sorry};
use zmqlocker::cluster::ServerName;
use zmqlocker::config::{Member, ServerConfig, Url};
use zmqlocker::engine::{Cost, Demand, Hold, Key, Rate, Reply, Request, Wait};
use zmqlocker::error::Error;
use zmqlocker::net::{BootClock, Client, Server};
use zmqlocker::registry::RegistryUrl;
use zmqlocker::time::Clock;

use crate::client;

/// How long a server waits at most until others have what it had.
const LEAVE_TIME: Duration = Duration::from_secs(3);

/// A folder that is removed with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("zmqlocker-net-{}-{number}", process::id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(registry: &Path, name: &str) -> ServerConfig {
    let url = Url::parse("tcp://127.0.0.1:*").unwrap();
    let registry = RegistryUrl::parse(&format!("file://{}", registry.display())).unwrap();
    let name = Some(ServerName::parse(name).unwrap());
    let member = Some(Member { registry, name, advertise: None });
    ServerConfig { member, ..ServerConfig::of_rate(Rate::new(3, 3600.0).unwrap(), url) }
}

/// How many permits of a key are left; or nothing if that could not be had.
fn take(client: &Client, name: &str) -> Option<u64> {
    let demand = Demand::one(Key::parse(name).unwrap(), Cost::ONE);
    let request = Request::Acquire { demand, wait: Wait::No, hold: Hold::Spend };
    let heard = client.ask(&request, None, client.timeout(), &mut || true).unwrap();
    let Reply::Decision(decision) = heard.reply else { panic!() };
    decision.allowed.then_some(decision.remaining)
}

#[test]
fn what_is_used_of_a_key_is_counted_once_by_whichever_server_and_goes_on_when_one_stops() {
    let folder = Folder::new();
    let registry = folder.path("registry");
    let servers: Vec<_> =
        ["a", "b", "c"].map(|name| Server::start(&config(&registry, name)).unwrap()).into();
    let clients: Vec<_> = servers.iter().map(|server| client(server.url())).collect();
    let keys: Vec<_> = (0..24).map(|number| format!("key{number}")).collect();
    for key in &keys {
        assert_eq!(take(&clients[0], key), Some(2));
        assert_eq!(take(&clients[1], key), Some(1));
    }
    let next = |client: &Client| client.next(client.timeout(), &mut || true).unwrap();
    assert_eq!([0, 1, 2].map(|number| next(&clients[number])), [Go; 3]);
    assert_eq!([0, 1, 2].map(|number| next(&clients[number])), [Sorry; 3]);
    let stopping = BootClock.now();
    servers[1].stop();
    assert!(BootClock.now().since(stopping) < LEAVE_TIME, "it waits for nothing when it has left");
    for key in &keys {
        assert_eq!(take(&clients[2], key), Some(0));
        assert_eq!(take(&clients[0], key), None);
    }
    assert_eq!([0, 2].map(|number| next(&clients[number])), [Sorry; 2]);
}

#[test]
fn what_was_known_of_the_cluster_is_kept_and_a_registry_that_went_back_is_refused() {
    let folder = Folder::new();
    let data_dir = Some(folder.path("data"));
    let config = |registry: &str| ServerConfig {
        data_dir: data_dir.clone(),
        ..config(&folder.path(registry), "a")
    };
    let server = Server::start(&config("registry")).unwrap();
    assert_eq!(take(&client(server.url()), "k"), Some(2));
    server.stop();
    let server = Server::start(&config("registry")).unwrap();
    assert_eq!(take(&client(server.url()), "k"), Some(1), "it outlives all servers");
    server.stop();
    // An empty one is one whose data were lost.
    let refused = Server::start(&config("empty")).unwrap_err();
    assert!(matches!(refused, Error::Config { argument: "registry", .. }), "{refused}");
    assert!(refused.to_string().contains("`above="), "{refused}");
    fs::write(folder.path("data").join("cluster"), "nonsense").unwrap();
    let refused = Server::start(&config("registry")).unwrap_err();
    assert!(matches!(refused, Error::Config { argument: "data_dir", .. }), "{refused}");
}
