//! Being a member, and staying alive: rules R1 and R2.

use crate::cluster::home::{Home, Lane, Membership, Message, Output, Problem, Purpose, Settings};
use crate::cluster::record::{ServerName, ServerRecord, Written, server_key};
use crate::registry::{Change, Guard, Outcome, Revision, Transaction};
use crate::time::Timestamp;

impl Home {
    /// Registers, beats or leaves, whichever is due.
    pub(super) fn advance_beat(&mut self, now: Timestamp) {
        if !self.beat.is_free(self.looked) || !self.has_looked {
            return;
        }
        match self.membership {
            Some(_) if self.has_handed_all() => self.quit(now),
            Some(membership) if self.beat.due_at <= now => self.send_beat(now, membership),
            Some(_) => self.unseat_rival(now),
            None if self.leaving.is_some() => {
                self.has_ended = true;
                self.outputs.push_back(Output::Left);
            }
            None => self.join(now),
        }
    }

    fn join(&mut self, now: Timestamp) {
        if self.state.cluster.is_none() {
            return;
        }
        if self.rivals().next().is_none() {
            let key = server_key(&self.settings.name);
            let guards = vec![Guard::Modified(key.clone(), Revision::NONE)];
            let changes = vec![Change::Put(key, self.record().encode())];
            let transaction = Transaction { guards, changes };
            return self.send(now, Purpose::Register, Message::Transact(transaction));
        }
        // An earlier run of this server, unless it is alive and means to stay.
        let stays = |(name, entry): &(&ServerName, &Written<ServerRecord>)| {
            self.is_alive(now, name) && !entry.record.is_leaving
        };
        let taken = self.rivals().find(stays).map(|it| self.taken(it));
        match taken {
            Some(problem) => self.fail(problem),
            None => self.unseat_rival(now),
        }
    }

    /// Deletes the entry that an earlier run of this server has left.
    fn unseat_rival(&mut self, now: Timestamp) {
        let is_gone = |(name, _): &(&ServerName, _)| {
            self.membership.is_none_or(|_| **name != self.settings.name) && self.is_stale(now, name)
        };
        let Some((name, entry)) = self.rivals().find(is_gone) else { return };
        let key = server_key(name);
        let message = end_of(Guard::Modified(key.clone(), entry.modified), key);
        self.send(now, Purpose::Unseat, message);
    }

    /// The entries that have our name, or the URL at which we serve.
    fn rivals(&self) -> impl Iterator<Item = (&ServerName, &Written<ServerRecord>)> {
        let Settings { name, url, .. } = &self.settings;
        let servers = self.state.servers.iter();
        servers.filter(move |(other, entry)| *other == name || entry.record.url == *url)
    }

    /// Whether a server was seen to beat of late. Its last beat may come after its end.
    fn is_alive(&self, now: Timestamp, name: &ServerName) -> bool {
        self.seen.get(name).is_some_and(|seen| seen.changes > 1) && !self.is_stale(now, name)
    }

    fn taken(&self, (name, entry): (&ServerName, &Written<ServerRecord>)) -> Problem {
        let is_name = *name == self.settings.name;
        let (name, url) = (name.clone(), entry.record.url.clone());
        if is_name { Problem::NameTaken { name, url } } else { Problem::UrlTaken { name, url } }
    }

    /// Gives way to another server that serves at our URL and was there before us: both registered
    /// at about the same time. Whether there is one.
    pub(super) fn yield_to_elder(&mut self, now: Timestamp) -> bool {
        let Some(Membership { incarnation, .. }) = self.membership else { return false };
        let is_elder = |(name, entry): &(&ServerName, &Written<ServerRecord>)| {
            entry.created < incarnation && self.is_alive(now, name)
        };
        let elder = self.rivals().find(is_elder).map(|it| self.taken(it));
        let Some(problem) = elder else { return false };
        let key = server_key(&self.settings.name);
        let message = end_of(Guard::Created(key.clone(), incarnation), key);
        self.send(now, Purpose::Unseat, message);
        self.fail(problem);
        true
    }

    fn send_beat(&mut self, now: Timestamp, membership: Membership) {
        let Membership { incarnation, last } = membership;
        let key = server_key(&self.settings.name);
        let guards = vec![Guard::Modified(key.clone(), last)];
        let changes = vec![Change::Put(key, self.record().encode())];
        let is_leaving = self.leaving.is_some();
        self.beat.due_at = now + self.times.beat;
        let message = Message::Transact(Transaction { guards, changes });
        self.send(now, Purpose::Beat { incarnation, is_leaving }, message);
    }

    /// Has its entry end. Others may take all that it is home of from that instant on, without a
    /// wait: so it is home of nothing before, whatever it learns meanwhile.
    fn quit(&mut self, now: Timestamp) {
        let Some(membership) = self.membership else { return };
        self.quitting = Some(membership.last);
        let key = server_key(&self.settings.name);
        let message = end_of(Guard::Modified(key.clone(), membership.last), key);
        self.send(now, Purpose::Quit, message);
    }

    fn record(&self) -> ServerRecord {
        ServerRecord {
            run: self.settings.run,
            is_leaving: self.leaving.is_some(),
            version: self.settings.version.clone(),
            url: self.settings.url.clone(),
        }
    }

    /// A transaction ended, or nobody knows how.
    pub(super) fn hear_outcome(
        &mut self,
        now: Timestamp,
        purpose: &Purpose,
        sent: Timestamp,
        outcome: &Outcome,
    ) {
        let Outcome::Done(revision) = *outcome else {
            return self.look_first(now, purpose.lane());
        };
        self.newest = self.newest.max(revision);
        match purpose {
            Purpose::Beat { incarnation, is_leaving } => {
                self.hear_beat(now, *incarnation, *is_leaving, sent, revision);
            }
            Purpose::Register => {
                // What came with a look meanwhile is as new.
                if self.membership.is_none() && self.state_at < revision {
                    self.state_at = revision;
                    self.begin(now, revision, revision);
                }
                self.extend(revision, revision, sent);
            }
            Purpose::Quit => self.drop_all(),
            Purpose::Tidy => self.read_holds.clear(),
            // What it has changed, a look from then on shows, and whose it is now.
            Purpose::Unseat
            | Purpose::Found
            | Purpose::TakeOver { .. }
            | Purpose::HandOver { .. }
            | Purpose::Cover => {
                self.state_at = self.state_at.max(revision);
                self.look_first(now, purpose.lane());
            }
            Purpose::Look { .. } | Purpose::ReadHolds => {}
        }
    }

    fn hear_beat(
        &mut self,
        now: Timestamp,
        incarnation: Revision,
        is_leaving: bool,
        sent: Timestamp,
        revision: Revision,
    ) {
        self.extend(incarnation, revision, sent);
        if is_leaving && let Some(leaving) = &mut self.leaving {
            leaving.told_at.get_or_insert(now);
        }
    }

    /// The entry of this incarnation was written by this revision: it lives on from when that was
    /// sent, not from the answer.
    fn extend(&mut self, incarnation: Revision, revision: Revision, sent: Timestamp) {
        if let Some(membership) = &mut self.membership
            && membership.incarnation == incarnation
        {
            membership.last = membership.last.max(revision);
            self.until = self.until.max(sent + self.times.alive);
            self.see_last();
        }
    }

    /// A beat that is later than the one after which the entry was to end shows that it has not
    /// ended; what was asked for then is refused from now on.
    pub(super) fn see_last(&mut self) {
        let last = self.membership.map(|membership| membership.last);
        self.quitting = self.quitting.filter(|quit_after| last <= Some(*quit_after));
    }

    /// This server is a member from now on. It has nothing yet.
    pub(super) fn begin(&mut self, now: Timestamp, incarnation: Revision, last: Revision) {
        self.membership = Some(Membership { incarnation, last });
        self.until = Timestamp::ZERO;
        self.beat.due_at = now;
        self.look_first(now, Lane::Look);
    }
}

/// Deletes an entry that is as the guard says.
fn end_of(guard: Guard, key: String) -> Message {
    Message::Transact(Transaction { guards: vec![guard], changes: vec![Change::Delete(key)] })
}
