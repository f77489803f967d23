//! `zmqlocker cluster`: which servers share the keys, and how each of them does.

use std::thread;

use clap::Args;

use crate::cli::client::ClientOptions;
use crate::cli::json::Object;
use crate::cli::registry::Asked;
use crate::cli::status;
use crate::cli::table::{Align, Table, fitting, short, whole};
use crate::cli::wish::WishCommand;
use crate::cli::{Failure, Status};
use crate::cluster::{Partition, ServerName, Wishes};
use crate::engine::ServerStatus;
use crate::error::Error;
use crate::wire::homes::{HomeMap, HomeServer};

/// Show which servers share the keys through a registry, and how each of them does; move keys.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
#[command(after_help = "\
Example: zmqlocker cluster --timeout 1

HOMES is of how many of the 64 partitions of the keys a server is home; UP is for how long it \
runs. ALLOWED and REFUSED count requests since then. Any of the servers may be asked.

Exit status: 0 all servers answer and reach the registry, and each partition has a home, 1 not \
so, or the registry does not answer us, 2 wrong usage, or a server that is alone, 3 no server or \
another failure.")]
pub(super) struct Cluster {
    #[command(subcommand)]
    wish: Option<WishCommand>,
    /// The registry of the servers: which partitions were moved and which servers are drained is
    /// shown too.
    #[arg(long, value_name = "URL", env = "ZMQLOCKER_REGISTRY", hide_env_values = true)]
    registry: Option<String>,
    #[command(flatten)]
    options: ClientOptions,
}

/// What is wished, where that was asked for.
type Wished = Option<Result<Wishes, Error>>;

/// A server, of how many partitions it is home, and what it says.
struct Seen<'a> {
    server: &'a HomeServer,
    homes: usize,
    heard: Result<ServerStatus, Error>,
}

impl Seen<'_> {
    /// Why it grants nothing, as far as can be seen from here.
    fn trouble(&self) -> Option<String> {
        match &self.heard {
            Ok(told) if told.facts.reaches_registry == Some(false) => {
                Some("grants nothing: it has not joined, or does not reach the registry".to_owned())
            }
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        }
    }
}

impl Cluster {
    pub(super) fn run(mut self) -> Result<Status, Failure> {
        if let Some(wish) = self.wish.take() {
            return wish.run();
        }
        let Some(map) = self.options.client()?.home_map(&mut || true)? else {
            let problem = "names a server that is alone: it was started without a registry";
            return Err(Error::Config { argument: "url", problem: problem.to_owned() }.into());
        };
        let registry = self.ask_registry(&map);
        let seen = self.ask_all(&map);
        self.options.print(&object(&map, &seen, &registry), &text(&map, &seen, &registry))?;
        let is_well = seen.iter().all(|one| one.trouble().is_none())
            && map.count(None) == 0
            && !matches!(registry, Some(Err(_)));
        Ok(if is_well { Status::Done } else { Status::Refused })
    }

    fn ask_registry(&self, map: &HomeMap) -> Wished {
        let url = self.registry.as_ref()?;
        let ask = |timeout| {
            let overview = Asked::open(url, timeout)?.overview()?;
            if map.servers.iter().any(|server| overview.has(&server.name, &server.url)) {
                return Ok(overview.wishes().clone());
            }
            let problem = "is of other servers than those that were asked".to_owned();
            Err(Error::Config { argument: "registry", problem })
        };
        Some(self.options.timeout().and_then(ask))
    }

    /// Asks all servers at once: those that do not answer take the whole timeout.
    fn ask_all<'a>(&self, map: &'a HomeMap) -> Vec<Seen<'a>> {
        let ask = |server: &HomeServer| {
            let client = self.options.client_at(&server.url)?;
            client.server_status(&mut || true)
        };
        thread::scope(|scope| {
            let start = |server| {
                let named = thread::Builder::new().name("zmql-ask".to_owned());
                (server, named.spawn_scoped(scope, move || ask(server)))
            };
            let asked: Vec<_> = map.servers.iter().map(start).collect();
            let seen = asked.into_iter().enumerate().map(|(place, (server, thread))| {
                let broke = |_| Err(Error::Closed);
                let heard = match thread {
                    Ok(thread) => thread.join().unwrap_or_else(broke),
                    Err(error) => Err(Error::system("start a thread", &error)),
                };
                Seen { server, homes: map.count(Some(place)), heard }
            });
            seen.collect()
        })
    }
}

fn text(map: &HomeMap, seen: &[Seen<'_>], registry: &Wished) -> String {
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
    for one in seen {
        if let Some(trouble) = one.trouble() {
            text += &whole(&format!("{}: {trouble}", one.server.name));
        }
    }
    match registry {
        Some(Ok(wishes)) => lines_of(map, wishes).iter().for_each(|line| text += &fitting(line)),
        Some(Err(error)) => text += &whole(&error.to_string()),
        None => {}
    }
    let epoch = map.epoch;
    let homes = match map.count(None) {
        0 => "each with a home".to_owned(),
        some => format!("{some} of them without a home"),
    };
    text + &fitting(&format!("{} partitions, {homes}, epoch {epoch}", Partition::COUNT))
}

/// What was wished, and what has come of it.
fn lines_of(map: &HomeMap, wishes: &Wishes) -> Vec<String> {
    let Wishes { moves, drained } = wishes;
    let mut lines: Vec<_> = drained.iter().map(|name| format!("{name}: drained")).collect();
    let is_drained = |server: &HomeServer| drained.iter().any(|it| it.as_str() == &*server.name);
    if map.servers.iter().all(is_drained) {
        lines.push("all servers are drained, which counts for nothing: undrain one".to_owned());
    }
    for (partition, name) in moves.iter() {
        let Some(name) = name else { continue };
        let home = map.home_of(partition).map_or("nobody", |home| &home.name);
        let but = if home == name.as_str() { "" } else { &format!(", now with {home}") };
        lines.push(format!("partition {partition}: moved to {name}{but}"));
    }
    lines
}

fn object(map: &HomeMap, seen: &[Seen<'_>], registry: &Wished) -> Object {
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
    let wishes = registry.as_ref().and_then(|told| told.as_ref().ok());
    let drained = wishes.map(|it| it.drained.iter().map(ServerName::as_str).collect::<Vec<_>>());
    let moves = wishes.map(|wishes| {
        let moves = wishes.moves.iter();
        let moves = moves.filter_map(|(partition, name)| Some(moved(partition, name.as_ref()?)));
        moves.collect::<Vec<_>>()
    });
    let object = Object::new()
        .with("epoch", &map.epoch)
        .with("partitions", &Partition::COUNT)
        .with("homeless", &map.count(None))
        .with("servers", &servers.collect::<Vec<_>>())
        .with("drained", &drained)
        .with("moves", &moves);
    match registry {
        Some(Err(error)) => object.with("error", &error.to_string()),
        _ => object,
    }
}

/// A partition that was given to a server.
pub(super) fn moved(partition: Partition, name: &ServerName) -> Object {
    Object::new().with("partition", &partition.number()).with("name", name.as_str())
}
