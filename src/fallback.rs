//! What a client answers by itself when no server does.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{
    Bounds, ClientInfo, Decision, Hold, Input, Limits, Machine, Output, Reply, Request, RequestId,
    Rules, SessionId, Wait,
};
use crate::time::Timestamp;

/// How many keys are counted by themselves at most.
const KEYS_MAX: usize = 100_000;

/// What to do when no server answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Tell the caller.
    #[default]
    Raise,
    /// Allow everything.
    Open,
    /// Refuse everything.
    Closed,
    /// Allow each key its share, counted here.
    Share(Arc<Limits>),
}

impl Policy {
    /// The name of the policy, as callers know it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Raise => "raise",
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Share(_) => "share",
        }
    }
}

/// Counts the shares of a client for as long as it has no server.
#[derive(Debug, Default)]
pub struct Fallback {
    share: Option<Share>,
}

#[derive(Debug)]
struct Share {
    limits: Arc<Limits>,
    machine: Machine<()>,
    session: SessionId,
    last: RequestId,
}

impl Fallback {
    /// The answer to a request that no server answers.
    pub fn decide(&mut self, now: Timestamp, request: &Request<'_>, policy: &Policy) -> Decision {
        if let Policy::Share(limits) = policy
            && let Some(decision) = self.count(now, request, limits)
        {
            return decision;
        }
        let allowed = matches!(policy, Policy::Open);
        Decision {
            allowed,
            remaining: 0,
            retry_after: allowed.then_some(Duration::ZERO),
            reset_after: Duration::ZERO,
            limit: Arc::from(""),
            key: 0,
            grant: None,
        }
    }

    /// The answer of the share; none if it has none for such a request.
    fn count(
        &mut self,
        now: Timestamp,
        request: &Request<'_>,
        limits: &Arc<Limits>,
    ) -> Option<Decision> {
        if self.share.as_ref().is_none_or(|share| share.limits != *limits) {
            self.share = Share::new(now, limits);
        }
        let share = self.share.as_mut()?;
        let Request::Acquire { demand, .. } = request else { return None };
        // Nobody is there to wait with, or to give anything back to.
        let (demand, wait, hold) = (demand.clone(), Wait::No, Hold::Spend);
        let request = Request::Acquire { demand, wait, hold };
        share.last = RequestId(share.last.0 + 1);
        share.machine.handle(now, Input::Beat(share.session, share.last, &[]));
        share.machine.handle(now, Input::Ask(share.session, share.last, &request));
        let mut decided = None;
        while let Some(output) = share.machine.poll_output() {
            if let Output::Reply { reply: Reply::Decision(decision), .. } = output {
                decided = Some(Decision { grant: None, ..decision });
            }
        }
        decided
    }
}

impl Share {
    fn new(now: Timestamp, limits: &Arc<Limits>) -> Option<Self> {
        let rules = Rules::new([], Some((**limits).clone())).ok()?;
        let bounds = Bounds { keys_max: KEYS_MAX, ..Bounds::default() };
        let mut machine = Machine::new(now, rules, Duration::ZERO, bounds);
        let (session, _) = machine.greet(now, [0; 16], ClientInfo::default()).ok()?;
        Some(Self { limits: Arc::clone(limits), machine, session, last: RequestId(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Cost, Demand, Key};

    fn allowed(fallback: &mut Fallback, policy: &Policy, key: &str, millis: u64) -> bool {
        let demand = Demand::one(Key::parse(key).unwrap(), Cost::ONE);
        let request = Request::Acquire { demand, wait: Wait::No, hold: Hold::Spend };
        let now = Timestamp::ZERO + Duration::from_millis(millis);
        fallback.decide(now, &request, policy).allowed
    }

    #[test]
    fn each_key_has_its_share() {
        let share = Policy::Share(Arc::new(Limits::parse(&["2/s"]).unwrap()));
        let mut fallback = Fallback::default();
        for (key, millis, expected) in
            [("a", 1, true), ("a", 2, true), ("a", 3, false), ("b", 4, true), ("a", 1002, true)]
        {
            assert_eq!(allowed(&mut fallback, &share, key, millis), expected, "{key} {millis}");
        }
    }

    #[test]
    fn open_allows_and_closed_refuses() {
        let mut fallback = Fallback::default();
        assert!(allowed(&mut fallback, &Policy::Open, "a", 0));
        assert!(!allowed(&mut fallback, &Policy::Closed, "a", 0));
    }
}
