//! `zmqlocker cluster move`, `unmove`, `drain` and `undrain`: which server is to be home of what.

use clap::{Args, Subcommand};

use crate::cli::client::{ANSWER_TIMEOUT, print};
use crate::cli::cluster::moved;
use crate::cli::json::{Object, document};
use crate::cli::registry::Asked;
use crate::cli::{Failure, Status, complain};
use crate::cluster::{Overview, Partition, ServerName, Wish};
use crate::config::Span;
use crate::engine::Key;
use crate::error::Error;

/// What is wanted of a cluster.
#[derive(Debug, Subcommand)]
pub(super) enum WishCommand {
    Move(Move),
    Unmove(Unmove),
    Drain(Drain),
    Undrain(Undrain),
}

impl WishCommand {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let (wish, options) = match self {
            Self::Move(Move { what, name, options }) => {
                (Wish::Move(what.partition()?, ServerName::parse(&name)?), options)
            }
            Self::Unmove(Unmove { what, options }) => (Wish::Unmove(what.partition()?), options),
            Self::Drain(Drain { name, options }) => {
                (Wish::Drain(ServerName::parse(&name)?), options)
            }
            Self::Undrain(Undrain { name, options }) => {
                (Wish::Undrain(ServerName::parse(&name)?), options)
            }
        };
        options.fulfil(&wish)
    }
}

/// Give a partition to a server, which keeps it for as long as it lives.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker cluster move --key invoice:42 db2-7777

What is used and held goes along, and clients follow. While the server is not there, or is \
drained, the partition goes to another one. `zmqlocker cluster unmove` takes it back.

Exit status: 0 it is there, 1 it is not there yet, or the server is drained, 2 wrong usage, 3 no \
registry or another failure.")]
pub(super) struct Move {
    #[command(flatten)]
    what: What,
    /// The server, by the name that `zmqlocker cluster` shows.
    name: String,
    #[command(flatten)]
    options: RegistryOptions,
}

/// Let a partition that was moved be with any server again.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker cluster unmove 36

It stays where it is unless that server has more than its share.

Exit status: 0 done, 1 it was not moved, 2 wrong usage, 3 no registry or another failure.")]
pub(super) struct Unmove {
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    options: RegistryOptions,
}

/// Have a server hand over all partitions and get no others, also after it was started anew.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker cluster drain db2-7777 && ssh db2 systemctl restart zmqlocker

The server goes on running, and tells clients who is home. Where all servers that are there are \
drained, that counts for nothing: each partition needs a home. `zmqlocker cluster undrain` takes \
it back.

Exit status: 0 it is home of nothing, 1 it still is of something, or all others are drained, 2 \
wrong usage, 3 no registry or another failure.")]
pub(super) struct Drain {
    /// The server, by the name that `zmqlocker cluster` shows.
    name: String,
    #[command(flatten)]
    options: RegistryOptions,
}

/// Let a server that was drained have its share of the partitions again.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker cluster undrain db2-7777

Exit status: 0 done, 1 it was not drained, 2 wrong usage, 3 no registry or another failure.")]
pub(super) struct Undrain {
    /// The server. It need not be there.
    name: String,
    #[command(flatten)]
    options: RegistryOptions,
}

/// Which partition it is about.
#[derive(Args, Debug)]
struct What {
    /// The partition, from 0 to 63.
    partition: String,
    /// PARTITION is a key: the partition that this key is in.
    #[arg(long)]
    key: bool,
}

impl What {
    fn partition(&self) -> Result<Partition, Error> {
        if self.key {
            return Ok(Partition::of(Key::parse(&self.partition)?));
        }
        self.partition.parse().ok().and_then(Partition::numbered).ok_or_else(|| {
            let shown: String = self.partition.chars().take(80).collect();
            let last = Partition::COUNT - 1;
            let problem = format!("must be from 0 to {last}, or a key after --key, not {shown:?}");
            Error::Config { argument: "PARTITION", problem }
        })
    }
}

/// The options of a command that asks the registry.
#[derive(Args, Debug)]
struct RegistryOptions {
    /// The registry of the servers, as their --registry names it.
    #[arg(long, value_name = "URL", env = "ZMQLOCKER_REGISTRY", hide_env_values = true)]
    registry: String,
    /// How long it may take until all is as it should be.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = ANSWER_TIMEOUT.as_secs_f64(),
        allow_negative_numbers = true
    )]
    timeout: f64,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

impl RegistryOptions {
    fn fulfil(&self, wish: &Wish) -> Result<Status, Failure> {
        let timeout = Span::Positive.parse("--timeout", self.timeout)?;
        let mut registry = Asked::open(&self.registry, timeout)?;
        let overview = registry.overview()?;
        check_name(wish, &overview)?;
        let mut problem = refusal(wish, &overview);
        if problem.is_none() && !registry.fulfil(wish)? {
            problem = Some(lateness(wish, &registry.overview()?, self.timeout));
        }
        let is_done = problem.is_none();
        if let Some(problem) = problem {
            complain(&problem);
        }
        if self.json {
            let object = match wish {
                Wish::Move(partition, name) => moved(*partition, name),
                Wish::Unmove(partition) => Object::new().with("partition", &partition.number()),
                Wish::Drain(name) | Wish::Undrain(name) => {
                    Object::new().with("name", name.as_str())
                }
            };
            print(&(document(&object.with("done", &is_done)) + "\n"))?;
        }
        Ok(if is_done { Status::Done } else { Status::Refused })
    }
}

/// Whether the server that is to have something, or nothing, is there.
fn check_name(wish: &Wish, overview: &Overview) -> Result<(), Error> {
    let (Wish::Move(_, name) | Wish::Drain(name)) = wish else { return Ok(()) };
    if overview.servers().any(|server| server == name) {
        return Ok(());
    }
    let there = listed(overview.servers());
    let problem = format!("must be one of the servers that are there, not {name}: {there}");
    Err(Error::Config { argument: "NAME", problem })
}

/// Why a wish is not to be written down, if there is a reason.
fn refusal(wish: &Wish, overview: &Overview) -> Option<String> {
    let drained = &overview.wishes().drained;
    match wish {
        Wish::Move(_, name) if drained.contains(name) => Some(format!(
            "{name} is drained, and gets no partition: `zmqlocker cluster undrain {name}` first"
        )),
        Wish::Unmove(partition) if overview.wishes().moves[*partition].is_none() => {
            Some(format!("partition {partition} was not moved"))
        }
        Wish::Drain(name) => {
            let is_kept = |server: &ServerName| server != name && !drained.contains(server);
            (!overview.servers().any(is_kept)).then(|| {
                format!(
                    "{name} cannot be drained: no other server is there that is not, and each \
                     partition needs a home"
                )
            })
        }
        Wish::Undrain(name) if !drained.contains(name) => {
            Some(format!("{name} was not drained; drained: {}", listed(drained.iter())))
        }
        _ => None,
    }
}

/// What is not yet so of a wish that is written down.
fn lateness(wish: &Wish, overview: &Overview, seconds: f64) -> String {
    match wish {
        Wish::Move(partition, name) => {
            let home = overview.home_of(*partition).map_or("nobody", ServerName::as_str);
            format!(
                "partition {partition} is still with {home} after {seconds} s, and goes to {name} \
                 as soon as it can"
            )
        }
        Wish::Drain(name) => {
            let is_home = |partition: &Partition| overview.home_of(*partition) == Some(name);
            let count = Partition::all().filter(is_home).count();
            format!(
                "{name} is still home of {count} partitions after {seconds} s, which go as soon \
                 as they can"
            )
        }
        Wish::Unmove(_) | Wish::Undrain(_) => "somebody wished the contrary meanwhile".to_owned(),
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a ServerName>) -> String {
    let names: Vec<_> = names.map(ServerName::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
