//! Servers that share the keys: each request goes to the home of its key, and leases follow theirs.
//!
//! Servers tell who is home of what. A request that has come to the wrong one was not done: it is
//! asked again under its number, at the home at once if that is news, and otherwise after a pause.
//! So however often homes change, one request is asked at most once a pause, and once for each map.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::asking::{LinkId, RequestId};
use crate::cluster::Partition;
use crate::config::{Place, Url};
use crate::conversation::question::Question;
use crate::conversation::{Conversation, Output, TELL_TIMEOUT, Talk};
use crate::engine::{Code, GrantId, Problem, Reply, Request};
use crate::time::Timestamp;
use crate::wire::homes::{HomeMap, HomeServer};
use crate::wire::request::encode_request;

/// How long a request waits that nobody could answer, until it is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// After so many beats without an answer another server is asked who is home.
const SILENT_BEATS: usize = 3;

/// How many links a client has at most.
const LINKS_MAX: usize = 64;

/// To how many others links are opened at once where no server answers that there is a link to.
const SOUGHT_MAX: usize = 3;

/// When more are opened, if none of those answers.
const SEEK_INTERVAL: Duration = Duration::from_secs(1);

/// What a client knows of servers that share the keys.
#[derive(Debug, Default)]
pub(super) struct Homes {
    /// Who is home of what, once a server has said so.
    pub(super) map: Option<HomeMap>,
    /// The links by the names of their servers, each with the URL that goes with the name.
    links: BTreeMap<Box<str>, (LinkId, Box<str>)>,
    /// The URL of each link, where it is known.
    urls: Vec<Box<str>>,
    /// How many links were there from the start.
    given: usize,
    /// What is asked again then.
    pub(super) retries: BTreeSet<(Timestamp, RequestId)>,
    /// The links of leases that have moved.
    moved: BTreeMap<GrantId, LinkId>,
    /// Before that no links are opened to seek others.
    seek_at: Timestamp,
}

impl Homes {
    pub(super) fn is_bound(&self, link: LinkId) -> bool {
        self.links.values().any(|(bound, _)| *bound == link)
    }

    /// The servers that there is no link to.
    fn strangers(&self) -> impl Iterator<Item = &HomeServer> {
        let all = self.map.iter().flat_map(|map| &map.servers);
        all.filter(|server| !self.links.contains_key(&server.name))
    }
}

impl Conversation {
    /// Says where the links lead, in their order.
    #[must_use]
    pub fn to(mut self, urls: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.homes.urls = urls.into_iter().map(|url| url.as_ref().into()).collect();
        self.homes.given = self.talks.len();
        self
    }

    /// Who is home of what, once a server has said so.
    #[must_use]
    pub const fn home_map(&self) -> Option<&HomeMap> {
        self.homes.map.as_ref()
    }

    /// The link where a lease is now.
    pub(super) fn place_of(&self, link: LinkId, grant: GrantId) -> LinkId {
        self.homes.moved.get(&grant).copied().unwrap_or(link)
    }

    /// A lease is not there any more.
    pub(super) fn forget_place(&mut self, grant: GrantId) {
        self.homes.moved.remove(&grant);
    }

    /// Whether servers share the keys, as far as is known.
    #[must_use]
    pub const fn knows_homes(&self) -> bool {
        self.homes.map.is_some()
    }

    /// When it has to be looked at again.
    pub(super) fn homes_due(&self) -> Option<Timestamp> {
        let seeks = self.is_cut_off() && self.homes.strangers().next().is_some();
        let retry = self.homes.retries.first().map(|(at, _)| *at);
        retry.into_iter().chain(seeks.then_some(self.homes.seek_at)).min()
    }

    /// Whether something is wanted of servers, and none answers that there is a link to.
    fn is_cut_off(&self) -> bool {
        let answers = |(place, talk): (usize, &Talk)| {
            talk.is_up && talk.beats.len() < SILENT_BEATS && !self.asking.is_silent(LinkId(place))
        };
        let holds = |talk: &Talk| !talk.leases.is_empty();
        self.homes.map.is_some()
            && !self.talks.iter().enumerate().any(answers)
            && (!self.questions.is_empty() || self.talks.iter().any(holds))
    }

    /// Opens links to others, if nobody answers.
    pub(super) fn seek_others(&mut self, now: Timestamp) {
        if now < self.homes.seek_at || !self.is_cut_off() {
            return;
        }
        self.homes.seek_at = now + SEEK_INTERVAL;
        let mut others: Vec<_> = self.homes.strangers().cloned().collect();
        // Not all clients of a server that is gone go to the same.
        let first = usize::from(self.session[0]) % others.len().max(1);
        others.rotate_left(first);
        for server in others.into_iter().take(SOUGHT_MAX) {
            self.link_to(&server);
        }
    }

    /// The link to ask for a request first, if one is known to be home of its key.
    pub(super) fn preferred(&mut self, partition: Option<Partition>) -> Option<LinkId> {
        let link = self.home_link(partition?)?;
        self.talks[link.0].is_up.then_some(link)
    }

    /// The link to the home of a partition.
    fn home_link(&mut self, partition: Partition) -> Option<LinkId> {
        let home = self.homes.map.as_ref()?.home_of(partition)?.clone();
        self.link_to(&home)
    }

    /// The link to a server. Opens one, if none that is there leads to it.
    pub(super) fn link_to(&mut self, home: &HomeServer) -> Option<LinkId> {
        if let Some((link, _)) = self.homes.links.get(&home.name) {
            return Some(*link);
        }
        let unknown = |link: &LinkId| {
            let talk = &self.talks[link.0];
            talk.is_up && talk.server.is_none() && !self.homes.is_bound(*link)
        };
        let same = self.homes.urls.iter().position(|url| *url == home.url).map(LinkId);
        let link = match same {
            Some(link) => link,
            // One of those that are about to say who they are may be it.
            None if (0..self.homes.given).map(LinkId).any(|link| unknown(&link)) => return None,
            None => self.open(&home.url)?,
        };
        self.homes.links.insert(home.name.clone(), (link, home.url.clone()));
        Some(link)
    }

    fn open(&mut self, url: &str) -> Option<LinkId> {
        let is_good = Url::parse(url).is_ok_and(|url| url.place() != Place::Inproc);
        if !is_good || self.talks.len() >= LINKS_MAX {
            return None;
        }
        let link = LinkId(self.talks.len());
        self.talks.push(Talk::default());
        self.asking.add_link();
        self.homes.urls.resize(link.0, "".into());
        self.homes.urls.push(url.into());
        self.outputs.push_back(Output::Open(link, url.into()));
        Some(link)
    }

    /// A server says who is home of what.
    pub(super) fn learn_homes(&mut self, now: Timestamp, link: LinkId, map: HomeMap) {
        if let Some(me) = map.me.and_then(|me| map.servers.get(me)) {
            let bound = self.homes.links.get(&me.name).map(|(bound, _)| *bound);
            if bound.is_none_or(|bound| bound == link || !self.talks[bound.0].is_up) {
                self.homes.links.insert(me.name.clone(), (link, me.url.clone()));
            }
        }
        if self.homes.map.as_ref().is_some_and(|known| map.epoch < known.epoch) {
            return;
        }
        self.homes.links.retain(|name, (_, url)| {
            map.servers.iter().any(|server| server.name == *name && server.url == *url)
        });
        if map.servers.len() > 1 {
            self.asking.expect_others();
        }
        self.homes.map = Some(map);
        for place in 0..self.homes.given {
            self.greet(now, LinkId(place));
        }
        self.follow_leases(now);
        self.follow_waits(now);
    }

    /// Has the server of a link say who it is, if nobody knows. Two links to one server would take
    /// the session from each other: so one that was given is left alone where others were opened.
    pub(super) fn greet(&mut self, now: Timestamp, link: LinkId) {
        if self.homes.map.is_none() || self.homes.is_bound(link) || !self.talks[link.0].is_up {
            return;
        }
        let opened = (self.homes.given..self.talks.len()).any(|place| self.talks[place].is_up);
        self.asking.rest(link, opened);
        if !opened {
            self.hello(now, link);
        }
    }

    /// A server is not home of a key, or cannot be sure of it: the request is asked again. False if
    /// it cannot be.
    pub(super) fn turn_away(
        &mut self,
        now: Timestamp,
        link: LinkId,
        id: RequestId,
        problem: &Problem,
    ) -> bool {
        let Some(question) = self.questions.get_mut(&id) else { return false };
        if self.homes.map.is_some()
            && let Some(parted) = question.parted.take()
        {
            self.end_answered(now, link, id);
            self.ask_next_part(now, id, *parted);
            return true;
        }
        let Some(partition) = question.partition else { return false };
        question.sent.retain(|sent| sent.to != link);
        let epoch = self.homes.map.as_ref().map(|map| map.epoch);
        let is_news = question.refused.as_ref().is_none_or(|(_, _, known)| *known != epoch);
        question.refused = Some((link, problem.clone(), epoch));
        self.end_wait(link, id);
        self.asking.turn_away(link, id);
        match self.preferred(Some(partition)) {
            Some(home) if home != link && is_news => self.asking.send_to(now, id, Some(home)),
            _ => drop(self.homes.retries.insert((now + PAUSE, id))),
        }
        true
    }

    /// Asks again what nobody could answer.
    pub(super) fn retry(&mut self, now: Timestamp) {
        while let Some((_, id)) = self.homes.retries.first().filter(|(at, _)| *at <= now).copied() {
            self.homes.retries.pop_first();
            let Some(question) = self.questions.get(&id) else { continue };
            if question.look.is_some() {
                self.look_again(now, id);
                continue;
            }
            let home = self.preferred(question.partition);
            self.asking.send_to(now, id, home);
        }
    }

    /// Leases went from a server to another one.
    pub(super) fn hear_moved(&mut self, now: Timestamp, link: LinkId, grants: &[GrantId]) {
        for grant in grants {
            if self.talks[link.0].leases.get(*grant).is_some() {
                self.follow(now, link, *grant);
            }
        }
        self.talks[link.0].know_moved(grants);
    }

    /// Has the leases of a link that is down held by whoever is their home now.
    pub(super) fn follow_all(&mut self, now: Timestamp, link: LinkId) {
        if self.homes.map.is_none() {
            return;
        }
        for (grant, _) in self.talks[link.0].leases.movable() {
            self.follow(now, link, grant);
        }
    }

    /// Has leases held by the homes of their keys, where those are not whom they were with.
    fn follow_leases(&mut self, now: Timestamp) {
        for place in 0..self.talks.len() {
            for (grant, partition) in self.talks[place].leases.movable() {
                let home = self.home_link(partition);
                if home.is_some_and(|home| home.0 != place) {
                    self.follow(now, LinkId(place), grant);
                }
            }
        }
    }

    /// Has what waits at a server that is not home of it any more wait at its home.
    fn follow_waits(&mut self, now: Timestamp) {
        let waiting = |(id, question): (&RequestId, &Question)| {
            Some((*id, question.queued_on?, question.partition?))
        };
        for (id, link, partition) in self.questions.iter().filter_map(waiting).collect::<Vec<_>>() {
            if let Some(home) = self.preferred(Some(partition)).filter(|home| *home != link) {
                self.end_wait(link, id);
                self.asking.send_to(now, id, Some(home));
            }
        }
    }

    /// A request waits at a server no more.
    fn end_wait(&mut self, link: LinkId, id: RequestId) {
        let Some(question) = self.questions.get_mut(&id) else { return };
        if question.queued_on == Some(link) {
            question.queued_on = None;
            let interval = question.beat_interval();
            self.talks[link.0].end_wait(interval);
        }
    }

    fn follow(&mut self, now: Timestamp, link: LinkId, grant: GrantId) {
        let talk = &mut self.talks[link.0];
        let Some(lease) = talk.leases.get(grant) else { return };
        if lease.partition.is_none() {
            return self.give_up_lease(link, grant);
        }
        talk.leases.unknow(grant, talk.heard_at);
        self.reclaim(now, link, grant);
    }

    /// The answer to the wish to hold on a lease that was with another server, or with an earlier
    /// run of the same one.
    pub(super) fn hear_reclaimed(
        &mut self,
        now: Timestamp,
        (from, link): (LinkId, LinkId),
        grant: GrantId,
        (sent_at, reply): (Timestamp, &Reply),
    ) {
        if from != link
            && *reply == Reply::Done
            && let Some(lease) = self.talks[from.0].leases.take(grant)
        {
            self.talks[from.0].schedule_beat();
            self.talks[link.0].leases.insert(now, grant, lease);
            self.homes.moved.insert(grant, link);
        }
        if !self.talks[link.0].reclaimed(now, grant, sent_at, reply) {
            self.give_up_lease(if *reply == Reply::Done { link } else { from }, grant);
        }
    }

    /// The partition of a lease that is about to be with another server than it was.
    pub(super) fn moves_to(&self, link: LinkId, grant: GrantId) -> Option<Partition> {
        let lease = self.talks.get(link.0)?.leases.get(grant)?;
        lease.partition.filter(|_| self.knows_homes() && !lease.is_known)
    }

    /// Gives a lease back wherever it is. Nobody waits for the answer.
    pub(super) fn release_at_home(&mut self, now: Timestamp, grant: GrantId, home: Partition) {
        let id = self.asking.next_number();
        let mut item = Vec::new();
        encode_request(&mut item, id, &Request::ReleaseIn { grant, partition: home });
        let (partition, deadline) = (Some(home), Some(now + TELL_TIMEOUT));
        let question =
            Question { partition, is_errand: true, deadline, ..Question::new(Some(item)) };
        let preferred = self.preferred(partition);
        self.asking.ask_first(now, preferred);
        self.begin(now, id, question);
    }

    /// The answer to a release that was owed: where the lease has moved meanwhile, it is given back
    /// there.
    pub(super) fn hear_released(
        &mut self,
        now: Timestamp,
        link: LinkId,
        id: RequestId,
        reply: &Reply,
    ) {
        let Some((_, grant, partition)) = self.talks[link.0].releases.answered(id) else { return };
        if let (Some(home), Reply::Refuse(Problem { code: Code::NotHome, .. })) = (partition, reply)
        {
            self.release_at_home(now, grant, home);
        }
    }

    /// Asks another server who is home of what a silent one was home of.
    pub(super) fn ask_around(&mut self, now: Timestamp, link: LinkId) {
        let talk = &self.talks[link.0];
        let is_silent = talk.beats.len() >= SILENT_BEATS && talk.interval().is_some();
        if self.homes.map.is_none() || !is_silent {
            return;
        }
        let is_other = |place: &usize| *place != link.0 && self.talks[*place].is_up;
        let start = usize::try_from(self.last_beat).unwrap_or(0);
        let count = self.talks.len();
        let other = (0..count).map(|place| (place + start) % count).find(is_other);
        if let Some(other) = other.map(LinkId).filter(|it| self.homes.is_bound(*it)) {
            self.hello(now, other);
            self.say_beat(now, other);
        }
    }
}

/// The partition of the keys of a request: that of the first, which has the home of all of them.
pub(super) fn partition_of(request: &Request<'_>) -> Option<Partition> {
    request.keys().first().copied().map(Partition::of)
}

/// The partition of a lease, if all its keys are of one: otherwise it cannot move.
pub(super) fn whole_partition_of(request: &Request<'_>) -> Option<Partition> {
    let mut all = request.keys().into_iter().map(Partition::of);
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}
