//! One run of a server after another: what a machine takes up, and what it leaves.

use std::collections::BTreeMap;

use crate::engine::event::Output;
use crate::engine::gate::{Restored, Said, Unfit};
use crate::engine::lease_record::LeaseRecord;
use crate::engine::machine::Machine;
use crate::engine::request::{GrantId, Reply, RequestId};
use crate::engine::session::SessionId;
use crate::time::Timestamp;

impl<E> Machine<E> {
    /// From now on what is used outlives the machine: each time that more is used of a limit than
    /// was recorded, [`Output::Record`] says what to write down and [`Output::Await`] that answers
    /// wait for it. That holds for limits of five seconds and more.
    ///
    /// A record says more than is used, by a 16th of the limit, so most grants need none.
    ///
    /// The last number that a grant may have before [`Output::Numbers`] says another one: it has to
    /// be written down before anything is asked for.
    pub fn make_durable(&mut self) -> GrantId {
        self.gate.make_durable()
    }

    /// Takes up a record of an earlier run, before anything is asked for. Its instants are of the
    /// clock of `now` if that is the `same_clock`; otherwise all that was left to wait when it was
    /// written is left now. Drain the outputs after it.
    ///
    /// # Errors
    ///
    /// [`Unfit`] if this is no record, or of one key too many.
    pub fn restore(
        &mut self,
        now: Timestamp,
        same_clock: bool,
        key: &str,
        record: &[u8],
    ) -> Result<Restored, Unfit> {
        let restored = self.gate.restore(now, same_clock, key, record);
        self.pass_on();
        restored
    }

    /// Records exactly what is used, so that a later run goes on from there: of some keys, from
    /// place 0 `on`. Where to go on after the outputs are drained; `None` at the end.
    pub fn settle(&mut self, now: Timestamp, on: usize) -> Option<usize> {
        let next = self.gate.settle(now, on);
        self.pass_on();
        next
    }

    /// From now on grants have numbers above `last`: where the runs of a server start far apart,
    /// what an earlier run granted is not taken for what this one has.
    pub fn number_grants_above(&mut self, last: GrantId) {
        self.gate.grants.number_above(last);
    }

    /// Takes up a lease that an earlier run has written down, before anything is asked for. It ends
    /// as if its holder were heard now for the last time, unless that one reclaims it, or asks
    /// again what was answered with it. Drain the outputs after it. Whether it is one.
    pub fn restore_lease(
        &mut self,
        now: Timestamp,
        same_clock: bool,
        grant: GrantId,
        record: &[u8],
    ) -> bool {
        let Some((record, name, client)) = LeaseRecord::decode(record) else { return false };
        let Ok((owner, _)) = self.greet(now, name, client) else { return false };
        let restored = self.gate.restore_lease(now, same_clock, (grant, owner), &record);
        self.pass_on();
        if let (Some(decision), Some(request)) = (&restored, record.request) {
            let reply = Reply::Decision(decision.clone());
            self.sessions.restore_answer(owner, request, reply);
        }
        restored.is_some()
    }

    /// From now on holders may reclaim, for a while, the locks that an earlier run has granted. If
    /// not `all_is_known` that it had granted, no lock is granted to anybody else meanwhile.
    pub fn begin_locks(&mut self, now: Timestamp, all_is_known: bool) {
        self.gate.begin_locks(now, all_is_known);
    }

    /// Writes down all leases of locks, so that a run that follows at once grants them to nobody
    /// else. Nothing may be asked for after that. Whether that run knows then all that is granted:
    /// it does not if this one has begun so lately that it does not know it itself.
    #[must_use]
    pub fn hand_over(&mut self, now: Timestamp) -> bool {
        let all_is_known = self.gate.hand_over(now);
        let requests: BTreeMap<_, _> = self.sessions.granted().collect();
        while let Some(Said::Lease { number, grant, record }) = self.gate.poll_said() {
            self.say_lease(number, grant, record, requests.get(&grant).copied());
        }
        all_is_known
    }

    /// Has a lease written down, with the request that it answers.
    pub(super) fn say_lease(
        &mut self,
        number: u64,
        grant: GrantId,
        record: Option<(SessionId, LeaseRecord)>,
        request: Option<RequestId>,
    ) {
        let encode = |(owner, record): (SessionId, LeaseRecord)| {
            let session = self.sessions.get(owner)?;
            Some(LeaseRecord { request, ..record }.encode(session.name, &session.client))
        };
        let record = record.and_then(encode);
        self.outputs.push_back(Output::Lease { number, grant, record });
    }
}
