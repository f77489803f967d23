//! What servers say of themselves, as bytes. `docs/protocol.md` is the law.

use std::time::Duration;

use crate::config::URL_BYTES_MAX;
use crate::engine::{
    ClientInfo, ClientPage, ClientRow, KeyPage, KeyRow, Request, ServerFacts, ServerStatus, Tally,
};
use crate::wire::item::{Fault, Fields};
use crate::wire::lock::write_number_or_nil;
use crate::wire::message_pack::{write_boolean, write_nanos, write_nil, write_number, write_text};
use crate::wire::request::NAME_BYTES_MAX;

/// How many elements of an item a status takes.
pub(super) const STATUS_COUNT: usize = 17;

/// How many elements a row of keys takes, and one of clients.
const KEY_COUNT: usize = 11;
const CLIENT_COUNT: usize = 8;

pub(super) fn write_status(out: &mut Vec<u8>, status: &ServerStatus) {
    let ServerStatus { facts, grace, tally } = status;
    write_text(out, cut(&facts.version, NAME_BYTES_MAX));
    write_text(out, cut(&facts.endpoint, URL_BYTES_MAX));
    write_number(out, facts.server);
    write_nanos(out, facts.uptime);
    write_text(out, cut(&facts.security, NAME_BYTES_MAX));
    write_boolean(out, facts.is_durable);
    write_nanos(out, *grace);
    write_number(out, tally.allowed);
    write_number(out, tally.refused);
    write_number(out, tally.problems);
    write_number(out, tally.bounds_hit);
    write_number(out, facts.bad_messages);
    for present in [tally.waiting, tally.keys, tally.leases, tally.sessions] {
        write_number(out, present as u64);
    }
    match facts.reaches_registry {
        Some(reached) => write_boolean(out, reached),
        None => write_nil(out),
    }
}

/// Reads a status. A later version may say more in it.
pub(super) fn status(fields: &mut Fields<'_>) -> Result<ServerStatus, Fault> {
    let version = fields.text("version", NAME_BYTES_MAX)?.into();
    let endpoint = fields.text("endpoint", URL_BYTES_MAX)?.into();
    let server = fields.number("server")?;
    let uptime = nanos(fields, "uptime")?;
    let security = fields.text("security", NAME_BYTES_MAX)?.into();
    let is_durable = fields.boolean("durable")?;
    let grace = nanos(fields, "grace")?;
    let [allowed, refused] = [fields.number("allowed")?, fields.number("refused")?];
    let [problems, bounds_hit] = [fields.number("problems")?, fields.number("bounds_hit")?];
    let bad_messages = fields.number("bad_messages")?;
    let mut present =
        |name: &str| Ok::<_, Fault>(usize::try_from(fields.number(name)?).unwrap_or(usize::MAX));
    let tally = Tally {
        allowed,
        refused,
        problems,
        bounds_hit,
        waiting: present("waiting")?,
        keys: present("keys")?,
        leases: present("leases")?,
        sessions: present("sessions")?,
    };
    // Not every server says so.
    let reaches_registry =
        if fields.left() > 0 { fields.boolean_or_nil("registry")? } else { None };
    fields.skip()?;
    let facts = ServerFacts {
        version,
        endpoint,
        server,
        uptime,
        security,
        is_durable,
        reaches_registry,
        bad_messages,
    };
    Ok(ServerStatus { facts, grace, tally })
}

/// How many elements of an item a page of keys takes.
pub(super) fn count_of_keys(page: &KeyPage) -> usize {
    1 + page.rows.len() * KEY_COUNT
}

pub(super) fn write_keys(out: &mut Vec<u8>, page: &KeyPage) {
    write_number_or_nil(out, page.next);
    for row in &page.rows {
        write_text(out, &row.key);
        write_boolean(out, row.is_lock);
        write_number(out, row.rate_millis);
        write_number(out, row.allowed);
        write_number(out, row.refused);
        write_number(out, row.waiting);
        write_number(out, row.holders);
        write_number(out, row.remaining);
        write_nanos(out, row.reset_after);
        write_nanos(out, row.frozen);
        write_text(out, cut(&row.limit, Request::LIMIT_BYTES_MAX));
    }
}

/// Reads a page of keys, up to the end of the item.
pub(super) fn keys(fields: &mut Fields<'_>) -> Result<KeyPage, Fault> {
    let mut page = KeyPage { rows: Vec::new(), next: fields.number_or_nil("next")? };
    while fields.left() > 0 {
        page.rows.push(KeyRow {
            key: fields.key()?.as_str().into(),
            is_lock: fields.boolean("lock")?,
            rate_millis: fields.number("rate")?,
            allowed: fields.number("allowed")?,
            refused: fields.number("refused")?,
            waiting: fields.number("waiting")?,
            holders: fields.number("holders")?,
            remaining: fields.number("remaining")?,
            reset_after: nanos(fields, "reset_after")?,
            frozen: nanos(fields, "frozen")?,
            limit: fields.text("limit", Request::LIMIT_BYTES_MAX)?.into(),
        });
    }
    Ok(page)
}

/// How many elements of an item a page of clients takes.
pub(super) fn count_of_clients(page: &ClientPage) -> usize {
    1 + page.rows.len() * CLIENT_COUNT
}

pub(super) fn write_clients(out: &mut Vec<u8>, page: &ClientPage) {
    write_number_or_nil(out, page.next);
    for row in &page.rows {
        write_text(out, &row.client.name);
        write_text(out, &row.client.host);
        write_number(out, row.client.pid.into());
        write_text(out, cut(&row.address, ClientRow::ADDRESS_BYTES_MAX));
        write_nanos(out, row.since);
        write_nanos(out, row.silent);
        write_number(out, row.leases);
        write_number(out, row.waiting);
    }
}

/// Reads a page of clients, up to the end of the item.
pub(super) fn clients(fields: &mut Fields<'_>) -> Result<ClientPage, Fault> {
    let mut page = ClientPage { rows: Vec::new(), next: fields.number_or_nil("next")? };
    while fields.left() > 0 {
        page.rows.push(ClientRow {
            session: None,
            client: ClientInfo {
                name: fields.text("name", NAME_BYTES_MAX)?.into(),
                host: fields.text("host", NAME_BYTES_MAX)?.into(),
                pid: u32::try_from(fields.number("pid")?).unwrap_or(u32::MAX),
            },
            address: fields.text("address", ClientRow::ADDRESS_BYTES_MAX)?.into(),
            since: nanos(fields, "since")?,
            silent: nanos(fields, "silent")?,
            leases: fields.number("leases")?,
            waiting: fields.number("waiting")?,
        });
    }
    Ok(page)
}

fn nanos(fields: &mut Fields<'_>, name: &str) -> Result<Duration, Fault> {
    fields.number(name).map(Duration::from_nanos)
}

/// As much of a text as may be written.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
