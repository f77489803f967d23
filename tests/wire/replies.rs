//! What servers say: golden bytes, round trips, and bytes that nobody should send.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use zmqlocker::cluster::{Partition, PartitionMap};
use zmqlocker::engine::{
    Block, ClientInfo, ClientPage, ClientRow, Code, Cost, Decision, Demand, GrantId, KeyPage,
    KeyRow, LockPage, LockRow, Mode, Problem, Reply, RequestId, ServerFacts, ServerStatus, Tally,
};
use zmqlocker::wire::VERSION;
use zmqlocker::wire::homes::{HomeMap, HomeServer};
use zmqlocker::wire::reply::{
    MESSAGE_BYTES_MAX, Replies, ServerItem, encode_heard, encode_homes, encode_lost, encode_moved,
    encode_problem, encode_reply, encode_welcome,
};

use crate::golden::{PROTOCOL, SERVER, bytes};

fn encode(out: &mut Vec<u8>, item: &ServerItem) {
    match item {
        ServerItem::Welcome { server, patience, .. } => encode_welcome(out, *server, *patience),
        ServerItem::Heard { number } => encode_heard(out, *number),
        ServerItem::Lost { grants } => encode_lost(out, grants),
        ServerItem::Moved { grants } => encode_moved(out, grants),
        ServerItem::Homes(map) => encode_homes(out, map),
        ServerItem::Answer { id, reply } => encode_reply(out, *id, reply),
        ServerItem::Problem(problem) => encode_problem(out, problem),
    }
}

fn encode_all(out: &mut Vec<u8>, items: &[ServerItem]) {
    for item in items {
        encode(out, item);
    }
}

fn problem(code: Code, message: &str) -> Problem {
    Problem { code, message: message.to_owned() }
}

fn decision(allowed: bool, remaining: u64, limit: &str) -> Decision {
    Decision {
        allowed,
        remaining,
        retry_after: allowed.then_some(Duration::ZERO),
        reset_after: Duration::ZERO,
        limit: Arc::from(limit),
        key: 0,
        grant: None,
    }
}

/// What the lines of [`SERVER`] say, in the same order.
fn golden() -> Vec<ServerItem> {
    let answer = |id, reply| ServerItem::Answer { id: RequestId(id), reply };
    let slot = Duration::from_millis(800);
    let yes = Decision { reset_after: slot, ..decision(true, 4, "5/0.8s") };
    let never = Decision { reset_after: slot, key: 1, ..decision(false, 0, "5/0.8s") };
    let lease = Decision { grant: Some(GrantId(8)), ..decision(true, 0, "1 at once") };
    let block = Block {
        permits: 100,
        valid_for: Duration::from_secs(6),
        grant: Some(GrantId(9)),
        decision: Decision {
            reset_after: Duration::from_secs(60),
            ..decision(true, 400, "500/min")
        },
    };
    vec![
        ServerItem::Welcome {
            version: VERSION,
            server: 1000,
            patience: Duration::from_millis(200),
        },
        ServerItem::Heard { number: 7 },
        answer(41, Reply::Decision(yes)),
        answer(42, Reply::Decision(never)),
        answer(44, Reply::Decision(lease)),
        answer(42, Reply::Queued { ahead: 3 }),
        answer(46, Reply::Refuse(problem(Code::NotHeld, "there is no lease 8"))),
        ServerItem::Problem(problem(Code::UnknownSession, "say hello first")),
        answer(49, Reply::Done),
        answer(51, Reply::Block(block)),
        answer(58, Reply::Locks(LockPage { rows: golden_rows(), next: None })),
        ServerItem::Lost { grants: [9, 10].map(|low| GrantId((1 << 32) + low)).into() },
        answer(59, Reply::Status(Box::new(golden_status()))),
        answer(60, Reply::Keys(KeyPage { rows: vec![golden_key()], next: Some(40) })),
        answer(61, Reply::Clients(ClientPage { rows: vec![golden_client()], next: None })),
        ServerItem::Moved { grants: vec![GrantId((1 << 32) + 9)] },
        ServerItem::Homes(Box::new(golden_homes())),
    ]
}

/// Two servers: the first is home of the first 32 partitions but one, the second of the rest.
fn golden_homes() -> HomeMap {
    let server =
        |name: &str| HomeServer { name: name.into(), url: format!("tcp://{name}:7777").into() };
    let mut places = (0..).map(|place| usize::from(place >= 32)).map(Some);
    let mut homes = PartitionMap::from_fn(|_| places.next().unwrap());
    homes[Partition::default()] = None;
    HomeMap { epoch: 17, me: Some(1), servers: vec![server("a"), server("b")], homes }
}

#[test]
fn a_map_with_a_home_that_is_not_in_its_list_is_refused() {
    let mut map = golden_homes();
    map.servers.pop();
    let mut body = Vec::new();
    encode_homes(&mut body, &map);
    let told = Replies::new(&body).next().unwrap().unwrap_err();
    assert_eq!(told.message, "a home must be in the list");
}

fn golden_status() -> ServerStatus {
    let facts = ServerFacts {
        version: "0.1.0".into(),
        endpoint: "tcp://127.0.0.1:7777".into(),
        server: 1000,
        uptime: Duration::from_secs(3600),
        security: "none".into(),
        is_durable: true,
        reaches_registry: None,
        bad_messages: 3,
    };
    let tally = Tally {
        allowed: 900,
        refused: 100,
        problems: 2,
        bounds_hit: 1,
        waiting: 4,
        keys: 5,
        leases: 6,
        sessions: 7,
    };
    ServerStatus { facts, grace: Duration::ZERO, tally }
}

fn golden_key() -> KeyRow {
    KeyRow {
        key: "openai".into(),
        is_lock: false,
        rate_millis: 12_500,
        allowed: 900,
        refused: 100,
        waiting: 4,
        holders: 0,
        remaining: 0,
        reset_after: Duration::from_millis(800),
        frozen: Duration::ZERO,
        limit: "5/0.8s".into(),
    }
}

fn golden_client() -> ClientRow {
    ClientRow {
        session: None,
        client: ClientInfo { name: "worker-3".into(), host: "db1".into(), pid: 4711 },
        address: "10.0.0.7".into(),
        since: Duration::from_secs(5),
        silent: Duration::from_millis(1),
        leases: 2,
        waiting: 1,
    }
}

/// One who holds a lock, and one who waits for another.
fn golden_rows() -> Vec<LockRow> {
    let client = ClientInfo { name: "worker-3".into(), host: "db1".into(), pid: 4711 };
    let eight = Cost::new(8).unwrap();
    let holder = LockRow {
        key: "index".into(),
        mode: Mode::Write,
        grant: Some(GrantId((1 << 32) + 9)),
        since: Duration::from_secs(5),
        left: Duration::from_millis(800),
        session: None,
        client,
    };
    let waiter = LockRow {
        key: "slots".into(),
        mode: Mode::Permits { size: eight, cost: Cost::new(2).unwrap() },
        grant: None,
        since: Duration::from_secs(1),
        left: Duration::from_secs(2),
        ..holder.clone()
    };
    vec![holder, waiter]
}

#[test]
fn every_item_of_a_server_has_its_golden_bytes_in_the_document() {
    assert_eq!(SERVER.len(), golden().len());
    for ((readable, line), item) in SERVER.iter().zip(golden()) {
        let mut out = Vec::new();
        encode(&mut out, &item);
        assert_eq!(out, bytes(line), "{readable}");
        assert_eq!(Replies::new(&bytes(line)).collect::<Vec<_>>(), [Ok(item)], "{readable}");
        assert!(PROTOCOL.contains(readable) && PROTOCOL.contains(line), "{readable}: {line}");
    }
}

#[test]
fn a_status_need_not_tell_of_a_registry() {
    let reply = Reply::Status(Box::new(golden_status()));
    let item = ServerItem::Answer { id: RequestId(59), reply };
    let mut body = Vec::new();
    encode(&mut body, &item);
    body.truncate(body.len() - 1);
    body[2] -= 1;
    assert_eq!(Replies::new(&body).collect::<Vec<_>>(), [Ok(item)]);
}

#[test]
fn a_message_that_is_cut_has_fewer_items_but_no_other_ones() {
    let all = golden();
    let mut body = Vec::new();
    encode_all(&mut body, &all);
    for end in 0..=body.len() {
        let read: Vec<_> = Replies::new(&body[..end]).collect();
        let whole = read.iter().take_while(|item| item.is_ok()).count();
        assert!(read.len() <= whole + 1, "an error is the last");
        assert!(read.iter().zip(&all).take(whole).all(|(read, item)| read.as_ref() == Ok(item)));
    }
}

#[test]
fn the_first_item_that_no_server_sends_is_the_last_that_is_read() {
    for (line, part) in [
        ("910e", "from 0 to 13, not 14"),
        ("94040a0da0", "code must be from 1 to 12, not 13"),
        ("94040a00a0", "code must be from 1 to 12, not 0"),
        ("9208c0", "grant must be a whole number"),
        ("93070aa0", "next must be nil or"),
        ("94070ac0a0", "key must be 1 to 256 bytes"),
        ("95070ac0a16104", "mode must be from 0 to 3, not 4"),
        ("95070ac0a16100", "too short"),
        ("9a070ac0a16100c00000a0a0", "too short"),
        ("92090a", "too short"),
        ("940a0ac0a0", "key must be 1 to 256 bytes"),
        ("940a0ac0a161", "too short"),
        ("940b0ac0c0", "name must be text"),
        ("92010a01", "must be an array"),
        ("93010ac0", "too many"),
        ("99020ac3000000a010c0", "key must be a place below 16"),
        ("99020a01000000a000c0", "allowed must be true or false"),
        ("94040a01dbffffffff", "ends within"),
        ("ddffffffff050a", "an array or a map within"),
    ] {
        let mut body = bytes(line);
        encode_heard(&mut body, 1);
        let read: Vec<_> = Replies::new(&body).collect();
        let Some(Err(problem)) = read.last() else { panic!("{line}: {read:?}") };
        assert!(problem.message.contains(part), "{line}: {}", problem.message);
    }
}

#[test]
fn a_long_message_is_cut_between_two_characters() {
    for (message, kept) in [
        ("x".repeat(MESSAGE_BYTES_MAX), 500),
        ("x".repeat(MESSAGE_BYTES_MAX + 1), 500),
        (format!("x{}", "ä".repeat(MESSAGE_BYTES_MAX)), 499),
    ] {
        let mut out = Vec::new();
        encode_problem(&mut out, &problem(Code::Config, &message));
        let cut = problem(Code::Config, &message[..kept]);
        assert_eq!(Replies::new(&out).collect::<Vec<_>>(), [Ok(ServerItem::Problem(cut))]);
    }
}

fn decisions() -> impl Strategy<Value = Decision> {
    let number = || prop_oneof![0..300_u64, any::<u64>()];
    (
        any::<bool>(),
        number(),
        option::of(number()),
        number(),
        "\\PC{0,80}",
        0..Demand::KEYS_MAX,
        option::of(number()),
    )
        .prop_map(|(allowed, remaining, retry_after, reset_after, limit, key, grant)| {
            Decision {
                allowed,
                remaining,
                retry_after: retry_after.map(Duration::from_nanos),
                reset_after: Duration::from_nanos(reset_after),
                limit: limit.into(),
                key,
                grant: grant.map(GrantId),
            }
        })
}

fn pages() -> impl Strategy<Value = LockPage> {
    let number = || prop_oneof![0..300_u64, any::<u64>()];
    let cost = || (1..=1_000_000_000_000_i128).prop_map(|cost| Cost::new(cost).unwrap());
    let mode = prop_oneof![
        Just(Mode::Exclusive),
        Just(Mode::Read),
        Just(Mode::Write),
        [cost(), cost()].prop_map(|[size, cost]| Mode::Permits { size, cost }),
    ];
    let client = ("\\PC{0,60}", "\\PC{0,60}", any::<u32>())
        .prop_map(|(name, host, pid)| ClientInfo { name: name.into(), host: host.into(), pid });
    let row = ("\\PC{1,60}", mode, option::of(number()), [number(), number()], client).prop_map(
        |(key, mode, grant, [since, left], client)| LockRow {
            key: key.into(),
            mode,
            grant: grant.map(GrantId),
            since: Duration::from_nanos(since),
            left: Duration::from_nanos(left),
            session: None,
            client,
        },
    );
    (vec(row, 0..9), option::of(number())).prop_map(|(rows, next)| LockPage { rows, next })
}

/// What those hear who only look.
fn looks() -> impl Strategy<Value = Reply> {
    let texts = || "\\PC{0,40}";
    let status = (any::<[u64; 6]>(), any::<[u32; 4]>(), any::<bool>(), texts()).prop_map(
        |(counts, present, is_durable, text)| {
            let mut status = golden_status();
            status.facts.version = text.into();
            (status.facts.server, status.facts.is_durable) = (counts[0], is_durable);
            (status.grace, status.tally.allowed) = (Duration::from_nanos(counts[1]), counts[2]);
            (status.tally.refused, status.tally.problems) = (counts[3], counts[4]);
            status.facts.bad_messages = counts[5];
            status.facts.reaches_registry =
                [None, Some(false), Some(true)][present[0] as usize % 3];
            status.tally.waiting = present[0] as usize;
            (status.tally.keys, status.tally.leases) = (present[1] as usize, present[2] as usize);
            status.tally.sessions = present[3] as usize;
            Reply::Status(Box::new(status))
        },
    );
    let keys = ("[a-z]{1,256}", any::<bool>(), any::<[u64; 7]>()).prop_map(|(key, is_lock, n)| {
        let (key, reset_after) = (key.into(), Duration::from_nanos(n[6]));
        let [rate_millis, allowed, refused, waiting, holders, remaining, _] = n;
        let counted = KeyRow { rate_millis, allowed, refused, waiting, holders, ..golden_key() };
        KeyRow { key, is_lock, remaining, reset_after, ..counted }
    });
    let clients = (texts(), texts(), any::<u32>(), any::<[u64; 4]>()).prop_map(
        |(name, host, pid, [since, silent, leases, waiting])| {
            let client = ClientInfo { name: name.into(), host: host.into(), pid };
            let [since, silent] = [since, silent].map(Duration::from_nanos);
            ClientRow { client, since, silent, leases, waiting, ..golden_client() }
        },
    );
    prop_oneof![
        status,
        (vec(keys, 0..9), option::of(any::<u64>()))
            .prop_map(|(rows, next)| Reply::Keys(KeyPage { rows, next })),
        (vec(clients, 0..9), option::of(any::<u64>()))
            .prop_map(|(rows, next)| Reply::Clients(ClientPage { rows, next })),
    ]
}

fn replies() -> impl Strategy<Value = ServerItem> {
    let problems = ((0..Code::ALL.len()), "\\PC{0,100}")
        .prop_map(|(place, message)| Problem { code: Code::ALL[place], message });
    let blocks =
        (any::<u64>(), any::<u64>(), decisions()).prop_map(|(permits, nanos, decision)| {
            let (valid_for, grant) = (Duration::from_nanos(nanos), decision.grant);
            Block {
                permits,
                valid_for,
                grant,
                decision: Decision { key: 0, grant: None, ..decision },
            }
        });
    let replies = prop_oneof![
        decisions().prop_map(Reply::Decision),
        any::<u64>().prop_map(|ahead| Reply::Queued { ahead }),
        Just(Reply::Done),
        blocks.prop_map(Reply::Block),
        pages().prop_map(Reply::Locks),
        looks(),
        problems.clone().prop_map(Reply::Refuse),
    ];
    prop_oneof![
        4 => (any::<u64>(), replies)
            .prop_map(|(id, reply)| ServerItem::Answer { id: RequestId(id), reply }),
        1 => any::<u64>().prop_map(|number| ServerItem::Heard { number }),
        1 => vec(any::<u64>().prop_map(GrantId), 0..300)
            .prop_map(|grants| ServerItem::Lost { grants }),
        1 => Just(ServerItem::Homes(Box::new(golden_homes()))),
        1 => problems.prop_map(ServerItem::Problem),
        1 => any::<[u64; 2]>().prop_map(|[server, nanos]| {
            let patience = Duration::from_nanos(nanos);
            ServerItem::Welcome { version: VERSION, server, patience }
        }),
    ]
}

proptest! {
    #[test]
    fn what_a_server_says_is_what_the_client_reads(items in vec(replies(), 0..20)) {
        let mut body = Vec::new();
        encode_all(&mut body, &items);
        let read: Result<Vec<_>, _> = Replies::new(&body).collect();
        prop_assert_eq!(read, Ok(items));
    }

    #[test]
    fn arbitrary_bytes_are_read_without_harm(body in vec(any::<u8>(), 0..600)) {
        prop_assert!(Replies::new(&body).count() <= body.len());
    }

    #[test]
    fn a_changed_byte_is_read_without_harm(place in any::<usize>(), byte in any::<u8>()) {
        let mut body = Vec::new();
        encode_all(&mut body, &golden());
        let place = place % body.len();
        body[place] = byte;
        prop_assert!(Replies::new(&body).count() <= body.len());
    }
}
