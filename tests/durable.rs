//! Usage that outlives the machine: laws over random use, and crashes at any instant.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::engine::{
    Block, Bounds, ClientInfo, Cost, Decision, Demand, Hold, Input, Key, Limits, Machine, Output,
    Reply, Request, RequestId, Restored, Rules, SessionId, Unfit, Wait,
};
use zmqlocker::time::Timestamp;

/// The time of all limits.
const LENGTH: Duration = Duration::from_secs(10);

type Bytes = Vec<u8>;

/// By key: the boot in which a record was written, and the record.
type Disk = BTreeMap<String, (u32, Bytes)>;

/// A machine and its shell: what it has on the disk, and what is on its way there.
struct Server {
    machine: Machine<()>,
    session: SessionId,
    last: u64,
    /// The clock of the machine.
    now: Timestamp,
    boot: u32,
    disk: Disk,
    queue: Vec<(u64, String, Option<Bytes>)>,
    /// How often an answer had to wait for a record.
    waits: usize,
}

impl Server {
    fn start(now: Timestamp, limits: &str, disk: Disk, boot: u32) -> Self {
        let rules = Rules::new([], Some(Limits::parse(&[limits]).unwrap())).unwrap();
        let mut machine = Machine::new(now, rules, Duration::ZERO, Bounds::default());
        machine.make_durable();
        let (session, _) = machine.greet(now, [0; 16], ClientInfo::default()).unwrap();
        let mut server =
            Self { machine, session, last: 0, now, boot, disk, queue: Vec::new(), waits: 0 };
        for (key, (written_in, record)) in server.disk.clone() {
            server.machine.restore(now, written_in == boot, &key, &record).unwrap();
            server.drain();
        }
        server
    }

    /// The answers, each after the records that it waits for.
    fn drain(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Record { number, key, record } => {
                    self.queue.push((number, key.into(), record));
                }
                Output::Await { number } => {
                    self.waits += 1;
                    let count = self.queue.iter().take_while(|(other, ..)| *other <= number);
                    self.write(count.count());
                }
                Output::Reply { reply, .. } => replies.push(reply),
                _ => {}
            }
        }
        replies
    }

    fn write(&mut self, count: usize) {
        for (_, key, record) in self.queue.drain(..count) {
            match record {
                Some(record) => drop(self.disk.insert(key, (self.boot, record))),
                None => drop(self.disk.remove(&key)),
            }
        }
    }

    fn ask(&mut self, request: &Request) -> Reply {
        // The session may have ended meanwhile, for its silence.
        self.machine.handle(self.now, Input::Tick);
        self.drain();
        self.session = self.machine.greet(self.now, [0; 16], ClientInfo::default()).unwrap().0;
        self.last += 1;
        let id = RequestId(self.last);
        self.machine.handle(self.now, Input::Beat(self.session, id, &[]));
        self.machine.handle(self.now, Input::Ask(self.session, id, request));
        let mut replies = self.drain();
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0)
    }

    fn acquire(&mut self, key: &str, cost: u64, hold: Hold) -> Decision {
        let demand = Demand::one(Key::parse(key).unwrap(), Cost::new(cost.into()).unwrap());
        match self.ask(&Request::Acquire { demand, wait: Wait::No, hold }) {
            Reply::Decision(decision) => decision,
            reply => panic!("{reply:?}"),
        }
    }

    /// How many were granted: all or none.
    fn spend(&mut self, cost: u64) -> u64 {
        let is_granted = cost > 0 && self.acquire("key", cost, Hold::Spend).allowed;
        if is_granted { cost } else { 0 }
    }

    fn borrow(&mut self, wanted: u64) -> Block {
        let (key, wanted) = (Key::parse("key").unwrap(), Cost::new(wanted.into()).unwrap());
        match self.ask(&Request::Block { key, wanted }) {
            Reply::Block(block) => block,
            reply => panic!("{reply:?}"),
        }
    }

    fn remaining(&mut self) -> u64 {
        match self.ask(&Request::Peek { key: Key::parse("key").unwrap(), cost: Cost::ONE }) {
            Reply::Decision(decision) => decision.remaining,
            reply => panic!("{reply:?}"),
        }
    }

    /// The server is killed when so many of the records on their way are written.
    fn crash(mut self, written: usize) -> Disk {
        self.write(written.min(self.queue.len()));
        self.disk
    }

    /// The server stops as it should.
    fn stop(mut self) -> Disk {
        self.machine.handle(self.now, Input::Close);
        self.drain();
        let mut next = Some(0);
        while let Some(place) = next {
            next = self.machine.settle(self.now, place);
            self.drain();
        }
        self.write(self.queue.len());
        self.disk
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Spend(u64),
    /// Spends all there is.
    SpendAll,
    /// Reserves the first, spends the second at most.
    Reserve(u64, u64),
    /// Borrows so many, to be spent at the last instant at which they may be or at once.
    Borrow(u64, bool),
    /// Is killed with so many records written, and is down for so many milliseconds.
    Crash(usize, u64),
    /// The machine is started anew.
    Reboot(usize, u64),
    Stop(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..4_000).prop_map(Step::Pass),
        10 => (1_u64..6).prop_map(Step::Spend),
        2 => (1_u64..12, 1_u64..12).prop_map(|(all, spent)| Step::Reserve(all, spent)),
        2 => (1_u64..12, any::<bool>()).prop_map(|(wanted, late)| Step::Borrow(wanted, late)),
        2 => (0_usize..3, prop_oneof![Just(0), 0_u64..12_000]).prop_map(|(w, d)| Step::Crash(w, d)),
        1 => (0_usize..3, 0_u64..12_000).prop_map(|(w, d)| Step::Reboot(w, d)),
        1 => (0_u64..12_000).prop_map(Step::Stop),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Fixed,
    Sliding,
    Gcra,
}

impl Kind {
    fn limit(self, max: u64) -> String {
        match self {
            Self::Fixed => format!("{max}/10s"),
            Self::Sliding => format!("{max}/10s sliding"),
            Self::Gcra => format!("{max}/10s gcra"),
        }
    }

    /// How many permits a crash may lose.
    fn chunk(self, max: u64) -> u64 {
        match self {
            Self::Fixed | Self::Sliding => max / 16,
            Self::Gcra => (max / 16).max(max / 20) + 1,
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Fixed), Just(Kind::Sliding), Just(Kind::Gcra)]
}

/// Runs the steps. What was granted, and when.
fn run(kind: Kind, max: u64, steps: &[Step]) -> Vec<(Duration, u64)> {
    let limit = kind.limit(max);
    let mut real = Duration::ZERO;
    let mut server = Server::start(Timestamp::ZERO, &limit, Disk::new(), 0);
    let mut granted = Vec::new();
    let mut boot = 0;
    let mut exact = true;
    for step in steps {
        match *step {
            Step::Pass(millis) => {
                real += Duration::from_millis(millis);
                server.now = server.now + Duration::from_millis(millis);
            }
            Step::Spend(cost) if cost <= max => granted.push((real, server.spend(cost))),
            Step::SpendAll => {
                let all = server.remaining();
                granted.push((real, server.spend(all)));
            }
            Step::Reserve(all, spent) if all <= max => {
                let decision = server.acquire("key", all, Hold::Reserve);
                // What came back may be lost, until it is recorded that it did.
                exact = false;
                if let Some(grant) = decision.grant {
                    let spent = spent.min(all);
                    let done = server.ask(&Request::Commit { grant, spent: vec![spent].into() });
                    assert_eq!(done, Reply::Done);
                    granted.push((real, spent));
                }
            }
            Step::Borrow(wanted, late) => {
                let block = server.borrow(wanted);
                // A fixed window's is void with its slot, so any instant is as good as the first.
                let late = late && !matches!(kind, Kind::Fixed);
                let kept = if late { spendable_for(&block) } else { Duration::ZERO };
                granted.push((real + kept, block.permits));
            }
            Step::Spend(_) | Step::Reserve(..) => {}
            Step::Crash(written, down) => {
                let down = Duration::from_millis(down);
                let (now, before) = (server.now + down, server.remaining());
                server = Server::start(now, &limit, server.crash(written), boot);
                real += down;
                // A log of more entries than are recorded frees some of them a little later.
                let is_exact = exact && (!matches!(kind, Kind::Sliding) || max <= 32);
                let lost = before.saturating_sub(server.remaining());
                assert!(!is_exact || lost <= kind.chunk(max), "lost {lost} of {limit}");
            }
            Step::Reboot(written, down) => {
                let disk = server.crash(written);
                boot += 1;
                server = Server::start(Timestamp::from_nanos(down), &limit, disk, boot);
                real += Duration::from_millis(down);
            }
            Step::Stop(down) => {
                let (now, before) = (server.now, server.remaining());
                let disk = server.stop();
                let mut same_instant = Server::start(now, &limit, disk.clone(), boot);
                assert_eq!(same_instant.remaining(), before, "of {limit}");
                let down = Duration::from_millis(down);
                server = Server::start(now + down, &limit, disk, boot);
                real += down;
            }
        }
    }
    granted.sort_unstable();
    granted
}

/// How long after its grant a client spends of a block at most, if its clock is right.
fn spendable_for(block: &Block) -> Duration {
    block.valid_for.saturating_sub(Duration::from_nanos(1))
}

/// Runs the steps, and sees that never too much was granted.
fn check(kind: Kind, max: u64, steps: &[Step]) -> Result<(), TestCaseError> {
    let granted = run(kind, max, steps);
    let rebooted = steps.iter().any(|step| matches!(step, Step::Reboot(..)));
    let within = |from: Duration, to: Duration| -> u64 {
        let inside = granted.iter().filter(|(at, _)| from <= *at && *at <= to);
        inside.map(|(_, permits)| permits).sum()
    };
    match kind {
        Kind::Sliding => {
            for (at, _) in &granted {
                prop_assert!(within(*at, *at + LENGTH) <= max);
            }
        }
        Kind::Gcra => {
            for (place, (from, _)) in granted.iter().enumerate() {
                for (to, _) in &granted[place..] {
                    let refilled = to.saturating_sub(*from).as_nanos() * u128::from(max);
                    let allowed = u128::from(max) * LENGTH.as_nanos() + refilled;
                    prop_assert!(u128::from(within(*from, *to)) * LENGTH.as_nanos() <= allowed);
                }
            }
        }
        // After a reboot a slot may last longer, and the next one begins later.
        Kind::Fixed if rebooted => {
            for (at, _) in &granted {
                prop_assert!(within(*at, *at + LENGTH) <= 2 * max);
            }
        }
        Kind::Fixed => {
            let mut slot: Option<Duration> = None;
            for (at, _) in &granted {
                if slot.is_none_or(|from| *at > from + LENGTH) {
                    slot = Some(*at);
                    prop_assert!(within(*at, *at + LENGTH) <= max);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_crash_gives_more_than_the_limit(
        kind in kind(),
        max in 1_u64..100,
        steps in vec(step(), 1..80),
    ) {
        check(kind, max, &steps)?;
    }

    #[test]
    fn a_block_that_outlives_its_server_gives_no_more_than_the_limit(
        kind in kind(),
        max in 1_u64..200,
        (used, wanted) in (0_u64..12, 1_u64..12),
        end in prop_oneof![
            (0_usize..3, 0_u64..1_500).prop_map(|(written, down)| Step::Crash(written, down)),
            (0_u64..1_500).prop_map(Step::Stop),
        ],
        apart in 50_u64..1_000,
    ) {
        let mut steps = vec![Step::Spend(1); usize::try_from(used).unwrap()];
        steps.extend([Step::Borrow(wanted, true), end]);
        for _ in 0..25_000 / apart {
            steps.extend([Step::Pass(apart), Step::SpendAll]);
        }
        check(kind, max, &steps)?;
    }

    #[test]
    fn other_limits_after_a_crash_take_over_what_was_used(
        kinds in (kind(), kind()),
        maxima in (1_u64..100, 1_u64..100),
        costs in vec(1_u64..6, 0..30),
        written in 0_usize..3,
    ) {
        let mut server =
            Server::start(Timestamp::ZERO, &kinds.0.limit(maxima.0), Disk::new(), 0);
        let mut used = 0;
        for cost in costs {
            if cost <= maxima.0 && server.acquire("key", cost, Hold::Spend).allowed {
                used += cost;
            }
        }
        let disk = server.crash(written);
        let mut server = Server::start(Timestamp::ZERO, &kinds.1.limit(maxima.1), disk, 0);
        prop_assert!(server.remaining() <= maxima.1.saturating_sub(used));
    }
}

/// A server of 160 permits in ten seconds, by the limit's kind, that has granted so many.
fn used(limit: &str, count: u64) -> Server {
    let mut server = Server::start(Timestamp::ZERO, limit, Disk::new(), 0);
    (0..count).for_each(|_| assert!(server.acquire("key", 1, Hold::Spend).allowed));
    server
}

#[test]
fn most_answers_wait_for_no_record() {
    for limit in ["160/10s", "160/10s sliding", "160/10s gcra"] {
        let waits = used(limit, 160).waits;
        assert!((1..=33).contains(&waits), "{limit}: {waits}");
    }
}

#[test]
fn short_limits_and_those_that_only_watch_or_are_held_are_not_recorded() {
    for limit in ["100/4s", "100/4s sliding", "100/min shadow"] {
        let server = used(limit, 10);
        assert!(server.queue.is_empty() && server.disk.is_empty(), "{limit}");
    }
    let mut server = used("9 at once", 0);
    let lease = Hold::lease(Duration::from_secs(10)).unwrap();
    assert!(server.acquire("key", 1, lease).allowed);
    assert!(server.queue.is_empty() && server.disk.is_empty());
}

#[test]
fn what_is_spent_of_a_block_after_a_crash_counts_from_then_on() {
    let mut server = used("160/10s sliding", 1);
    let waits = server.waits;
    let block = server.borrow(3);
    let spent_at = server.now + spendable_for(&block);
    assert_eq!((block.permits, server.waits), (3, waits), "it is covered by what is recorded");
    let now = server.now + Duration::from_millis(1);
    let mut server = Server::start(now, "160/10s sliding", server.crash(0), 0);
    server.now = spent_at + LENGTH;
    assert!(server.remaining() <= 157, "{}", server.remaining());
}

#[test]
fn a_reset_is_recorded_before_its_answer() {
    let mut server = used("9/min", 9);
    assert_eq!(server.ask(&Request::Reset { key: Key::parse("key").unwrap() }), Reply::Done);
    assert!(server.disk.is_empty());
}

#[test]
fn limits_set_for_a_key_are_recorded_with_its_usage() {
    let mut server = used("9/min", 9);
    let key = Key::parse("key").unwrap();
    assert_eq!(server.ask(&Request::SetLimits { key, limits: vec!["20/min"] }), Reply::Done);
    let disk = server.crash(0);
    assert_eq!(Server::start(Timestamp::ZERO, "20/min", disk, 0).remaining(), 10);
}

#[test]
fn a_key_that_is_forgotten_has_no_record_any_more() {
    let mut server = Server::start(Timestamp::ZERO, "9/min", Disk::new(), 0);
    for number in 0..100 {
        server.acquire(&format!("old {number}"), 1, Hold::Spend);
    }
    assert_eq!(server.disk.len(), 100);
    server.now = Timestamp::ZERO + Duration::from_secs(100);
    for number in 0..100 {
        server.acquire(&format!("new {number}"), 1, Hold::Spend);
    }
    assert!(server.disk.keys().all(|key| key.starts_with("new")), "{:?}", server.disk.keys());
}

#[test]
fn in_another_boot_what_was_left_to_wait_is_left_again() {
    for limit in ["1/min", "1/min sliding", "1/min gcra"] {
        let server = used(limit, 1);
        let now = Timestamp::from_nanos(7);
        let mut server = Server::start(now, limit, server.crash(0), 1);
        let decision = server.acquire("key", 1, Hold::Spend);
        assert!(!decision.allowed, "{limit}");
        server.now = now + decision.retry_after.unwrap();
        assert!(decision.retry_after.unwrap() >= Duration::from_secs(59), "{decision:?}");
        assert!(server.acquire("key", 1, Hold::Spend).allowed, "{limit}");
    }
}

#[test]
fn a_clock_that_went_back_is_another_one() {
    let mut server = Server::start(Timestamp::from_nanos(1 << 60), "1/min", Disk::new(), 0);
    assert!(server.acquire("key", 1, Hold::Spend).allowed);
    let mut server = Server::start(Timestamp::ZERO, "1/min", server.crash(0), 0);
    let decision = server.acquire("key", 1, Hold::Spend);
    assert_eq!((decision.allowed, decision.retry_after), (false, Some(MINUTE)));
}

/// A minute, and the instant at which the next slot may open.
const MINUTE: Duration = Duration::new(60, 1);

#[test]
fn a_record_is_taken_up_dropped_or_refused() {
    let disk = used("9/min", 9).stop();
    let record = &disk["key"].1;
    let nobody = Rules::new([("other".to_owned(), Limits::parse(&["1/s"]).unwrap())], None);
    let mut machine: Machine<()> =
        Machine::new(Timestamp::ZERO, nobody.unwrap(), Duration::ZERO, Bounds::default());
    machine.make_durable();
    let mut restore = |now, bytes: &[u8]| {
        let restored = machine.restore(now, true, "key", bytes);
        (restored, machine.poll_output())
    };
    let dropped = |number| Some(Output::Record { number, key: "key".into(), record: None });
    let later = Timestamp::ZERO + 2 * MINUTE;
    assert_eq!(restore(Timestamp::ZERO, record), (Ok(Restored::Unserved), dropped(1)));
    assert_eq!(restore(later, record), (Ok(Restored::Over), dropped(2)));
    assert_eq!(restore(later, &record[1..]), (Err(Unfit::Unreadable), None));
}
