//! Whether this server is the one to answer a request, where several share the keys.

use std::time::Duration;

use crate::cluster::{Partition, Standing};
use crate::engine::{Code, GrantId, Hold, Key, Problem, Reply, Request, RequestId, SessionId};
use crate::net::service::Service;
use crate::time::Timestamp;

impl Service {
    /// Whether a request is to be answered here and now. If not, its client is told who is home of
    /// what, and that it was not done.
    pub(super) fn is_home(
        &mut self,
        now: Timestamp,
        (session, id): (SessionId, RequestId),
        request: &Request<'_>,
    ) -> bool {
        if self.homes.is_none() {
            return true;
        }
        let judged = match request {
            Request::Release { grant } if self.machine.has_moved(session, *grant) => {
                let message = "the lease went to another server: release it there";
                Some(Reply::Refuse(not_home(message.to_owned())))
            }
            Request::ReleaseIn { grant, partition } => {
                self.judge_release(now, session, *grant, *partition)
            }
            request => self.judge_home(now, request).err().map(Reply::Refuse),
        };
        let Some(reply) = judged else { return true };
        if let Reply::Refuse(Problem { code: Code::NotHome, .. }) = &reply {
            self.point_home(session);
        }
        self.desk.reply(session, id, &reply);
        false
    }

    /// A request of this client was not done here: it is told who is home of what.
    pub(super) fn point_home(&mut self, session: SessionId) {
        if let Some(homes) = &mut self.homes {
            homes.counts.not_home += 1;
        }
        self.tell_homes(session);
    }

    /// What is to be said at once to who gives a lease back, unless that is to be done here. Only
    /// the home of its partition knows for sure that there is none.
    fn judge_release(
        &self,
        now: Timestamp,
        session: SessionId,
        grant: GrantId,
        partition: Partition,
    ) -> Option<Reply> {
        match self.homes.as_ref()?.standing(now, partition) {
            _ if self.machine.holds(session, grant) => None,
            Standing::Granting(_) => None,
            // The home that granted it has died, and nobody will hold it here: it is given back.
            Standing::Reclaiming(..) => Some(Reply::Done),
            Standing::Suspended | Standing::Elsewhere => {
                let message = "the lease is with another server: ask there";
                Some(Reply::Refuse(not_home(message.to_owned())))
            }
        }
    }

    /// Tells a client who is home of what, unless it knows.
    pub(super) fn tell_homes(&mut self, session: SessionId) {
        if let Some(homes) = &self.homes {
            self.desk.homes(session, homes.map_number, &homes.map);
        }
    }

    /// Whether beats may be answered: they tell holders that they hold on.
    pub(super) fn is_alive(&self, now: Timestamp) -> bool {
        let until = |homes: &crate::net::homes::Homes| homes.membership.home().alive_until();
        self.homes.as_ref().is_none_or(|homes| now < until(homes))
    }

    /// Whether the seed's requests are answered here.
    pub(super) fn is_home_of_seed(&self, now: Timestamp) -> bool {
        let Some(homes) = &self.homes else { return true };
        let standing = homes.standing(now, Partition::of(Key::DEFAULT));
        matches!(standing, Standing::Granting(_) | Standing::Reclaiming(..))
    }

    fn judge_home(&mut self, now: Timestamp, request: &Request<'_>) -> Result<(), Problem> {
        let Some(homes) = &mut self.homes else { return Ok(()) };
        let keys = request.keys();
        let Some(key) = keys.first() else { return Ok(()) };
        let partition = Partition::of(*key);
        if keys.iter().any(|other| Partition::of(*other) != partition) {
            return Err(not_home(parted(&keys)));
        }
        let name = key.as_str();
        match homes.standing(now, partition) {
            Standing::Granting(_) | Standing::Reclaiming(..) => {}
            Standing::Suspended => {
                let why = "this server cannot be sure to be its home for the moment";
                return Err(not_home(format!("key {name:?} has to wait: {why}: ask again")));
            }
            Standing::Elsewhere => {
                let home = homes.map.home_of(partition).map(|server| &*server.url);
                return Err(not_home(match home {
                    Some(url) => format!("key {name:?} is decided for by {url}: ask there"),
                    None => format!("key {name:?} has no server at present: ask again"),
                }));
            }
        }
        if length_of(request).is_none_or(|length| homes.covers(partition, length)) {
            return Ok(());
        }
        let why = "the others are told first how long leases of it are";
        Err(not_home(format!("key {name:?} has to wait: {why}: ask again")))
    }
}

/// How long a holder may believe to have what is asked for without hearing anything.
fn length_of(request: &Request<'_>) -> Option<Duration> {
    match request {
        Request::Acquire { hold: Hold::Lease(term), .. } => Some(term.unrenewed()),
        Request::Lock { wanted, .. } => Some(wanted.term.unrenewed()),
        _ => None,
    }
}

fn not_home(message: String) -> Problem {
    Problem { code: Code::NotHome, message }
}

/// One partition of the keys may go while another one stays: they are taken one after the other.
fn parted(keys: &[Key<'_>]) -> String {
    let quoted: Vec<_> = keys.iter().map(|key| format!("{:?}", key.as_str())).collect();
    format!("the keys {} are of several partitions: ask for those of each", quoted.join(", "))
}
