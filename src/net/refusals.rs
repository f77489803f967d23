//! Those whom a server turns away: what they hear, and what the log says of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;

use crate::engine::{ClientInfo, Code, Problem, Rate, Reply, SessionId};
use crate::error::Error;
use crate::net::journal::{LOG, LeftOut, Throttle};
use crate::net::service::Service;
use crate::net::sight::Reporter;
use crate::time::{Clock, Timestamp};

/// How many bounds are told apart; those beyond share what may be written.
const BOUNDS_MAX: usize = 32;

/// Whom a line is about, as far as is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Who<'a> {
    /// What it says of itself.
    pub(super) client: Option<&'a ClientInfo>,
    /// Where it speaks from.
    pub(super) address: Option<&'a str>,
}

impl Who<'_> {
    fn name(&self) -> Option<&str> {
        self.client.map(|client| &*client.name)
    }
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.unwrap_or("without an address");
        match self.client {
            Some(client) => write!(formatter, "{client}, {address}"),
            None => write!(formatter, "a client, {address}"),
        }
    }
}

/// The lines about refusals: of each kind a few a second are written, and the others counted.
pub(super) struct Refusals {
    lines: Rate,
    /// By the names of the bounds.
    bounds: BTreeMap<Box<str>, Throttle>,
    strangers: Throttle,
    /// Where those who watch hear of it.
    pub(super) reporter: Reporter,
}

impl Refusals {
    pub(super) fn new(now: Timestamp) -> Result<Self, Error> {
        let lines = Throttle::lines()?;
        let (bounds, strangers) = (BTreeMap::new(), Throttle::new(now, lines));
        Ok(Self { lines, bounds, strangers, reporter: Reporter::default() })
    }

    /// A bound has kept somebody from what it wanted.
    pub(super) fn bound_hit(&mut self, now: Timestamp, who: Who<'_>, problem: &Problem) {
        let named = bound_of(problem);
        let bound = if self.bounds.len() < BOUNDS_MAX { named } else { "others" };
        if !self.bounds.contains_key(bound) {
            self.bounds.insert(bound.into(), Throttle::new(now, self.lines));
        }
        let Some(left_out) = self.bounds.get_mut(bound).and_then(|lines| lines.pass(now)) else {
            return;
        };
        self.reporter.tell(now, "bound", || format!("refused to {who}: {problem}"));
        log::warn!(
            target: LOG, event = "bound_hit", bound = named, client = who.name(),
            address = who.address, left_out = left_out;
            "refused to {who}: {problem}{}", LeftOut(left_out)
        );
    }

    /// Somebody may not come in, or not do what it wanted: a wrong key, or a right that it lacks.
    pub(super) fn auth_refused(&mut self, now: Timestamp, who: Who<'_>, reason: &dyn fmt::Display) {
        if let Some(left_out) = self.strangers.pass(now) {
            let text = || format!("not allowed to {who}: {reason}");
            self.reporter.tell(now, "security", text);
            log::warn!(
                target: LOG, event = "auth_refused", client = who.name(), address = who.address,
                reason:% = reason, left_out = left_out;
                "not allowed to {who}: {reason}{}", LeftOut(left_out)
            );
        }
    }
}

/// The name of the bound that a problem tells of: its text has it as code.
fn bound_of(problem: &Problem) -> &str {
    problem.message.split('`').nth(1).unwrap_or("others")
}

impl Service {
    /// Tells a connection, and the log, that what was said on it cannot be taken.
    pub(super) fn refuse(&mut self, now: Timestamp, routing_id: &[u8], problem: &Problem) {
        self.complain(now, routing_id, problem);
        self.desk.problem(routing_id, problem);
    }

    /// Tells a client, and the log, that there is no room for it.
    pub(super) fn turn_away(
        &mut self,
        now: Timestamp,
        routing_id: &[u8],
        client: &ClientInfo,
        problem: &Problem,
    ) {
        let who = Who { client: Some(client), address: self.socket.peer_address() };
        self.journal.refusals.bound_hit(now, who, problem);
        self.desk.problem(routing_id, problem);
    }

    /// Tells the log of a client that a bound kept from what it asked for.
    pub(super) fn note_bound(&mut self, session: SessionId, reply: &Reply) {
        if let Reply::Refuse(problem) = reply
            && problem.code == Code::BoundExceeded
        {
            let (client, address) = (self.machine.client(session), self.desk.address_of(session));
            let now = self.clock.now();
            self.journal.refusals.bound_hit(now, Who { client, address }, problem);
        }
    }

    /// The same of one of the seed's clients, which are answered at once if it is with a problem.
    pub(super) fn note_seed_bound(&mut self, problem: &Problem) {
        if problem.code == Code::BoundExceeded {
            let who = Who { client: None, address: self.socket.peer_address() };
            self.journal.refusals.bound_hit(self.clock.now(), who, problem);
        }
    }

    pub(super) fn complain(
        &mut self,
        now: Timestamp,
        routing_id: &[u8],
        bad: &dyn std::fmt::Display,
    ) {
        self.control.counters.bad_messages.fetch_add(1, Ordering::Relaxed);
        let address = self.socket.peer_address();
        self.journal.bad_message(now, routing_id, address, bad);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Code;

    #[test]
    fn a_problem_names_its_bound() {
        let problem =
            |message: &str| Problem { code: Code::BoundExceeded, message: message.to_owned() };
        assert_eq!(
            bound_of(&problem("no room for another waiter (`waiters_max`): wait")),
            "waiters_max"
        );
        assert_eq!(bound_of(&problem("no room")), "others");
    }

    #[test]
    fn whoever_is_turned_away_is_told_apart_by_name_and_address() {
        let client = ClientInfo { name: "worker-3".into(), host: "db1".into(), pid: 7 };
        let who = Who { client: Some(&client), address: Some("10.0.0.7") };
        assert_eq!(who.to_string(), "\"worker-3\" (process 7 on db1), 10.0.0.7");
        assert_eq!(Who::default().to_string(), "a client, without an address");
    }

    #[test]
    fn a_flood_at_one_bound_does_not_hide_another() {
        let now = Timestamp::ZERO;
        let mut refusals = Refusals::new(now).unwrap();
        let problem = |bound: &str| Problem {
            code: Code::BoundExceeded,
            message: format!("full (`{bound}`)"),
        };
        for _ in 0..1000 {
            refusals.bound_hit(now, Who::default(), &problem("keys_max"));
        }
        for number in 0..100 {
            refusals.bound_hit(now, Who::default(), &problem(&format!("bound_{number}")));
        }
        assert_eq!(refusals.bounds.len(), BOUNDS_MAX + 1);
        let mut left_out = |bound: &str| refusals.bounds.get_mut(bound).unwrap().pass(now);
        assert_eq!((left_out("keys_max"), left_out("bound_0")), (None, Some(0)));
    }
}
