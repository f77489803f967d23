//! One of several servers: the partitions of the keys that a machine decides for.
//!
//! Until it [shares its keys](Machine::share_keys) it decides for all of them. From then on, for
//! those that it was [given](Machine::gain), and only as long as it is known to be
//! [alive](Machine::stay_alive).

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{Epoch, Partition};
use crate::engine::event::Output;
use crate::engine::handing::{self, Handed};
use crate::engine::homes::Part;
use crate::engine::key::Key;
use crate::engine::lease_record::LeaseRecord;
use crate::engine::machine::{Asker, LOST_AT_ONCE, Machine};
use crate::engine::request::{GrantId, Problem, Reply};
use crate::engine::session::SessionId;
use crate::time::Timestamp;

/// How a machine comes to a partition of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gain<'a> {
    /// Nobody had it before: nothing is used or held.
    Fresh,
    /// With what [`Machine::export`] has said of it elsewhere.
    Handed(&'a [u8]),
    /// From a home of which nothing more is known. All that it may have granted counts as granted:
    /// limits are used up as of now, and what is held may only be reclaimed before this instant.
    Taken(Timestamp),
}

impl<E> Machine<E> {
    /// From now on this machine decides for no key but those that it is given. Drain the outputs
    /// after it, and after each of the following.
    pub fn share_keys(&mut self, now: Timestamp) {
        self.gate.share_keys(now);
        self.pass_on();
    }

    /// Nothing is granted after `until`, unless this says later that it may.
    pub fn stay_alive(&mut self, now: Timestamp, until: Timestamp) {
        self.gate.stay_alive(now, until);
        self.pass_on();
    }

    /// Gives this machine a partition, whose grants have numbers of this epoch or a later one.
    /// What was handed over is taken as [`Gain::Taken`], as of `or_from`, if it cannot be read.
    /// Whether it could be.
    pub fn gain(
        &mut self,
        now: Timestamp,
        (partition, epoch): (Partition, Epoch),
        gain: Gain<'_>,
        or_from: Timestamp,
    ) -> bool {
        self.number_grants_above(GrantId(u64::from(epoch.0) << 32));
        let taken = |from| Part { held_from: from, used_up_at: Some(now) };
        let known = Part { held_from: now, used_up_at: None };
        let part = if let Gain::Taken(from) = gain { taken(from) } else { known };
        self.gate.gain(now, partition, part);
        let mut is_known = true;
        match gain {
            Gain::Fresh if Partition::of(Key::DEFAULT) == partition => {
                self.gate.open(now, Key::DEFAULT);
            }
            Gain::Handed(bytes) => {
                is_known =
                    handing::decode(bytes).is_some_and(|all| self.import(now, partition, all));
                if !is_known {
                    self.gate.evict(now, &BTreeSet::from([partition]));
                    self.gate.gain(now, partition, taken(or_from));
                }
            }
            Gain::Fresh | Gain::Taken(_) => {}
        }
        self.pass_on();
        is_known
    }

    /// All that the next homes of these partitions have to know. It is to be [`evict`]ed here
    /// before anything else happens.
    ///
    /// [`evict`]: Machine::evict
    #[must_use]
    pub fn export(
        &self,
        now: Timestamp,
        partitions: &BTreeSet<Partition>,
    ) -> BTreeMap<Partition, Vec<u8>> {
        let requests: BTreeMap<_, _> = self.sessions.granted().collect();
        let exported = self.gate.export(now, partitions);
        let encode = |(partition, (mut all, leases)): (Partition, (Vec<Handed>, Vec<_>))| {
            for (grant, owner, record) in leases {
                let Some(session) = self.sessions.get(owner) else { continue };
                let request = requests.get(&grant).copied();
                let record = LeaseRecord { request, ..record };
                let (holder, client) = (session.name, session.client.clone());
                all.push(Handed::Lease { grant, record, holder, client });
            }
            (partition, handing::encode(&all))
        };
        exported.into_iter().map(encode).collect()
    }

    /// Keys of these partitions are decided for elsewhere. Whoever waits for one hears so, and the
    /// holders of leases that went are told.
    pub fn evict(&mut self, now: Timestamp, partitions: &BTreeSet<Partition>) {
        self.gate.evict(now, partitions);
        self.pass_on();
    }

    /// Whether a lease of a client went to another server, and the client has not said that it
    /// knows.
    #[must_use]
    pub fn has_moved(&self, session: SessionId, grant: GrantId) -> bool {
        self.sessions.get(session).is_some_and(|session| session.moved.contains(&grant))
    }

    /// Whether a client holds this lease here.
    #[must_use]
    pub fn holds(&self, session: SessionId, grant: GrantId) -> bool {
        self.gate.has_lease(session, grant)
    }

    /// A client knows of these leases that they went to another server.
    pub fn know_moved(&mut self, session: SessionId, grants: &[GrantId]) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.moved.retain(|grant| !grants.contains(grant));
        }
    }

    fn import(&mut self, now: Timestamp, partition: Partition, all: Vec<Handed>) -> bool {
        all.into_iter().all(|handed| match handed {
            Handed::UsedUp { age } => {
                self.gate.import_used_up(now, partition, age);
                true
            }
            Handed::Usage { name, frozen_for, own_limits, record } => {
                self.gate.import_usage(now, &name, (frozen_for, own_limits), record)
            }
            Handed::Busy { name, mode, busy_for } => {
                self.gate.import_busy(now, (&name, mode), busy_for)
            }
            Handed::Lease { grant, record, holder, client } => {
                let bytes = record.encode(holder, &client);
                let is_there = self.restore_lease(now, false, grant, &bytes);
                if is_there {
                    self.come_back(holder, grant);
                }
                is_there || self.gate.import_unknown(now, &record)
            }
        })
    }

    /// A lease that went from here has come back.
    fn come_back(&mut self, holder: [u8; 16], grant: GrantId) {
        if let Some(id) = self.sessions.named(holder) {
            self.know_moved(id, &[grant]);
        }
    }

    /// A lease went to another server: its holder is told until it says that it knows.
    pub(super) fn note_moved(&mut self, owner: SessionId, grant: GrantId) {
        if let Some(session) = self.sessions.get_mut(owner) {
            session.moved.push(grant);
            self.tell_moved(owner);
        }
    }

    /// Tells a client of its leases that went to other servers: or the answer to its beat would
    /// tell it that this one keeps them.
    pub(super) fn tell_moved(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        for some in session.moved.chunks(LOST_AT_ONCE) {
            self.outputs.push_back(Output::Moved { session: id, grants: some.to_vec() });
        }
    }

    /// The key that was waited for went to another server: the request is not on record any more,
    /// so that it can be asked again, here too.
    pub(super) fn send_elsewhere(&mut self, to: Asker<E>) {
        let problem = Problem::elsewhere();
        match to {
            Asker::Seed(to) => self.outputs.push_back(Output::Seed { to, answer: Err(problem) }),
            Asker::Client(session, request) => {
                self.sessions.change(session, |it| {
                    let asked = it.requests.remove(request);
                    it.waiting -= usize::from(asked.is_some_and(|asked| asked.is_waiting()));
                });
                let reply = Reply::Refuse(problem);
                self.outputs.push_back(Output::Reply { session, request, reply });
            }
        }
    }
}
