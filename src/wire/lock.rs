//! What clients and servers say of locks, as bytes. `docs/protocol.md` is the law.

use std::time::Duration;

use smallvec::SmallVec;

use crate::engine::{
    ClientInfo, Cost, Demand, GrantId, Key, LockPage, LockRequest, LockRow, Locks, Mode, Term,
};
use crate::wire::item::{Fault, Fields};
use crate::wire::message_pack::{write_nanos, write_nil, write_number, write_text};
use crate::wire::request::NAME_BYTES_MAX;

/// The number of a mode.
mod mode {
    pub(super) const EXCLUSIVE: u64 = 0;
    pub(super) const READ: u64 = 1;
    pub(super) const WRITE: u64 = 2;
    pub(super) const PERMITS: u64 = 3;
}

/// How many elements of an item a wish for locks takes.
pub(super) fn count_of(wanted: &LockRequest<'_>) -> usize {
    3 + wanted.locks.parts().iter().map(|(_, mode)| 1 + mode_count(*mode)).sum::<usize>()
}

pub(super) fn write_wanted(out: &mut Vec<u8>, wanted: &LockRequest<'_>) {
    write_nanos(out, wanted.term.ttl);
    match wanted.term.max_hold {
        Some(length) => write_nanos(out, length),
        None => write_nil(out),
    }
    write_number(out, wanted.actor);
    for (key, mode) in wanted.locks.parts() {
        write_text(out, key.as_str());
        write_mode(out, *mode);
    }
}

/// Reads a wish for locks, up to the end of the item.
pub(super) fn wanted<'a>(fields: &mut Fields<'a>) -> Result<LockRequest<'a>, Fault> {
    let ttl = Duration::from_nanos(fields.number("ttl")?);
    let max_hold = fields.number_or_nil("max_hold")?.map(Duration::from_nanos);
    let term = Term::new(ttl, max_hold)?;
    let actor = fields.number("actor")?;
    let mut parts = SmallVec::<[(Key<'a>, Mode); 4]>::new();
    // One too many is enough to be told so.
    while fields.left() > 0 && parts.len() <= Demand::KEYS_MAX {
        parts.push((fields.key()?, read_mode(fields)?));
    }
    Ok(LockRequest { locks: Locks::new(parts)?, term, actor })
}

/// How many elements of an item a page takes.
pub(super) fn count_of_page(page: &LockPage) -> usize {
    1 + page.rows.iter().map(|row| 7 + mode_count(row.mode)).sum::<usize>()
}

pub(super) fn write_page(out: &mut Vec<u8>, page: &LockPage) {
    write_number_or_nil(out, page.next);
    for row in &page.rows {
        write_text(out, &row.key);
        write_mode(out, row.mode);
        write_number_or_nil(out, row.grant.map(|grant| grant.0));
        write_nanos(out, row.since);
        write_nanos(out, row.left);
        write_text(out, &row.client.name);
        write_text(out, &row.client.host);
        write_number(out, row.client.pid.into());
    }
}

/// Reads a page, up to the end of the item.
pub(super) fn page(fields: &mut Fields<'_>) -> Result<LockPage, Fault> {
    let mut page = LockPage { rows: Vec::new(), next: fields.number_or_nil("next")? };
    while fields.left() > 0 {
        page.rows.push(LockRow {
            key: fields.key()?.as_str().into(),
            mode: read_mode(fields)?,
            grant: fields.number_or_nil("grant")?.map(GrantId),
            since: Duration::from_nanos(fields.number("since")?),
            left: Duration::from_nanos(fields.number("left")?),
            session: None,
            client: ClientInfo {
                name: fields.text("name", NAME_BYTES_MAX)?.into(),
                host: fields.text("host", NAME_BYTES_MAX)?.into(),
                pid: u32::try_from(fields.number("pid")?).unwrap_or(u32::MAX),
            },
        });
    }
    Ok(page)
}

pub(super) fn write_number_or_nil(out: &mut Vec<u8>, number: Option<u64>) {
    match number {
        Some(number) => write_number(out, number),
        None => write_nil(out),
    }
}

const fn mode_count(mode: Mode) -> usize {
    match mode {
        Mode::Exclusive | Mode::Read | Mode::Write => 1,
        Mode::Permits { .. } => 3,
    }
}

fn write_mode(out: &mut Vec<u8>, mode: Mode) {
    match mode {
        Mode::Exclusive => write_number(out, mode::EXCLUSIVE),
        Mode::Read => write_number(out, mode::READ),
        Mode::Write => write_number(out, mode::WRITE),
        Mode::Permits { size, cost } => {
            write_number(out, mode::PERMITS);
            write_number(out, size.permits());
            write_number(out, cost.permits());
        }
    }
}

fn read_mode(fields: &mut Fields<'_>) -> Result<Mode, Fault> {
    Ok(match fields.number("mode")? {
        mode::EXCLUSIVE => Mode::Exclusive,
        mode::READ => Mode::Read,
        mode::WRITE => Mode::Write,
        mode::PERMITS => {
            let (size, cost): (Cost, Cost) = (fields.cost("size")?, fields.cost("cost")?);
            Mode::Permits { size, cost }
        }
        other => return Err(Fault::protocol(format!("mode must be from 0 to 3, not {other}"))),
    })
}
