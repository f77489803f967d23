//! What a session was answered, by the numbers of its requests.

use std::collections::VecDeque;

use crate::engine::grant::Charges;
use crate::engine::request::{Reply, RequestId};
use crate::engine::waiters::WaiterId;

/// What became of a request.
#[derive(Debug)]
pub(super) enum Asked {
    Waiting(WaiterId),
    /// With what was taken for good.
    Answered(Reply, Charges),
    /// Nobody wants the answer, should the request still come.
    Cancelled,
}

impl Asked {
    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting(_))
    }
}

/// The requests of a session, in the order of their numbers. Those rise, so that nearly all are
/// added at the end, and those that are done with are dropped at the start.
#[derive(Debug, Default)]
pub(super) struct Requests(VecDeque<(RequestId, Asked)>);

/// So much room is kept when nothing is left; more is given back.
const ROOM_KEPT: usize = 256;

impl Requests {
    fn find(&self, id: RequestId) -> Result<usize, usize> {
        match self.0.back() {
            Some((last, _)) if id <= *last => self.0.binary_search_by_key(&id, |(id, _)| *id),
            _ => Err(self.0.len()),
        }
    }

    /// Puts a request on record; what was on record of it.
    pub(super) fn insert(&mut self, id: RequestId, asked: Asked) -> Option<Asked> {
        match self.find(id) {
            Ok(place) => Some(std::mem::replace(&mut self.0[place].1, asked)),
            Err(place) => {
                self.0.insert(place, (id, asked));
                None
            }
        }
    }

    pub(super) fn remove(&mut self, id: RequestId) -> Option<Asked> {
        let place = self.find(id).ok()?;
        self.0.remove(place).map(|(_, asked)| asked)
    }

    /// Drops what is below `floor`, but for what is `open` or waits: a client that waits for an
    /// answer does not say that it has it.
    pub(super) fn drop_below(&mut self, floor: RequestId, open: &[RequestId]) {
        let end = self.0.partition_point(|(id, _)| *id < floor);
        let stays = |(id, asked): &(RequestId, Asked)| {
            matches!(asked, Asked::Waiting(_)) || open.binary_search(id).is_ok()
        };
        let stay: Vec<_> = self.0.drain(..end).filter(stays).collect();
        stay.into_iter().rev().for_each(|entry| self.0.push_front(entry));
        if self.0.is_empty() && self.0.capacity() > ROOM_KEPT {
            self.0.shrink_to(ROOM_KEPT);
        }
    }

    pub(super) fn get(&self, id: RequestId) -> Option<&Asked> {
        self.find(id).ok().map(|place| &self.0[place].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(RequestId, Asked)> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut (RequestId, Asked)> {
        self.0.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
