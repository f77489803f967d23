//! What there is to see of the other servers of a server that is one of several.

use std::time::Duration;

use crate::cluster::Partition;
use crate::cluster::peers::Touch;
use crate::json::Object;
use crate::observe::exposition::{Exposition, Kind};
use crate::wire::homes::HomeMap;

/// A server that shares the keys with others.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// Its name.
    pub name: Box<str>,
    /// Who is home of what, as it knows.
    pub map: HomeMap,
    /// For how long it may grant, if it hears nothing more of the registry.
    pub alive_for: Duration,
    /// What was counted.
    pub counts: SharingCounts,
}

/// What a server counts that shares the keys with others.
#[derive(Clone, Copy, Debug, Default)]
pub struct SharingCounts {
    /// Requests that were not done, because another server is their home, or may be.
    pub not_home: u64,
    /// The seed's requests for which another server was to be asked.
    pub forwarded: u64,
    /// Partitions that came with all that is used and held in them.
    pub gained: u64,
    /// Partitions that came from a server that could not say what is used and held in them.
    pub taken: u64,
    /// Partitions that were handed over.
    pub given: u64,
    /// Partitions that went without being handed over.
    pub lost: u64,
}

/// A server that counts with others what all of them grant.
#[derive(Clone, Debug)]
pub struct Counting {
    /// Where each of the others is heard, and how this one stands to it.
    pub others: Vec<(Box<str>, Touch)>,
    /// What was counted.
    pub counts: CountingCounts,
}

/// What a server counts that has peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingCounts {
    /// Permits that others have granted, and that count here.
    pub permits: u64,
    /// Messages to the others that told of permits or usage.
    pub updates: u64,
}

impl Sharing {
    /// How many partitions are at home with this server, with another one, and with none.
    fn homes(&self) -> [(&'static str, usize); 3] {
        let none = self.map.count(None);
        let here = self.map.me.map_or(0, |me| self.map.count(Some(me)));
        [("here", here), ("elsewhere", Partition::COUNT - here - none), ("none", none)]
    }

    pub(super) fn scrape(&self, text: &mut Exposition) {
        let Self { map, alive_for, counts, .. } = self;
        let help = "The servers that share the keys, this one included.";
        text.single(Kind::Gauge, "zmqlocker_servers", help, map.servers.len());
        let help = "The partitions of the keys, by where their home is.";
        text.family(Kind::Gauge, "zmqlocker_partitions", help);
        for (home, count) in self.homes() {
            text.sample(&[("home", home)], count);
        }
        let help = "The number of the last change of homes in the cluster.";
        text.single(Kind::Gauge, "zmqlocker_epoch", help, map.epoch);
        let help = "For how long the server may grant if it hears nothing more of the registry.";
        text.single(Kind::Gauge, "zmqlocker_alive_seconds", help, alive_for.as_secs_f64());
        let help = "Partitions whose home this server has become, or is no more.";
        text.family(Kind::Counter, "zmqlocker_home_changes_total", help);
        let SharingCounts { not_home, forwarded, gained, taken, given, lost } = *counts;
        for (change, count) in
            [("gained", gained), ("taken", taken), ("given", given), ("lost", lost)]
        {
            text.sample(&[("change", change)], count);
        }
        let help = "Requests that were not done because their home is elsewhere, or may be.";
        text.single(Kind::Counter, "zmqlocker_not_home_total", help, not_home);
        let help = "Requests of REQ sockets that their home was to be asked for.";
        text.single(Kind::Counter, "zmqlocker_forwarded_total", help, forwarded);
    }

    pub(super) fn document(&self) -> Object {
        let servers = self.map.servers.iter().enumerate().map(|(place, server)| {
            Object::new()
                .with("name", &*server.name)
                .with("url", &*server.url)
                .with("partitions", &self.map.count(Some(place)))
                .with("is_this", &(*server.name == *self.name))
        });
        Object::new()
            .with("servers", &servers.collect::<Vec<_>>())
            .with("partitions", &Partition::COUNT)
            .with("homeless", &self.map.count(None))
            .with("epoch", &self.map.epoch)
            .with("alive", &!self.alive_for.is_zero())
    }
}

impl Counting {
    pub(super) fn scrape(&self, text: &mut Exposition) {
        let help = "The other servers that count with this one, by whether they are in touch.";
        text.family(Kind::Gauge, "zmqlocker_peers", help);
        for touch in [Touch::InTouch, Touch::Stopped, Touch::OutOfTouch] {
            let count = self.others.iter().filter(|(_, it)| *it == touch).count();
            text.sample(&[("state", state(touch))], count);
        }
        let help = "Permits that other servers have granted, and that count here.";
        text.single(Kind::Counter, "zmqlocker_peer_permits_total", help, self.counts.permits);
        let help = "Messages to other servers that told of permits or usage.";
        text.single(Kind::Counter, "zmqlocker_peer_updates_total", help, self.counts.updates);
    }

    pub(super) fn document(&self) -> Vec<Object> {
        let seen = self.others.iter().filter(|(_, touch)| *touch != Touch::Double);
        seen.map(|(url, touch)| Object::new().with("url", &**url).with("state", state(*touch)))
            .collect()
    }
}

const fn state(touch: Touch) -> &'static str {
    match touch {
        Touch::InTouch => "in_touch",
        Touch::Stopped => "stopped",
        Touch::OutOfTouch => "out_of_touch",
        Touch::Double => "double",
    }
}
