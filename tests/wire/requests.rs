//! What clients say: golden bytes, round trips, and bytes that nobody should send.

use std::time::Duration;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use zmqlocker::cluster::Partition;
use zmqlocker::engine::{
    Code, Cost, Demand, GrantId, Hold, Key, LockRequest, Locks, Mode, Request, RequestId, Term,
    Wait,
};
use zmqlocker::wire::request::{
    ClientItem, Hello, Items, OPEN_MAX, encode_beat, encode_bye, encode_cancel, encode_hello,
    encode_know_moved, encode_request,
};
use zmqlocker::wire::seed::BYTES_MAX;
use zmqlocker::wire::{ITEMS_MAX, VERSION};

use crate::golden::{CLIENT, PROTOCOL, bytes};

const BILLION: u64 = 1_000_000_000;

fn encode(out: &mut Vec<u8>, item: &ClientItem<'_>) {
    match item {
        ClientItem::Hello(hello) => encode_hello(out, hello),
        ClientItem::Beat { number, floor, open } => encode_beat(out, *number, *floor, open),
        ClientItem::Ask { id, request } => encode_request(out, *id, request),
        ClientItem::Cancel(id) => encode_cancel(out, *id),
        ClientItem::KnowMoved(grants) => encode_know_moved(out, grants),
        ClientItem::Bye => encode_bye(out),
        other => panic!("a client does not say {other:?}"),
    }
}

fn encode_all(out: &mut Vec<u8>, items: &[ClientItem<'_>]) {
    for item in items {
        encode(out, item);
    }
}

fn key(text: &str) -> Key<'_> {
    Key::parse(text).unwrap()
}

fn cost(permits: i128) -> Cost {
    Cost::new(permits).unwrap()
}

fn term(ttl: Duration, max_hold: Option<Duration>) -> Term {
    Term::new(ttl, max_hold).unwrap()
}

fn locks<'a>(parts: &[(&'a str, Mode)], term: Term, actor: u64) -> LockRequest<'a> {
    let locks = Locks::new(parts.iter().map(|(text, mode)| (key(text), *mode))).unwrap();
    LockRequest { locks, term, actor }
}

fn one(text: &str, permits: i128) -> Demand<'_> {
    Demand::one(key(text), cost(permits))
}

/// What the lines of [`CLIENT`] say, in the same order.
fn golden<'a>() -> Vec<ClientItem<'a>> {
    let mut session = [0; 16];
    for (byte, place) in session.iter_mut().zip(0..) {
        *byte = place;
    }
    let ask = |id, request| ClientItem::Ask { id: RequestId(id), request };
    let acquire = |demand, wait, hold| Request::Acquire { demand, wait, hold };
    let two = Demand::new([(key("rpm"), Cost::ONE), (key("tpm"), cost(1200))]).unwrap();
    let lease = Hold::lease(Duration::from_millis(800)).unwrap();
    let limits = ["600/min", "20 at once"].into_iter().collect();
    vec![
        ClientItem::Hello(Hello {
            version: VERSION,
            session,
            name: "worker-3",
            host: "db1",
            pid: 4711,
            connection: 3,
        }),
        ClientItem::Beat { number: 7, floor: RequestId(41), open: vec![] },
        ClientItem::Beat {
            number: 8,
            floor: RequestId(70_000),
            open: vec![RequestId(41), RequestId(43)],
        },
        ask(41, acquire(one("openai", 1), Wait::No, Hold::Spend)),
        ask(42, acquire(two, Wait::UpTo(Duration::from_secs(5)), Hold::Spend)),
        ask(43, acquire(one("tpm", 2000), Wait::Patience, Hold::Reserve)),
        ask(44, acquire(one("invoice:42", 1), Wait::No, lease)),
        ask(45, Request::Commit { grant: GrantId(7), spent: [1450].into_iter().collect() }),
        ask(46, Request::Release { grant: GrantId(8) }),
        ask(
            47,
            Request::ReleaseIn { grant: GrantId(8), partition: Partition::numbered(63).unwrap() },
        ),
        ClientItem::Cancel(RequestId(42)),
        ask(47, Request::Freeze { key: key("openai"), length: Duration::from_secs(30) }),
        ask(48, Request::Peek { key: key("openai"), cost: cost(3) }),
        ask(49, Request::Reset { key: key("openai") }),
        ask(50, Request::SetLimits { key: key("openai"), limits }),
        ask(51, Request::Block { key: key("openai"), wanted: cost(100) }),
        ask(52, Request::GiveBack { grant: GrantId(9), unused: 60 }),
        ClientItem::Bye,
    ]
    .into_iter()
    .chain(golden_locks().map(|(id, request)| ask(id, request)))
    .chain([ClientItem::KnowMoved(vec![GrantId((1 << 32) + 9)])])
    .collect()
}

/// What is asked of locks, and by those who only look.
fn golden_locks<'a>() -> [(u64, Request<'a>); 9] {
    let short = term(Duration::from_millis(800), None);
    let long = term(Duration::from_secs(30), Some(Duration::from_secs(3600)));
    let slots = Mode::Permits { size: cost(8), cost: cost(2) };
    let token = GrantId((1 << 32) + 9);
    let mutex = locks(&[("invoice:42", Mode::Exclusive)], short, 0);
    let both = locks(&[("index", Mode::Read), ("slots", slots)], long, 7);
    let write = locks(&[("index", Mode::Write)], short, 0);
    [
        (53, Request::Lock { wanted: mutex, wait: Wait::No }),
        (54, Request::Lock { wanted: both, wait: Wait::UpTo(Duration::from_secs(5)) }),
        (55, Request::Reclaim { grant: token, wanted: write }),
        (56, Request::Break { key: key("invoice:42"), grant: None }),
        (57, Request::Break { key: key("invoice:42"), grant: Some(token) }),
        (58, Request::Locks { from: 0 }),
        (59, Request::Status),
        (60, Request::Keys { from: 0 }),
        (61, Request::Clients { from: 0 }),
    ]
}

#[test]
fn every_item_of_a_client_has_its_golden_bytes_in_the_document() {
    assert_eq!(CLIENT.len(), golden().len());
    for (place, (readable, line)) in CLIENT.iter().enumerate() {
        let body = bytes(line);
        let item = golden().swap_remove(place);
        let mut out = Vec::new();
        encode(&mut out, &item);
        assert_eq!(out, bytes(line), "{readable}");
        assert_eq!(Items::new(&body).collect::<Vec<_>>(), [Ok(item)], "{readable}");
        assert!(PROTOCOL.contains(readable) && PROTOCOL.contains(line), "{readable}: {line}");
    }
}

#[test]
fn the_codes_of_the_document_are_those_of_the_engine() {
    for code in Code::ALL {
        let row = format!("| {} | `{code:?}` |", code as u8);
        assert!(PROTOCOL.contains(&row), "{row}");
    }
}

#[test]
fn a_message_that_is_cut_has_fewer_items_but_no_other_ones() {
    let mut body = Vec::new();
    let all = golden();
    encode_all(&mut body, &all);
    for end in 0..=body.len() {
        let read: Vec<_> = Items::new(&body[..end]).collect();
        let whole = read.iter().take_while(|item| item.is_ok()).count();
        assert!(read.len() <= whole + 1, "an error is the last");
        assert!(read.iter().zip(&all).take(whole).all(|(read, item)| read.as_ref() == Ok(item)));
    }
}

/// The code of what is wrong with one item, and the request that it is about.
fn bad(line: &str) -> (Code, String, Option<u64>) {
    let mut body = bytes(line);
    encode_bye(&mut body);
    let mut items = Items::new(&body);
    let Some(Ok(ClientItem::Bad { id, problem })) = items.next() else {
        panic!("{line} is not bad")
    };
    assert_eq!(items.next(), Some(Ok(ClientItem::Bye)), "the rest of {line} is read");
    (problem.code, problem.message, id.map(|id| id.0))
}

#[test]
fn a_bad_item_names_its_request_and_its_bound_and_leaves_the_rest_alone() {
    let cases: &[(&str, Code, &str, Option<u64>)] = &[
        ("90", Code::Protocol, "too short", None),
        ("9117", Code::Protocol, "from 0 to 22, not 23", None),
        ("920ec0", Code::Protocol, "1 elements too many", None),
        ("9302c000", Code::Protocol, "id must be", None),
        ("9401072929", Code::Protocol, "open must rise, and be below floor", None),
        ("950107290202", Code::Protocol, "open must rise, and be below floor", None),
        ("94010729c0", Code::Protocol, "open must be", None),
        ("920209", Code::Protocol, "too short", Some(9)),
        ("93020900", Code::Config, "keys must be at least one", Some(9)),
        ("94020900a0", Code::Config, "key must be 1 to 256 bytes of UTF-8, not 0", Some(9)),
        ("94020900a1ff", Code::Config, "key must be 1 to 256 bytes of UTF-8", Some(9)),
        ("94020900c40161", Code::Protocol, "key must be text", Some(9)),
        ("95020900a16100", Code::Config, "cost must be from 1 to", Some(9)),
        ("95020900a161ff", Code::Config, "not -1", Some(9)),
        ("95020900a161cb3ff0000000000000", Code::Protocol, "cost must be", Some(9)),
        ("96020900a16101a162", Code::Protocol, "must have a cost", Some(9)),
        ("97020900a16101a16101", Code::Config, "named once", Some(9)),
        ("950409000aa161", Code::Config, "ttl must be from 0.1 to 86400 s", Some(9)),
        ("94020901c0", Code::Protocol, "key must be text", Some(9)),
        ("940209c3a161", Code::Protocol, "wait must be nil or", Some(9)),
        ("93050901", Code::Config, "spent must be from 1 to 16", Some(9)),
        ("930b09a161", Code::Config, "limits must be from 1 to 8", Some(9)),
        ("940c09a16100", Code::Config, "wanted must be from 1 to", Some(9)),
        (
            "980f0900ce05f5e100c000a16104",
            Code::Protocol,
            "mode must be from 0 to 3, not 4",
            Some(9),
        ),
        ("980f0900ce05f5e100c000a161c0", Code::Protocol, "mode must be", Some(9)),
        ("970f0900ce05f5e100c000a161", Code::Protocol, "too short", Some(9)),
        ("980f0900ce05f5e100c000a16103", Code::Protocol, "too short", Some(9)),
        ("9a0f0900ce05f5e100c000a161030001", Code::Config, "size must be from 1 to", Some(9)),
        ("9a0f0900ce05f5e100c000a161030100", Code::Config, "cost must be from 1 to", Some(9)),
        ("960f0900ce05f5e100c000", Code::Config, "keys must be at least one", Some(9)),
        ("9a0f0900ce05f5e100c000a16100a16100", Code::Config, "named once", Some(9)),
        ("980f0900ce05f5e0ffc000a16100", Code::Config, "ttl must be from 0.1 to", Some(9)),
        ("980f0900ce05f5e1000100a16100", Code::Config, "max_hold must be at least", Some(9)),
        ("980f0900ce05f5e100c0c0a16100", Code::Protocol, "actor must be", Some(9)),
        ("981009c0ce05f5e100c000a16100", Code::Protocol, "grant must be", Some(9)),
        ("931109a161", Code::Protocol, "too short", Some(9)),
        ("941109a161a0", Code::Protocol, "grant must be nil or", Some(9)),
        ("921209", Code::Protocol, "too short", Some(9)),
        ("931209c0", Code::Protocol, "from must be", Some(9)),
        ("93130900", Code::Protocol, "1 elements too many", Some(9)),
        ("921409", Code::Protocol, "too short", Some(9)),
        ("931509c0", Code::Protocol, "from must be", Some(9)),
        ("960001c40100a0a001", Code::Config, "session must be 16 bytes", None),
        ("9400cc01c0c0", Code::Protocol, "session must be bytes", None),
    ];
    for (line, code, part, id) in cases {
        let (seen, message, about) = bad(line);
        assert!(seen == *code && about == *id && message.contains(part), "{line}: {message}");
    }
}

#[test]
fn a_beat_excepts_so_many_requests_and_not_one_more() {
    for count in [OPEN_MAX, OPEN_MAX + 1] {
        let open: Vec<_> = (0..count as u64).map(RequestId).collect();
        let mut body = Vec::new();
        encode_beat(&mut body, 7, RequestId(70_000), &open);
        match Items::new(&body).next().unwrap().unwrap() {
            ClientItem::Bad { problem, .. } if count > OPEN_MAX => {
                assert_eq!(problem.message, "open must be from 1 to 512 in number, not 513");
            }
            read => {
                assert_eq!(read, ClientItem::Beat { number: 7, floor: RequestId(70_000), open });
            }
        }
    }
}

#[test]
fn one_key_more_than_the_bound_is_bad() {
    let mut body = bytes("dc0025020900");
    for place in 0..17 {
        body.extend_from_slice(&[0xa1, b'a' + place, 1]);
    }
    let mut wanted = bytes("dc00280f0900ce05f5e100c000");
    for place in 0..17 {
        wanted.extend_from_slice(&[0xa1, b'a' + place, 0]);
    }
    for body in [body, wanted] {
        let Some(Ok(ClientItem::Bad { problem, .. })) = Items::new(&body).next() else { panic!() };
        assert!(problem.message.contains("at most 16"), "{}", problem.message);
    }
}

#[test]
fn an_error_is_the_last_thing_that_is_read_of_a_message() {
    let nested = "an array or a map within";
    for (line, part) in [
        ("05", "must be an array"),
        ("6c6574206d6520676f", "must be an array"),
        ("91c1", "MessagePack"),
        ("92", "ends within"),
        ("ddffffffff0e", "ends within"),
        ("9200dbffffffff", "ends within"),
        ("dfffffffff", "must be an array"),
        ("91c9ffffffff00", "ends within"),
        ("920e90", nested),
        ("920e80", nested),
    ] {
        let body = bytes(line);
        let read: Vec<_> = Items::new(&body).collect();
        let Some(Err(problem)) = read.last() else { panic!("{line}: {read:?}") };
        assert!(read.len() == 1 && problem.code == Code::Protocol, "{line}: {read:?}");
        assert!(problem.message.contains(part), "{line}: {}", problem.message);
    }
}

#[test]
fn a_hello_may_say_more_than_we_know() {
    let mut line = CLIENT[0].1.replacen("96", "98", 1);
    line.push_str("9190810101");
    let body = bytes(&line);
    assert_eq!(Items::new(&body).next(), Some(Ok(golden()[0].clone())));
    let other = bytes("9400029190dc0001a161910e");
    let items: Vec<_> = Items::new(&other[..other.len() - 2]).collect();
    assert_eq!(items, [Ok(ClientItem::OtherVersion(2))]);
}

#[test]
fn a_message_has_4096_items_and_65536_bytes_at_most() {
    let mut body = bytes("910e").repeat(ITEMS_MAX);
    assert_eq!(Items::new(&body).flatten().count(), ITEMS_MAX);
    encode_bye(&mut body);
    let read: Vec<_> = Items::new(&body).skip(ITEMS_MAX).collect();
    assert!(matches!(read.as_slice(), [Err(problem)] if problem.message.contains("4096 items")));
    let large = vec![0; BYTES_MAX + 1];
    let read: Vec<_> = Items::new(&large).collect();
    assert!(matches!(read.as_slice(), [Err(problem)] if problem.message.contains("65536 bytes")));
}

/// The numbers and texts that items are made of.
#[derive(Clone, Debug)]
struct Parts {
    numbers: [u64; 3],
    costs: Vec<i128>,
    keys: Vec<String>,
    texts: Vec<String>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let number = || prop_oneof![0..300_u64, any::<u64>(), 0..u64::from(u32::MAX)];
    let cost = prop_oneof![1..300_i128, 1..=1_000 * i128::from(BILLION)];
    let keys = btree_set("\\PC{1,64}", 1..=Demand::KEYS_MAX);
    let texts = vec("\\PC{0,64}", 2..=Request::LIMITS_MAX);
    ([number(), number(), number()], vec(cost, Demand::KEYS_MAX), keys, texts).prop_map(
        |(numbers, costs, keys, texts)| {
            let keys = keys.into_iter().collect();
            Parts { numbers, costs, keys, texts }
        },
    )
}

/// One item of each kind.
fn items(parts: &Parts) -> Vec<ClientItem<'_>> {
    let [a, b, c] = parts.numbers;
    let nanos = Duration::from_nanos;
    let first = key(&parts.keys[0]);
    let costs = parts.costs.iter().map(|permits| cost(*permits));
    let all = Demand::new(parts.keys.iter().map(|text| key(text)).zip(costs)).unwrap();
    let single = Demand::one(first, cost(parts.costs[0]));
    let lease = Hold::lease(nanos(100_000_000 + a % (86_399 * BILLION))).unwrap();
    let wanted = cost(parts.costs[0]);
    let limits = parts.texts.iter().map(String::as_str).collect();
    let session = u128::from(a).to_le_bytes();
    let (name, host) = (parts.texts[0].as_str(), parts.texts[1].as_str());
    let pid = u32::try_from(b >> 32).unwrap();
    let mut items = vec![
        ClientItem::Hello(Hello { version: VERSION, session, name, host, pid, connection: c }),
        ClientItem::Beat { number: a, floor: RequestId(b), open: vec![] },
        ClientItem::Cancel(RequestId(c)),
        ClientItem::Bye,
    ];
    let acquires = [&all, &single].into_iter().flat_map(|demand| {
        [Hold::Spend, Hold::Reserve, lease].into_iter().flat_map(move |hold| {
            [Wait::No, Wait::Patience, Wait::UpTo(nanos(b.max(1)))]
                .into_iter()
                .map(move |wait| Request::Acquire { demand: demand.clone(), wait, hold })
        })
    });
    let spent = parts.costs.iter().map(|_| c).collect();
    let others = [
        Request::Commit { grant: GrantId(b), spent },
        Request::Release { grant: GrantId(b) },
        Request::Freeze { key: first, length: nanos(c) },
        Request::Peek { key: first, cost: wanted },
        Request::Peek { key: first, cost: Cost::ONE },
        Request::Reset { key: first },
        Request::SetLimits { key: first, limits },
        Request::Block { key: first, wanted },
        Request::GiveBack { grant: GrantId(b), unused: c },
    ];
    let requests = acquires.chain(others).chain(lock_requests(parts));
    items.extend(requests.map(|request| ClientItem::Ask { id: RequestId(a), request }));
    items
}

/// A request of each kind that is about locks.
fn lock_requests(parts: &Parts) -> Vec<Request<'_>> {
    let [a, b, c] = parts.numbers;
    let ttl = Duration::from_nanos(100_000_000 + a % (86_399 * BILLION));
    let most = Duration::from_nanos(b.max(86_400 * BILLION));
    let modes = parts.costs.windows(2).enumerate().map(|(place, costs)| match place % 4 {
        0 => Mode::Permits { size: cost(costs[0]), cost: cost(costs[1]) },
        1 => Mode::Exclusive,
        2 => Mode::Read,
        _ => Mode::Write,
    });
    let all: Vec<_> = parts.keys.iter().map(String::as_str).zip(modes).collect();
    let first = key(&parts.keys[0]);
    [term(ttl, None), term(ttl, Some(ttl)), term(ttl, Some(most))]
        .into_iter()
        .flat_map(|term| {
            let wanted = locks(&all, term, c);
            let wait = if b == 0 { Wait::No } else { Wait::UpTo(Duration::from_nanos(b)) };
            [
                Request::Lock { wanted: wanted.clone(), wait },
                Request::Lock { wanted: wanted.clone(), wait: Wait::Patience },
                Request::Reclaim { grant: GrantId(b), wanted },
            ]
        })
        .chain([
            Request::Break { key: first, grant: None },
            Request::Break { key: first, grant: Some(GrantId(c)) },
            Request::Locks { from: b },
            Request::Status,
            Request::Keys { from: a },
            Request::Clients { from: b },
        ])
        .collect()
}

proptest! {
    #[test]
    fn what_a_client_says_is_what_the_server_reads(parts in parts()) {
        let mut body = Vec::new();
        let items = items(&parts);
        encode_all(&mut body, &items);
        let read: Result<Vec<_>, _> = Items::new(&body).collect();
        prop_assert_eq!(read, Ok(items));
    }

    #[test]
    fn arbitrary_bytes_are_read_without_harm(body in vec(any::<u8>(), 0..600)) {
        prop_assert!(Items::new(&body).count() <= body.len());
    }

    #[test]
    fn a_changed_byte_is_read_without_harm(place in any::<usize>(), byte in any::<u8>()) {
        let mut body = Vec::new();
        encode_all(&mut body, &golden());
        let place = place % body.len();
        body[place] = byte;
        prop_assert!(Items::new(&body).count() <= body.len());
    }
}
