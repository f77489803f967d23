//! `zmqlocker cluster`: which servers share the keys, and how each of them does.

use std::thread;

use clap::Args;

use crate::cli::client::ClientOptions;
use crate::cli::json::Object;
use crate::cli::status;
use crate::cli::table::{Align, Table, fitting, short};
use crate::cli::{Failure, Status};
use crate::cluster::Partition;
use crate::engine::ServerStatus;
use crate::error::Error;
use crate::wire::homes::{HomeMap, HomeServer};

/// Show which servers share the keys through a registry, and how each of them does.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker cluster --timeout 1

HOMES is of how many of the 64 partitions of the keys a server is home; UP is for how long it \
runs. ALLOWED and REFUSED count requests since then. Any of the servers may be asked.

Exit status: 0 all servers answer and each partition has a home, 1 not so, 2 wrong usage, or \
a server that is alone, 3 no server or another failure.")]
pub(super) struct Cluster {
    #[command(flatten)]
    options: ClientOptions,
}

/// A server, of how many partitions it is home, and what it says.
struct Seen<'a> {
    server: &'a HomeServer,
    homes: usize,
    heard: Result<ServerStatus, Error>,
}

impl Cluster {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let Some(map) = self.options.client()?.home_map(&mut || true)? else {
            let problem = "names a server that is alone: it was started without a registry";
            return Err(Error::Config { argument: "url", problem: problem.to_owned() }.into());
        };
        let seen = self.ask_all(&map);
        self.options.print(&object(&map, &seen), &text(&map, &seen))?;
        let is_well = seen.iter().all(|one| one.heard.is_ok()) && map.count(None) == 0;
        Ok(if is_well { Status::Done } else { Status::Refused })
    }

    /// Asks all servers at once: those that do not answer take the whole timeout.
    fn ask_all<'a>(&self, map: &'a HomeMap) -> Vec<Seen<'a>> {
        let ask = |server: &HomeServer| {
            let client = self.options.client_at(&server.url)?;
            client.server_status(&mut || true)
        };
        thread::scope(|scope| {
            let asked = map.servers.iter().map(|server| (server, scope.spawn(|| ask(server))));
            let asked: Vec<_> = asked.collect();
            let seen = asked.into_iter().enumerate().map(|(place, (server, thread))| {
                let broke = |_| Err(Error::Closed);
                let heard = thread.join().unwrap_or_else(broke);
                Seen { server, homes: map.count(Some(place)), heard }
            });
            seen.collect()
        })
    }
}

fn text(map: &HomeMap, seen: &[Seen<'_>]) -> String {
    let mut table = Table::new(["NAME", "HOMES", "UP", "ALLOWED", "REFUSED", "WAIT", "URL"]);
    for Seen { server, homes, heard } in seen {
        let told = |tell: &dyn Fn(&ServerStatus) -> String| {
            heard.as_ref().map_or_else(|_| "-".to_owned(), tell)
        };
        table.add([
            server.name.to_string(),
            homes.to_string(),
            told(&|status| short(status.facts.uptime)),
            told(&|status| status.tally.allowed.to_string()),
            told(&|status| status.tally.refused.to_string()),
            told(&|status| status.tally.waiting.to_string()),
            server.url.to_string(),
        ]);
    }
    let [left, right] = [Align::Left, Align::Right];
    let mut text = table.lines([left, right, right, right, right, right, left]).concat();
    for Seen { server, heard, .. } in seen {
        if let Err(error) = heard {
            text += &fitting(&format!("{}: {error}", server.name));
        }
    }
    let epoch = map.epoch;
    let homes = match map.count(None) {
        0 => "each with a home".to_owned(),
        some => format!("{some} of them without a home"),
    };
    text + &fitting(&format!("{} partitions, {homes}, epoch {epoch}", Partition::COUNT))
}

fn object(map: &HomeMap, seen: &[Seen<'_>]) -> Object {
    let servers = seen.iter().map(|Seen { server, homes, heard }| {
        let object = Object::new()
            .with("name", &*server.name)
            .with("url", &*server.url)
            .with("homes", homes);
        match heard {
            Ok(told) => object.with("status", &status::object(told)),
            Err(error) => object.with("error", &error.to_string()),
        }
    });
    Object::new()
        .with("epoch", &map.epoch)
        .with("partitions", &Partition::COUNT)
        .with("homeless", &map.count(None))
        .with("servers", &servers.collect::<Vec<_>>())
}
