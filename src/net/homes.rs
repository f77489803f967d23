//! A server among several: which keys it answers for, and who answers for the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cluster::{
    Epoch, HOLDS_BYTES_MAX, Memory, Output, Partition, PartitionMap, Problem, ServerName, Standing,
    Times,
};
use crate::engine::Gain;
use crate::error::Error;
use crate::net::forwarder::Forwarder;
use crate::net::journal::LOG;
use crate::net::membership::Membership;
use crate::net::service::Service;
use crate::observe::{Sharing, SharingCounts};
use crate::time::{Clock, Timestamp};
use crate::wire::homes::{HomeMap, HomeServer};

/// How long a server that stops may take to hand over what it has.
const LEAVE_TIME: Duration = Duration::from_secs(3);

/// A server's place among several.
pub(super) struct Homes {
    pub(super) membership: Membership,
    pub(super) name: ServerName,
    /// Whether the registry has answered something.
    pub(super) is_woken: Arc<AtomicBool>,
    /// The file that outlives the server, and what it says.
    pub(super) memory: Option<(PathBuf, Memory)>,
    /// The longest lease that may be granted in each partition, beyond what always may.
    pub(super) covered: PartitionMap<Duration>,
    pub(super) map: HomeMap,
    /// Which change of the map it is.
    pub(super) map_number: u64,
    pub(super) forwarder: Forwarder,
    /// How many partitions have come without what is used and held, since that was told.
    pub(super) taken: usize,
    /// For those who watch.
    pub(super) counts: SharingCounts,
    /// When it stops though it may still have something.
    pub(super) leaves_until: Option<Timestamp>,
    /// How it has left the cluster, if it has.
    pub(super) gone: Option<Result<(), Problem>>,
}

/// What a run of changes of one kind is about.
#[derive(Default)]
struct Going {
    stops: BTreeMap<Partition, Epoch>,
    losses: BTreeSet<Partition>,
}

impl Homes {
    pub(super) fn new(
        membership: Membership,
        name: ServerName,
        is_woken: Arc<AtomicBool>,
        memory: Option<(PathBuf, Memory)>,
        forwarder: Forwarder,
    ) -> Self {
        let (servers, homes) = (Vec::new(), PartitionMap::default());
        Self {
            membership,
            name,
            is_woken,
            memory,
            covered: PartitionMap::default(),
            map: HomeMap { epoch: 0, me: None, servers, homes },
            map_number: 0,
            taken: 0,
            counts: SharingCounts::default(),
            forwarder,
            leaves_until: None,
            gone: None,
        }
    }

    /// What may be done for the keys of a partition.
    pub(super) fn standing(&self, now: Timestamp, partition: Partition) -> Standing {
        self.membership.standing(now, partition)
    }

    /// Whether a lease of this length may be granted in a partition. If not, it will be soon.
    pub(super) fn covers(&mut self, partition: Partition, length: Duration) -> bool {
        let is_covered = length <= Times::default().grace.max(self.covered[partition]);
        if !is_covered {
            self.membership.cover(partition, length);
        }
        is_covered
    }

    /// When to look at it at the latest.
    pub(super) fn poll_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        // Whoever has left ends at once.
        let leaves_at = if self.gone.is_some() { Some(now) } else { self.leaves_until };
        let due = self.membership.poll_timeout().into_iter().chain(leaves_at);
        due.chain(self.forwarder.poll_timeout(now)).min()
    }

    /// How it stands to the others, for those who watch.
    pub(super) fn seen(&self, now: Timestamp) -> Sharing {
        Sharing {
            name: self.name.as_str().into(),
            map: self.map.clone(),
            alive_for: self.membership.home().alive_until().since(now),
            counts: self.counts,
        }
    }

    /// Whether it is known who is home of what, and this server is one of them.
    fn has_joined(&self) -> bool {
        self.map.me.is_some() && self.map.count(None) == 0
    }

    /// Takes up who is home of what, as it is seen now.
    fn see_map(&mut self) {
        let home = self.membership.home();
        let mut servers: Vec<HomeServer> = home
            .servers()
            .map(|(name, url, _)| HomeServer { name: name.as_str().into(), url: url.into() })
            .collect();
        // Those that are home of nothing are of no use to anybody.
        if servers.len() > HomeMap::SERVERS_MAX {
            let homes: BTreeSet<_> =
                Partition::all().filter_map(|it| Some(home.home_of(it)?.0.as_str())).collect();
            servers.retain(|server| homes.contains(&*server.name));
        }
        let place = |name: &str| servers.iter().position(|server| *server.name == *name);
        let homes = PartitionMap::from_fn(|it| place(home.home_of(it)?.0.as_str()));
        let epoch = Partition::all().map(|it| u64::from(home.epoch(it).0)).max().unwrap_or(0);
        // Another one may have the name.
        let me = place(self.name.as_str()).filter(|_| home.is_member());
        let map = HomeMap { epoch, me, servers, homes };
        if map != self.map {
            self.map = map;
            self.map_number += 1;
        }
    }

    /// Writes down what the next run has to know of the cluster.
    fn remember(&mut self) {
        let Some((path, known)) = &mut self.memory else { return };
        let memory = self.membership.home().memory();
        if memory == *known {
            return;
        }
        let beside = path.with_extension("new");
        let written =
            fs::write(&beside, memory.encode()).and_then(|()| fs::rename(&beside, &*path));
        if let Err(error) = written {
            let path = path.display();
            log::warn!(
                target: LOG, event = "memory";
                "{path} cannot be written: {error}; a registry that went back may not be noticed"
            );
        }
        *known = memory;
    }
}

impl Service {
    /// Takes up what has changed among the servers, and for how long this one may grant.
    pub(super) fn keep_home(&mut self) -> Result<(), Error> {
        let now = self.clock.now();
        let Some(homes) = &mut self.homes else { return Ok(()) };
        let is_due = homes.membership.poll_timeout().is_some_and(|due| due <= now);
        if homes.is_woken.swap(false, Ordering::AcqRel) || is_due {
            homes.membership.advance();
            homes.see_map();
            self.take_changes();
            self.note_homes();
        }
        let Some(homes) = &self.homes else { return Ok(()) };
        if let Some(Err(problem)) = &homes.gone {
            return Err(error_of(problem));
        }
        let until = homes.membership.home().alive_until();
        self.machine.stay_alive(self.clock.now(), until);
        self.drain();
        Ok(())
    }

    fn take_changes(&mut self) {
        let mut going = Going::default();
        while let Some(changes) = self.next_changes() {
            for change in changes {
                match change {
                    Output::Stop { partition, epoch } => drop(going.stops.insert(partition, epoch)),
                    Output::Lost { partition } => drop(going.losses.insert(partition)),
                    other => {
                        // What goes goes before what comes.
                        self.let_go(std::mem::take(&mut going));
                        self.take_change(other);
                    }
                }
            }
            self.let_go(std::mem::take(&mut going));
        }
    }

    fn next_changes(&mut self) -> Option<Vec<Output>> {
        let changes = self.homes.as_mut()?.membership.changes();
        (!changes.is_empty()).then_some(changes)
    }

    fn let_go(&mut self, going: Going) {
        let Going { stops, mut losses } = going;
        if let Some(homes) = &mut self.homes {
            homes.counts.given += stops.len() as u64;
            homes.counts.lost += losses.len() as u64;
        }
        let now = self.clock.now();
        if !stops.is_empty() {
            let partitions: BTreeSet<_> = stops.keys().copied().collect();
            let mut exported = self.machine.export(now, &partitions);
            losses.extend(partitions);
            self.evict(now, &std::mem::take(&mut losses));
            for (partition, epoch) in stops {
                let holds = exported.remove(&partition);
                let holds = holds.filter(|bytes| bytes.len() <= HOLDS_BYTES_MAX);
                if let Some(homes) = &mut self.homes {
                    homes.membership.give(partition, epoch, holds);
                }
            }
        }
        if !losses.is_empty() {
            self.evict(now, &losses);
        }
    }

    fn evict(&mut self, now: Timestamp, partitions: &BTreeSet<Partition>) {
        self.machine.evict(now, partitions);
        self.drain();
    }

    fn take_change(&mut self, change: Output) {
        let Some(homes) = &mut self.homes else { return };
        match change {
            Output::Gained { partition, epoch, start, holds, is_first } => {
                homes.covered[partition] = Duration::ZERO;
                let gain = match &holds {
                    _ if is_first => Gain::Fresh,
                    Some(bytes) => Gain::Handed(bytes),
                    None => Gain::Taken(start),
                };
                let is_taken = matches!(gain, Gain::Taken(_));
                homes.taken += usize::from(is_taken);
                homes.counts.taken += u64::from(is_taken);
                homes.counts.gained += u64::from(!is_taken);
                let now = self.clock.now();
                let from = now + Times::default().grace;
                if !self.machine.gain(now, (partition, epoch), gain, from) {
                    log::error!(
                        target: LOG, event = "unreadable";
                        "what was handed over of partition {partition} cannot be read: its limits \
                         count as used up, and its locks are free when their holders are gone"
                    );
                }
                self.drain();
            }
            Output::Covered { partition, length } => homes.covered[partition] = length,
            Output::Left => homes.gone = Some(Ok(())),
            Output::Failed(problem) => homes.gone = Some(Err(problem)),
            Output::Send(_) | Output::Stop { .. } | Output::Lost { .. } => {}
        }
    }

    /// Says what has come of the changes.
    fn note_homes(&mut self) {
        let Some(homes) = &mut self.homes else { return };
        homes.remember();
        let now = self.clock.now();
        self.journal.note_taken(now, std::mem::take(&mut homes.taken));
        let ours = homes.map.me.map_or(0, |me| homes.map.count(Some(me)));
        self.journal.note_share(now, ours, homes.map.servers.len());
        if homes.has_joined() {
            self.control.has_joined();
        }
    }

    /// Whether what this server has is with others now, or with nobody. Begins to hand it over.
    pub(super) fn has_left(&mut self) -> bool {
        let now = self.clock.now();
        let Some(homes) = &mut self.homes else { return true };
        let until = *homes.leaves_until.get_or_insert_with(|| {
            homes.membership.leave();
            // What that changes is taken up at the next turn.
            homes.is_woken.store(true, Ordering::Release);
            now + LEAVE_TIME
        });
        (homes.gone.is_some() && !homes.forwarder.owes()) || until <= now
    }
}

/// Why a server cannot be in its cluster, as its caller hears it.
pub(super) fn error_of(problem: &Problem) -> Error {
    let argument = match problem {
        Problem::NameTaken { .. } => "name",
        Problem::UrlTaken { .. } => "advertise",
        _ => "registry",
    };
    Error::Config { argument, problem: format!("cannot be used: {problem}") }
}
