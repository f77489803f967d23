//! Releases that servers have not confirmed: they are owed, and said again on each connection.
//!
//! A lease that its holder has given back must not be kept by the beats for others: so a release is
//! never given up for having taken long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::asking::{LinkId, RequestId};
use crate::cluster::Partition;
use crate::conversation::Conversation;
use crate::conversation::question::Question;
use crate::engine::{GrantId, Request};
use crate::time::Timestamp;
use crate::wire::request::encode_request;

/// How many are owed at most: as many leases as a server has, unless it is told otherwise. Only one
/// that grants and never answers a release has us owe more.
const OWED_MAX: usize = 1_000_000;

/// For how many times its `ttl` the release of a lease is owed while the link is down. Nothing is
/// said then that keeps the lease; what was said before and comes late keeps it once more.
const OWED_FOR: u32 = 3;

/// A lease that was given back: its `ttl`, its number, and the partition of its keys, if it can
/// move.
pub(super) type Owed = (Duration, GrantId, Option<Partition>);

/// What one server is to hear.
#[derive(Debug, Default)]
pub(super) struct Releases {
    /// Not said on the present connection.
    unsaid: BTreeSet<Owed>,
    /// Said on the present connection, by the number of the request.
    said: BTreeMap<RequestId, Owed>,
}

impl Releases {
    /// A lease was given back. If that was said on the present connection already, under which
    /// number.
    pub(super) fn owe(&mut self, owed: Owed, said_as: Option<RequestId>) {
        if self.unsaid.len() + self.said.len() == OWED_MAX && self.said.pop_first().is_none() {
            self.unsaid.pop_first();
        }
        match said_as {
            Some(id) => drop(self.said.insert(id, owed)),
            None => drop(self.unsaid.insert(owed)),
        }
    }

    /// The first that was not said.
    pub(super) fn pop(&mut self) -> Option<Owed> {
        self.unsaid.pop_first()
    }

    /// The server has answered: what was owed.
    pub(super) fn answered(&mut self, id: RequestId) -> Option<Owed> {
        self.said.remove(&id)
    }

    /// Whatever was said on a connection may be lost with it.
    pub(super) fn disconnect(&mut self) {
        self.unsaid.extend(std::mem::take(&mut self.said).into_values());
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unsaid.is_empty() && self.said.is_empty()
    }

    /// When the first of them is over by itself, if the link is down since then.
    pub(super) fn over_at(&self, down_since: Timestamp) -> Option<Timestamp> {
        self.unsaid.first().map(|(ttl, ..)| down_since + *ttl * OWED_FOR)
    }
}

impl Conversation {
    /// Gives a lease back, and has its server hear of it sooner or later: nobody waits for that.
    pub fn release(&mut self, now: Timestamp, link: LinkId, grant: GrantId) {
        if self.give_back_parts(now, grant) {
            return;
        }
        let link = self.place_of(link, grant);
        let moves_to = self.moves_to(link, grant);
        let Some(owed) = self.stop_holding(link, grant) else { return };
        match moves_to {
            Some(partition) => self.release_at_home(now, grant, partition),
            None => self.talks[link.0].releases.owe(owed, None),
        }
        self.perform(now);
    }

    /// What a request gives back, and the only link that it may be asked.
    pub(super) fn begin_release(
        &mut self,
        request: Option<&Request<'_>>,
        only: Option<LinkId>,
    ) -> (Option<(LinkId, Owed)>, Option<LinkId>) {
        let (Some(Request::Release { grant }), Some(link)) = (request, only) else {
            return (None, only);
        };
        let moves = self.moves_to(link, *grant).is_some();
        let releases = self.stop_holding(link, *grant).map(|owed| (link, owed));
        (releases, only.filter(|_| !moves))
    }

    /// A lease is held no more, whatever its server says of it. What is owed to that one, unless
    /// the lease was over before.
    pub(super) fn stop_holding(&mut self, link: LinkId, grant: GrantId) -> Option<Owed> {
        let lease = self.talks.get(link.0)?.leases.get(grant)?;
        let owed = (lease.term.ttl, grant, lease.partition);
        if !lease.is_known {
            // Said again behind the release, it would take the lease anew.
            let mut all = self.questions.iter();
            let reclaim = all.find(|(_, question)| question.reclaims == Some((link, grant)));
            if let Some(id) = reclaim.map(|(id, _)| *id) {
                self.end(id, None);
                self.asking.forget(id);
            }
        }
        self.drop_lease(link, grant);
        Some(owed)
    }

    /// A lease is given back, or was lost: nothing keeps it any more.
    pub(super) fn drop_lease(&mut self, link: LinkId, grant: GrantId) {
        self.forget_place(grant);
        if let Some(talk) = self.talks.get_mut(link.0) {
            talk.leases.remove(grant);
            if self.available {
                talk.schedule_beat();
            }
        }
    }

    /// Nobody waits any more for the answer to a release: it is owed.
    pub(super) fn owe_unanswered(&mut self, id: RequestId, question: &Question) -> bool {
        let Some((link, owed)) = question.releases else { return false };
        let talk = &mut self.talks[link.0];
        let is_said = talk.is_up && question.is_sent_on(link, talk.connection);
        talk.releases.owe(owed, is_said.then_some(id));
        true
    }

    /// Says hello if it was not said on this connection, and what is owed since an earlier one.
    pub(super) fn hello(&mut self, now: Timestamp, link: LinkId) {
        if !self.talks[link.0].hello_said {
            self.talks[link.0].hello(self.session, &self.me);
            self.say_releases(now, link);
        }
    }

    /// How a lease is given back: where servers share the keys, by its partition.
    pub(super) fn release_of(&self, (_, grant, partition): &Owed) -> Request<'static> {
        match partition.filter(|_| self.knows_homes()) {
            Some(partition) => Request::ReleaseIn { grant: *grant, partition },
            None => Request::Release { grant: *grant },
        }
    }

    /// Says what is owed, if the link is up.
    pub(super) fn say_releases(&mut self, now: Timestamp, link: LinkId) {
        while self.talks[link.0].is_up
            && let Some(owed) = self.talks[link.0].releases.pop()
        {
            let id = self.asking.take_number();
            let release = self.release_of(&owed);
            let talk = &mut self.talks[link.0];
            talk.hello(self.session, &self.me);
            talk.write(|body| encode_request(body, id, &release));
            talk.releases.owe(owed, Some(id));
            if talk.count_requests(1) {
                self.say_beat(now, link);
            }
            self.flush_full(link);
        }
    }
}
