//! Blocks: permits that a client spends by itself, never over the limit.
//!
//! What is lent is counted as used before the answer leaves, for as long as the borrower may
//! spend it. An answer that is lost, or a borrower that dies, only loses permits.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::{Gate, Said, Whose};
use crate::engine::grant::{Charge, Charges, Grant, GrantKind, Lent, Taken};
use crate::engine::key::Key;
use crate::engine::limit::Claim;
use crate::engine::measure::Ending;
use crate::engine::request::{Block, Code, Cost, Decision, GrantId, Problem, Reply};
use crate::engine::session::SessionId;
use crate::engine::table::KeyId;
use crate::engine::waiters::Parts;
use crate::time::Timestamp;

/// How long a block can still be given back when it is void.
const RETURN_TIME: Duration = Duration::from_millis(10);

type Claims = SmallVec<[Claim; 1]>;

impl<A> Gate<A> {
    /// Lends up to `wanted` permits, but no more than a fair share of what is left.
    pub(super) fn lend(
        &mut self,
        now: Timestamp,
        owner: Option<SessionId>,
        key: Key<'_>,
        wanted: Cost,
    ) -> Result<Reply, Problem> {
        let id = self.find_or_add(now, key, &[])?;
        let one = Parts::from_elem((id, 1), 1);
        self.check(&one, false)?;
        let owner = owner.ok_or_else(|| Self::not_held("a block needs a session"))?;
        self.room_for_grant(owner)?;
        let verdict = self.verdict(now, &one, Whose::Newcomer);
        let lent = if verdict.at <= now { self.claim(now, id, wanted.permits()) } else { None };
        let Some((claims, permits, valid_for)) = lent else {
            let decision = self.refusal(now, &one, &verdict);
            self.count_refused(now, id, Ending::Refused);
            let none = Block { permits: 0, valid_for: Duration::ZERO, grant: None, decision };
            return Ok(Reply::Block(none));
        };
        let version = self.table.get(id).map_or(0, |state| state.version);
        // The claims say what it takes to take it back.
        let charge = Charge { key: id, version, cost: permits, marks: SmallVec::new() };
        // A borrower gives back what is void at the end: its message may take its time.
        let ends_at = now + valid_for + valid_for / 10 + RETURN_TIME;
        let kind = GrantKind::Block(Box::new(Lent { claims, permits, ends_at }));
        let taken = Taken::new(Charges::from_elem(charge, 1));
        let grant = self.number_next();
        self.hold(now, grant, Grant { owner, taken, kind });
        self.count_lent(now, id, permits);
        let state = self.state_of(now, &one, 0);
        let decision = Decision { allowed: true, retry_after: Some(Duration::ZERO), ..state };
        Ok(Reply::Block(Block { permits, valid_for, grant: Some(grant), decision }))
    }

    /// Claims permits of every limit of the key: as many as the tightest gives, for as long as the
    /// shortest allows.
    fn claim(
        &mut self,
        now: Timestamp,
        key: KeyId,
        wanted: u64,
    ) -> Option<(Claims, u64, Duration)> {
        let remaining = self.state_of(now, &Parts::from_elem((key, 1), 1), 0).remaining;
        let wanted = wanted.min(self.lendable(self.table.get(key)?));
        let state = self.table.get_mut(key)?;
        let sharers = state.rest.as_ref().map_or(0, |rest| rest.blocks) + 1;
        let mut permits = wanted.min(remaining.div_ceil(sharers.max(2))).max(1);
        let mut valid_for = Duration::MAX;
        let mut claims = Claims::new();
        for (meter, limit) in state.meters.iter_mut().zip(state.limits.iter()) {
            let claim = meter.claim(now, &limit.kind, permits)?;
            valid_for = valid_for.min(claim.valid_for);
            if !limit.shadow {
                permits = permits.min(claim.permits);
            }
            claims.push(claim);
        }
        for (place, claim) in claims.iter_mut().enumerate() {
            let kind = &state.limits.at(place).kind;
            if claim.permits > permits {
                state.meters[place].give_back(now, kind, claim, claim.permits - permits);
                claim.permits = permits;
            } else if claim.permits < permits {
                let (key, limit) = (state.name.clone(), Arc::clone(state.limits.text(place)));
                self.said.push_back(Said::WouldRefuse { key, limit });
            }
        }
        self.took(now, key, permits);
        (permits > 0).then_some((claims, permits, valid_for))
    }

    /// Takes back what will not be spent of a block.
    pub(super) fn give_back(
        &mut self,
        now: Timestamp,
        owner: Option<SessionId>,
        id: GrantId,
        unused: u64,
    ) -> Result<Reply, Problem> {
        let block = |grant: &Grant| matches!(grant.kind, GrantKind::Block(_));
        let none = || Self::not_held("there is no such block of this client");
        let lent = self.owned(owner, id, block).ok_or_else(none)?.taken.parts()[0].1;
        if unused > lent {
            let message = format!("unused must be at most the block's {lent}, not {unused}");
            return Err(Problem { code: Code::Config, message });
        }
        if let Some(Grant { taken, kind: GrantKind::Block(lent), .. }) = self.drop_grant(now, id) {
            self.return_permits(now, &taken.into_charges(), &lent.claims, unused);
        }
        Ok(Reply::Done)
    }

    /// Permits of a block can be granted to others.
    pub(super) fn return_permits(
        &mut self,
        now: Timestamp,
        charges: &Charges,
        claims: &Claims,
        unused: u64,
    ) {
        let Some(charge) = charges.first() else { return };
        let state = self.table.get_mut(charge.key);
        let Some(state) = state.filter(|state| state.version == charge.version) else { return };
        let meters = state.meters.iter_mut().zip(state.limits.iter());
        for ((meter, limit), claim) in meters.zip(claims) {
            meter.give_back(now, &limit.kind, claim, unused.min(claim.permits));
        }
        self.record_return(now, charge.key, unused);
        self.serve(now, charge.key);
    }
}
