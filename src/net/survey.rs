//! What a client sees of a server as a whole: all pages of what is answered in pages.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::engine::{ClientRow, KeyRow, LockRow, Reply, Request, ServerStatus};
use crate::error::Error;
use crate::net::Client;
use crate::wire::homes::HomeMap;

impl Client {
    /// What the server does and has done. The client's own timeout holds.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn server_status(&self, go_on: &mut dyn FnMut() -> bool) -> Result<ServerStatus, Error> {
        match self.ask(&Request::Status, None, self.timeout(), go_on)?.reply {
            Reply::Status(status) => Ok(*status),
            other => Err(Error::unexpected(&other)),
        }
    }

    /// Which server is home of which keys, as the server says; none if it shares them with no
    /// other. The client's own timeout holds.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn home_map(&self, go_on: &mut dyn FnMut() -> bool) -> Result<Option<HomeMap>, Error> {
        // It comes before any answer.
        self.server_status(go_on)?;
        Ok(self.connections()?.home_map())
    }

    /// The busiest keys, at most so many, the busiest first. The client's own timeout holds for
    /// each page.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn busy_keys(
        &self,
        most: usize,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<KeyRow>, Error> {
        let mut rows = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            match self.ask(&Request::Keys { from }, None, self.timeout(), go_on)?.reply {
                Reply::Keys(page) => {
                    rows.extend(page.rows);
                    next = page.next;
                }
                other => return Err(Error::unexpected(&other)),
            }
        }
        // Between two pages one may have fallen behind others, and be there twice.
        let mut seen = BTreeSet::new();
        rows.retain(|row| seen.insert((row.is_lock, row.key.clone())));
        // Each of several servers tells of its own keys.
        rows.sort_by_key(|row| Reverse(row.rate_millis));
        rows.truncate(most);
        Ok(rows)
    }

    /// The clients of the server, at most so many. The client's own timeout holds for each page.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn clients(
        &self,
        most: usize,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<ClientRow>, Error> {
        let mut rows = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next.filter(|_| rows.len() < most) {
            match self.ask(&Request::Clients { from }, None, self.timeout(), go_on)?.reply {
                Reply::Clients(page) => {
                    rows.extend(page.rows);
                    next = page.next;
                }
                other => return Err(Error::unexpected(&other)),
            }
        }
        rows.truncate(most);
        Ok(rows)
    }

    /// All who hold and wait for locks. The client's own timeout holds for each page.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn locks(&self, go_on: &mut dyn FnMut() -> bool) -> Result<Vec<LockRow>, Error> {
        self.some_locks(usize::MAX, go_on)
    }

    /// Those who hold and wait for locks, at most so many of them. The client's own timeout holds
    /// for each page.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn some_locks(
        &self,
        most: usize,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<LockRow>, Error> {
        let mut rows = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next.filter(|_| rows.len() < most) {
            match self.ask(&Request::Locks { from }, None, self.timeout(), go_on)?.reply {
                Reply::Locks(page) => {
                    rows.extend(page.rows);
                    next = page.next;
                }
                other => return Err(Error::unexpected(&other)),
            }
        }
        rows.truncate(most);
        Ok(rows)
    }
}
