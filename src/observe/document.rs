//! How things stand at a server, as the page reads it: one JSON document.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::engine::{Bounds, ClientInfo, ClientRow, KeyRow, LockRow, Mode, ServerStatus, Shape};
use crate::json::{self, Object};
use crate::observe::{
    Answers, Counting, History, Latest, News, Observation, POINT_SECONDS, People, Sharing,
};

/// How many keys are shown.
const KEYS_SHOWN: usize = 50;

/// How many of those who hold a lock are shown, and of those who wait for it.
const SHOWN_OF_A_LOCK: usize = 20;

/// The document.
#[must_use]
pub fn document(seen: &Observation, history: &History, latest: &Latest) -> String {
    let [allowed, refused] = [0, 1].map(|part| history.total().map(move |answers| answers[part]));
    let line = Object::new()
        .with("point_seconds", &POINT_SECONDS)
        .with("allowed", &allowed.collect::<Vec<_>>())
        .with("refused", &refused.collect::<Vec<_>>())
        .with("waiting", &history.waiting().collect::<Vec<_>>());
    let keys = seen.keys.iter().take(KEYS_SHOWN);
    let keys = keys.map(|row| key(row, &history.points(row.is_lock, &row.key)));
    let nobody = People::default();
    let people = seen.people.as_ref().unwrap_or(&nobody);
    let locks = by_key(&people.locks).into_iter().map(|(name, rows)| lock(name, &rows));
    let all = Object::new()
        .with("server", &server(seen))
        .with("sharing", &seen.sharing.as_ref().map(Sharing::document))
        .with("peers", &seen.counting.as_ref().map(Counting::document))
        .with("history", &line)
        .with("keys", &keys.collect::<Vec<_>>())
        .with("locks", &locks.collect::<Vec<_>>())
        .with("more_locks", &people.more_locks)
        .with("clients", &people.clients.iter().map(client).collect::<Vec<_>>())
        .with("more_clients", &people.more_clients)
        .with("events", &latest.iter().map(|news| event(seen, news)).collect::<Vec<_>>());
    json::document(&all)
}

fn server(seen: &Observation) -> Object {
    let facts = &seen.status.facts;
    let bounds = Bounds::NAMES.iter().fold(Object::new(), |bounds, name| {
        bounds.with(name, &seen.bounds.named(name).unwrap_or_default())
    });
    let object = Object::new()
        .with("version", &*facts.version)
        .with("url", &*facts.endpoint)
        // JavaScript's numbers are not exact beyond 2^53.
        .with("run", &facts.server.to_string())
        .with("uptime", &short(facts.uptime))
        .with("security", &*facts.security)
        .with("durable", &facts.is_durable)
        .with("unready", &seen.unready());
    counts(object, &seen.status).with("bounds", &bounds)
}

/// Adds what a server has counted, with the names of the Python package.
pub(crate) fn counts(object: Object, status: &ServerStatus) -> Object {
    let ServerStatus { facts, tally, .. } = status;
    object
        .with("allowed", &tally.allowed)
        .with("refused", &tally.refused)
        .with("problems", &tally.problems)
        .with("bounds_hit", &tally.bounds_hit)
        .with("bad_messages", &facts.bad_messages)
        .with("waiting", &tally.waiting)
        .with("keys", &tally.keys)
        .with("leases", &tally.leases)
        .with("clients", &tally.sessions)
}

fn key(row: &KeyRow, points: &[Answers]) -> Object {
    let [allowed, refused] = [0, 1].map(|part| points.iter().map(move |answers| answers[part]));
    Object::new()
        .with("key", &*row.key)
        .with("kind", if row.is_lock { "lock" } else { "limit" })
        .with("rate", &Duration::from_millis(row.rate_millis))
        .with("allowed", &row.allowed)
        .with("refused", &row.refused)
        .with("waiting", &row.waiting)
        .with("holders", &row.holders)
        .with("remaining", &row.remaining)
        .with("reset_after", &short(row.reset_after))
        .with("frozen", &short(row.frozen))
        .with("limit", &*row.limit)
        .with("points_allowed", &allowed.collect::<Vec<_>>())
        .with("points_refused", &refused.collect::<Vec<_>>())
}

/// The rows of each lock, in their order.
fn by_key(rows: &[LockRow]) -> BTreeMap<&str, Vec<&LockRow>> {
    let mut locks = BTreeMap::<_, Vec<_>>::new();
    for row in rows {
        locks.entry(&*row.key).or_default().push(row);
    }
    locks
}

fn lock(key: &str, rows: &[&LockRow]) -> Object {
    let (kind, size) = match rows.first().map(|row| row.mode.shape()) {
        Some(Shape::RwLock) => ("rw lock", 1),
        Some(Shape::Semaphore(size)) => ("semaphore", size.permits()),
        Some(Shape::Lock) | None => ("lock", 1),
    };
    let (holders, waiters): (Vec<&LockRow>, Vec<&LockRow>) =
        rows.iter().partition(|row| row.grant.is_some());
    let some = |rows: &[&LockRow]| -> Vec<Object> {
        rows.iter().take(SHOWN_OF_A_LOCK).map(|row| party(row)).collect()
    };
    Object::new()
        .with("key", key)
        .with("kind", kind)
        .with("size", &size)
        .with("holders", &some(&holders))
        .with("holder_count", &holders.len())
        .with("waiters", &some(&waiters))
        .with("waiter_count", &waiters.len())
}

/// One who holds a lock, or waits for it.
fn party(row: &LockRow) -> Object {
    let (mode, permits) = match row.mode {
        Mode::Exclusive => ("", 1),
        Mode::Read => ("read", 1),
        Mode::Write => ("write", 1),
        Mode::Permits { cost, .. } => ("permits", cost.permits()),
    };
    who(&row.client)
        .with("mode", mode)
        .with("permits", &permits)
        .with("token", &row.grant.map(|grant| grant.0.to_string()))
        .with("since", &short(row.since))
        .with("left", &short(row.left))
}

fn client(row: &ClientRow) -> Object {
    who(&row.client)
        .with("address", &*row.address)
        .with("since", &short(row.since))
        .with("silent", &short(row.silent))
        .with("leases", &row.leases)
        .with("waiting", &row.waiting)
}

fn who(client: &ClientInfo) -> Object {
    Object::new().with("name", &*client.name).with("host", &*client.host).with("pid", &client.pid)
}

fn event(seen: &Observation, news: &News) -> Object {
    Object::new()
        .with("ago", &short(seen.at.since(news.at)))
        .with("kind", news.kind)
        .with("text", &news.text)
}

/// To the millisecond: nobody is shown more.
const fn short(length: Duration) -> Duration {
    #[allow(clippy::cast_possible_truncation, reason = "584 million years")]
    Duration::from_millis(length.as_millis() as u64)
}
