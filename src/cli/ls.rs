//! `zmqlocker ls`: who holds locks, and who waits for them.

use std::collections::BTreeMap;

use clap::Args;

use crate::cli::client::ClientOptions;
use crate::cli::json::Object;
use crate::cli::table::{fitting, short};
use crate::cli::{Failure, Status};
use crate::engine::{LockRow, Mode, Shape};

/// Show who holds locks, and who waits for them in which order.
#[derive(Args, Debug)]
#[command(
    after_help = "SINCE is how long a lock is held or waited for. LEFT is in how long it is free \
                  if nothing more is heard of its holder, or its waiter gives up.\n\n\
                  Example: zmqlocker ls --json | jq -r '.[].key'\n\n\
                  Exit status: 0 shown, 2 wrong usage, 3 no server or another failure."
)]
pub(super) struct Ls {
    #[command(flatten)]
    options: ClientOptions,
}

impl Ls {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let client = self.options.client()?;
        let locks = by_key(client.locks(&mut || true)?);
        self.options.print(&list(&locks), &table(&locks))?;
        Ok(Status::Done)
    }
}

/// The rows of each lock: its holders, and then who waits, in their order.
pub(super) type Locks = BTreeMap<Box<str>, Vec<LockRow>>;

pub(super) fn by_key(rows: Vec<LockRow>) -> Locks {
    let mut locks = Locks::new();
    for row in rows {
        locks.entry(row.key.clone()).or_default().push(row);
    }
    for rows in locks.values_mut() {
        // Somebody may have been served between two pages. The order of the others stays.
        rows.sort_by_key(|row| row.grant.is_none());
    }
    locks
}

/// The locks for people.
pub(super) fn table(locks: &Locks) -> String {
    if locks.is_empty() {
        return "nobody holds a lock\n".to_owned();
    }
    let header = ["STATE", "SINCE", "LEFT", "TOKEN", "WHO"].map(str::to_owned);
    let lines: Vec<[String; 5]> = locks.values().flatten().map(cells).collect();
    let width = |column: usize| lines.iter().chain([&header]).map(|line| line[column].len()).max();
    let [a, b, c, d] = [0, 1, 2, 3].map(|column| width(column).unwrap_or(0));
    let line = |[state, since, left, token, who]: &[String; 5]| {
        fitting(&format!("  {state:a$}  {since:>b$}  {left:>c$}  {token:>d$}  {who}"))
    };
    let mut text = line(&header);
    let mut rest = lines.iter();
    for (key, rows) in locks {
        let kind = rows.first().map_or_else(String::new, |row| kind(row.mode.shape()));
        text += &fitting(&format!("{key}: {kind}"));
        text.extend(rest.by_ref().take(rows.len()).map(line));
    }
    text
}

/// What a line tells of a holder or waiter.
fn cells(row: &LockRow) -> [String; 5] {
    let verb = if row.grant.is_some() { "holds" } else { "waits" };
    let state = match row.mode {
        Mode::Exclusive => verb.to_owned(),
        Mode::Read => format!("{verb} read"),
        Mode::Write => format!("{verb} write"),
        Mode::Permits { cost, .. } => format!("{verb} {}", cost.permits()),
    };
    let token = row.grant.map_or_else(|| "-".to_owned(), |grant| grant.0.to_string());
    let (name, pid, host) = (&row.client.name, row.client.pid, &row.client.host);
    let who =
        if name.is_empty() { format!("{pid} {host}") } else { format!("{name} {pid} {host}") };
    [state, short(row.since), short(row.left), token, who]
}

pub(super) fn kind(shape: Shape) -> String {
    match shape {
        Shape::Lock => "lock".to_owned(),
        Shape::RwLock => "rw lock".to_owned(),
        Shape::Semaphore(size) => format!("semaphore of {}", size.permits()),
    }
}

/// The locks for programs, with the names of the Python package.
pub(super) fn list(locks: &Locks) -> Vec<Object> {
    let lock = |key: &str, rows: &[LockRow]| {
        let (kind, size) = match rows.first().map_or(Shape::Lock, |row| row.mode.shape()) {
            Shape::Lock => ("lock", 1),
            Shape::RwLock => ("rw_lock", 1),
            Shape::Semaphore(size) => ("semaphore", size.permits()),
        };
        let (holders, waiters): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.grant.is_some());
        let entries = |rows: Vec<&LockRow>| rows.into_iter().map(entry).collect::<Vec<_>>();
        Object::new()
            .with("key", key)
            .with("kind", kind)
            .with("size", &size)
            .with("holders", &entries(holders))
            .with("waiters", &entries(waiters))
    };
    locks.iter().map(|(key, rows)| lock(key, rows)).collect()
}

/// A holder or waiter.
fn entry(row: &LockRow) -> Object {
    let (mode, permits) = match row.mode {
        Mode::Exclusive => ("exclusive", 1),
        Mode::Read => ("read", 1),
        Mode::Write => ("write", 1),
        Mode::Permits { cost, .. } => ("permits", cost.permits()),
    };
    let mut entry = Object::new()
        .with("name", &*row.client.name)
        .with("host", &*row.client.host)
        .with("pid", &row.client.pid);
    if let Some(grant) = row.grant {
        entry.add("token", &grant.0);
    }
    let left = if row.grant.is_some() { "ttl_left" } else { "timeout_left" };
    entry
        .with("mode", mode)
        .with("permits", &permits)
        .with("since", &row.since)
        .with(left, &row.left)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::json::document;
    use crate::cli::table::COLUMNS;
    use crate::engine::{ClientInfo, Cost, GrantId};

    fn row(key: &str, mode: Mode, grant: Option<u64>, times: [u64; 2], name: &str) -> LockRow {
        let [since, left] = times.map(Duration::from_millis);
        let client = ClientInfo { name: name.into(), host: "db1.example.org".into(), pid: 4711 };
        let grant = grant.map(GrantId);
        LockRow { key: key.into(), mode, grant, since, left, session: None, client }
    }

    fn locks() -> Locks {
        let [two, four] = [2, 4].map(|number| Cost::new(number).unwrap());
        let permits = Mode::Permits { size: four, cost: two };
        by_key(vec![
            row("table", Mode::Write, None, [59_940, 1_000_000_000_000], "\u{1b}[2J"),
            row("invoice:42", Mode::Exclusive, Some(3 << 61), [3_725_000, 700], "nightly"),
            row("invoice:42", Mode::Exclusive, None, [59_960, 9_600], "a \"quoted\" name"),
            row("invoice:42", Mode::Exclusive, None, [49, 172_800_000], ""),
            row("gpu", permits, Some(7), [0, 800], &"long".repeat(20)),
            row("table", Mode::Read, Some(8), [1_000, 800], "reader"),
        ])
    }

    #[test]
    fn the_table_fits_and_shows_holders_before_those_who_wait() {
        let expected = "  \
  STATE        SINCE  LEFT                TOKEN  WHO
gpu: semaphore of 4
  holds 2       0.0s  0.8s                    7  longlonglonglonglonglonglonglo…
invoice:42: lock
  holds        1h02m  0.7s  6917529027641081856  nightly 4711 db1.example.org
  waits        1m00s  9.6s                    -  a \"quoted\" name 4711 db1.examp…
  waits         0.0s    2d                    -  4711 db1.example.org
table: rw lock
  holds read    1.0s  0.8s                    8  reader 4711 db1.example.org
  waits write  59.9s     -                    -  \u{fffd}[2J 4711 db1.example.org
";
        assert_eq!(table(&locks()), expected);
        assert!(expected.lines().all(|line| line.chars().count() <= COLUMNS));
        assert_eq!(table(&Locks::new()), "nobody holds a lock\n");
    }

    #[test]
    fn the_document_has_the_names_of_the_python_package() {
        let mut locks = locks();
        locks.remove("table");
        locks.remove("gpu");
        let expected = concat!(
            r#"[{"key": "invoice:42", "kind": "lock", "size": 1, "#,
            r#""holders": [{"name": "nightly", "host": "db1.example.org", "pid": 4711, "#,
            r#""token": 6917529027641081856, "mode": "exclusive", "permits": 1, "#,
            r#""since": 3725, "ttl_left": 0.7}], "#,
            r#""waiters": [{"name": "a \"quoted\" name", "host": "db1.example.org", "#,
            r#""pid": 4711, "mode": "exclusive", "permits": 1, "#,
            r#""since": 59.96, "timeout_left": 9.6}, "#,
            r#"{"name": "", "host": "db1.example.org", "#,
            r#""pid": 4711, "mode": "exclusive", "permits": 1, "#,
            r#""since": 0.049, "timeout_left": 172800}]}]"#
        );
        assert_eq!(document(&list(&locks)), expected);
        assert_eq!(document(&list(&Locks::new())), "[]");
    }
}
