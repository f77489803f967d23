//! `zmqlocker status`: what a server does and has done.

use clap::Args;

use crate::cli::client::ClientOptions;
use crate::cli::json::Object;
use crate::cli::table::{Align, Table, fitting, short, shortened};
use crate::cli::{Failure, Status};
use crate::engine::{ClientRow, KeyRow, ServerStatus};
use crate::observe::counts;

/// How much of a name is shown where others stand beside it.
const NAME: usize = 24;

/// Show what a server does and has done, its busiest keys and its clients.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: zmqlocker status --keys 10 --clients 10

RATE is answered requests a second, over the last few seconds. UNUSED is in how long nothing of a \
key is counted any more. Permits that were lent in blocks count each.

Exit status: 0 shown, 2 wrong usage, 3 no server or another failure.")]
pub(super) struct Show {
    /// Show so many of the busiest keys too.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    keys: usize,
    /// Show so many of the clients too.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    clients: usize,
    #[command(flatten)]
    options: ClientOptions,
}

impl Show {
    pub(super) fn run(self) -> Result<Status, Failure> {
        let client = self.options.client()?;
        let status = client.server_status(&mut || true)?;
        let mut object = object(&status);
        let mut text = lines(&status);
        if self.keys > 0 {
            let rows = client.busy_keys(self.keys, &mut || true)?;
            object.add("busy_keys", &rows.iter().map(key).collect::<Vec<_>>());
            text += "\n";
            text += &key_table(&rows);
        }
        if self.clients > 0 {
            let rows = client.clients(self.clients, &mut || true)?;
            object.add("client_list", &rows.iter().map(client_object).collect::<Vec<_>>());
            text += "\n";
            text += &client_table(&rows);
        }
        self.options.print(&object, &text)?;
        Ok(Status::Done)
    }
}

pub(super) fn lines(status: &ServerStatus) -> String {
    let (facts, tally) = (&status.facts, &status.tally);
    let data = if facts.is_durable { "outlives the server" } else { "ends with the server" };
    let mut lines = vec![
        ("server", format!("zmqlocker {} at {}", facts.version, facts.endpoint)),
        ("up", short(facts.uptime)),
        ("security", facts.security.to_string()),
        ("data", data.to_owned()),
        ("allowed", tally.allowed.to_string()),
        ("refused", tally.refused.to_string()),
        ("problems", format!("{}, {} of them by a bound", tally.problems, tally.bounds_hit)),
        ("bad messages", facts.bad_messages.to_string()),
        ("waiting", tally.waiting.to_string()),
        ("keys", tally.keys.to_string()),
        ("leases", tally.leases.to_string()),
        ("clients", tally.sessions.to_string()),
    ];
    if let Some(reached) = facts.reaches_registry {
        let told = if reached { "reached" } else { "not joined or not reached: no grants" };
        lines.insert(4, ("registry", told.to_owned()));
    }
    if !status.grace.is_zero() {
        lines.insert(4, ("no locks for", short(status.grace)));
    }
    lines.iter().map(|(name, value)| fitting(&format!("{name:12}  {value}"))).collect()
}

/// The status for programs, with the names of the Python package.
pub(super) fn object(status: &ServerStatus) -> Object {
    let facts = &status.facts;
    let object = Object::new()
        .with("version", &*facts.version)
        .with("url", &*facts.endpoint)
        .with("run", &facts.server)
        .with("uptime", &facts.uptime)
        .with("security", &*facts.security)
        .with("durable", &facts.is_durable)
        .with("registry", &facts.reaches_registry)
        .with("grace", &status.grace);
    counts(object, status)
}

/// Requests a second, from thousandths.
#[allow(clippy::cast_precision_loss, reason = "no server answers 2^52 requests a second")]
pub(super) fn rate(row: &KeyRow) -> f64 {
    row.rate_millis as f64 / 1e3
}

pub(super) fn key_table(rows: &[KeyRow]) -> String {
    let header = ["KEY", "RATE", "ALLOWED", "REFUSED", "WAIT", "HELD", "LEFT", "UNUSED", "LIMIT"];
    let mut table = Table::new(header);
    for row in rows {
        let count = |number: u64| number.to_string();
        table.add([
            shortened(&row.key, NAME),
            format!("{:.1}", rate(row)),
            count(row.allowed),
            count(row.refused),
            count(row.waiting),
            count(row.holders),
            if row.is_lock { "-".to_owned() } else { count(row.remaining) },
            short(row.reset_after),
            row.limit.to_string(),
        ]);
    }
    let mut align = [Align::Right; 9];
    (align[0], align[8]) = (Align::Left, Align::Left);
    table.lines(align).concat()
}

pub(super) fn key(row: &KeyRow) -> Object {
    Object::new()
        .with("key", &*row.key)
        .with("kind", if row.is_lock { "lock" } else { "limit" })
        .with("rate", &rate(row))
        .with("allowed", &row.allowed)
        .with("refused", &row.refused)
        .with("waiting", &row.waiting)
        .with("holders", &row.holders)
        .with("remaining", &row.remaining)
        .with("reset_after", &row.reset_after)
        .with("frozen", &row.frozen)
        .with("limit", &*row.limit)
}

pub(super) fn client_table(rows: &[ClientRow]) -> String {
    let mut table = Table::new(["NAME", "PID", "SINCE", "SILENT", "HELD", "WAIT", "FROM"]);
    for row in rows {
        let place = if row.address.is_empty() {
            row.client.host.to_string()
        } else {
            format!("{} {}", row.address, row.client.host)
        };
        table.add([
            shortened(&row.client.name, NAME),
            row.client.pid.to_string(),
            short(row.since),
            short(row.silent),
            row.leases.to_string(),
            row.waiting.to_string(),
            place,
        ]);
    }
    let mut align = [Align::Right; 7];
    (align[0], align[6]) = (Align::Left, Align::Left);
    table.lines(align).concat()
}

pub(super) fn client_object(row: &ClientRow) -> Object {
    Object::new()
        .with("name", &*row.client.name)
        .with("host", &*row.client.host)
        .with("pid", &row.client.pid)
        .with("address", &Some(&*row.address).filter(|address| !address.is_empty()))
        .with("since", &row.since)
        .with("silent", &row.silent)
        .with("leases", &row.leases)
        .with("waiting", &row.waiting)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::json::document;
    use crate::cli::table::COLUMNS;
    use crate::engine::{ClientInfo, ServerFacts, Tally};

    fn status() -> ServerStatus {
        let facts = ServerFacts {
            version: "0.1.0".into(),
            endpoint: "tcp://127.0.0.1:7777".into(),
            server: 7,
            uptime: Duration::from_secs(3725),
            security: "none".into(),
            is_durable: true,
            reaches_registry: Some(false),
            bad_messages: 3,
        };
        let tally =
            Tally { allowed: 900, refused: 100, problems: 2, bounds_hit: 1, ..Tally::default() };
        ServerStatus { facts, grace: Duration::from_millis(700), tally }
    }

    #[test]
    fn a_status_reads_so() {
        assert_eq!(
            lines(&status()),
            "server        zmqlocker 0.1.0 at tcp://127.0.0.1:7777\n\
             up            1h02m\n\
             security      none\n\
             data          outlives the server\n\
             no locks for  0.7s\n\
             registry      not joined or not reached: no grants\n\
             allowed       900\n\
             refused       100\n\
             problems      2, 1 of them by a bound\n\
             bad messages  3\n\
             waiting       0\n\
             keys          0\n\
             leases        0\n\
             clients       0\n"
        );
        assert_eq!(
            document(&object(&status())),
            "{\"version\": \"0.1.0\", \"url\": \"tcp://127.0.0.1:7777\", \"run\": 7, \
             \"uptime\": 3725, \"security\": \"none\", \"durable\": true, \
             \"registry\": false, \"grace\": 0.7, \"allowed\": 900, \"refused\": 100, \
             \"problems\": 2, \"bounds_hit\": 1, \
             \"bad_messages\": 3, \"waiting\": 0, \"keys\": 0, \"leases\": 0, \"clients\": 0}"
        );
    }

    #[test]
    fn the_tables_fit() {
        let row = KeyRow {
            key: "tenant:".repeat(10).into(),
            is_lock: false,
            rate_millis: 12_345,
            allowed: 1_000_000_000,
            refused: 1_000_000,
            waiting: 100_000,
            holders: 20,
            remaining: 500,
            reset_after: Duration::from_secs(60),
            frozen: Duration::ZERO,
            limit: "500/min sliding".into(),
        };
        let table = key_table(&[row.clone(), KeyRow { key: "a".into(), ..row }]);
        let expected = "\
KEY                       RATE     ALLOWED  REFUSED    WAIT  HELD  LEFT  UNUSED…
tenant:tenant:tenant:te…  12.3  1000000000  1000000  100000    20   500   1m00s…
a                         12.3  1000000000  1000000  100000    20   500   1m00s…
";
        assert_eq!(table, expected);
        let row = ClientRow {
            session: None,
            client: ClientInfo { name: "worker-3".into(), host: "db1".into(), pid: 4711 },
            address: "10.0.0.7".into(),
            since: Duration::from_secs(90),
            silent: Duration::from_millis(200),
            leases: 2,
            waiting: 1,
        };
        let nameless =
            ClientRow { client: ClientInfo::default(), address: "".into(), ..row.clone() };
        let expected = "\
NAME       PID  SINCE  SILENT  HELD  WAIT  FROM
worker-3  4711  1m30s    0.2s     2     1  10.0.0.7 db1
             0  1m30s    0.2s     2     1
";
        assert_eq!(client_table(&[row, nameless]), expected);
        assert!(table.lines().all(|line| line.chars().count() <= COLUMNS));
    }
}
