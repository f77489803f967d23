//! Looks at what servers tell of keys, locks and clients: where several share the keys, at one
//! after the other.
//!
//! Whoever looks asks for pages until there are no more. The place of the server is part of where a
//! page begins.

use std::time::Duration;

use crate::asking::{LinkId, RequestId};
use crate::conversation::question::Question;
use crate::conversation::{Conversation, Outcome};
use crate::engine::{ClientPage, KeyPage, LockPage, Reply, Request};
use crate::time::Timestamp;

/// Above these bits of where a page begins is the place of its server.
const PLACE_SHIFT: u32 = 56;

/// How often it is looked whether a server that is not there is one of them still.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A page that is asked for: of which server, and what there is of one that is gone.
#[derive(Debug)]
pub(super) struct Look {
    place: usize,
    nothing: Reply,
}

impl Conversation {
    /// Starts a look at a page, if it is one and there are several servers.
    pub(super) fn look(
        &mut self,
        now: Timestamp,
        request: &Request<'_>,
        deadline: Option<Timestamp>,
    ) -> Option<RequestId> {
        let map = self.homes.map.as_ref()?;
        let (begin, nothing) = match request {
            Request::Locks { from } => (*from, Reply::Locks(LockPage::default())),
            Request::Keys { from } => (*from, Reply::Keys(KeyPage::default())),
            Request::Clients { from } => (*from, Reply::Clients(ClientPage::default())),
            _ => return None,
        };
        let place = usize::try_from(begin >> PLACE_SHIFT).ok()?;
        let server = map.servers.get(place).cloned();
        // There were more servers when the page before was asked for: nobody has one beyond all.
        let from = if server.is_some() { begin & ((1 << PLACE_SHIFT) - 1) } else { u64::MAX };
        let request = match request {
            Request::Locks { .. } => Request::Locks { from },
            Request::Keys { .. } => Request::Keys { from },
            _ => Request::Clients { from },
        };
        let link = server.and_then(|server| self.link_to(&server));
        let id = self.ask_whole(now, Some(&request), link, deadline);
        if let Some(question) = self.questions.get_mut(&id) {
            question.look = Some(Look { place, nothing });
        }
        if link.is_some_and(|link| !self.talks[link.0].is_up) {
            self.homes.retries.insert((now + LOOK_INTERVAL, id));
        }
        Some(id)
    }

    /// A page was asked for of a server that was not there.
    pub(super) fn look_again(&mut self, now: Timestamp, id: RequestId) {
        let is_down = |link: &LinkId| !self.talks[link.0].is_up;
        let Some(link) = self.asking.only(id).filter(is_down) else { return };
        if self.homes.is_bound(link) {
            // Whoever is there tells which servers there are, if that has changed.
            if let Some(other) = self.talks.iter().position(|talk| talk.is_up).map(LinkId) {
                self.hello(now, other);
                self.say_beat(now, other);
            }
            self.homes.retries.insert((now + LOOK_INTERVAL, id));
            return;
        }
        self.asking.forget(id);
        if let Some(Question { look: Some(look), .. }) = self.end(id, None) {
            let nothing = self.page(Some(&look), look.nothing.clone());
            self.finish(now, id, Outcome::Reply(link, nothing));
        }
    }

    /// A page as whoever looks sees it: after the last one of a server comes the next server.
    pub(super) fn page(&self, look: Option<&Look>, reply: Reply) -> Reply {
        let Some(map) = &self.homes.map else { return reply };
        let begin = |place: usize| (place as u64) << PLACE_SHIFT;
        let next = |next: Option<u64>| match (look, next) {
            (Some(look), Some(from)) => Some(begin(look.place) | from),
            (Some(look), None) => {
                (look.place + 1 < map.servers.len()).then(|| begin(look.place + 1))
            }
            // Nobody knew that there are several: from the start.
            (None, _) => Some(0),
        };
        match reply {
            Reply::Locks(mut page) => {
                page.rows.retain(|_| look.is_some());
                Reply::Locks(LockPage { next: next(page.next), ..page })
            }
            Reply::Keys(mut page) => {
                page.rows.retain(|_| look.is_some());
                Reply::Keys(KeyPage { next: next(page.next), ..page })
            }
            Reply::Clients(mut page) => {
                page.rows.retain(|_| look.is_some());
                Reply::Clients(ClientPage { next: next(page.next), ..page })
            }
            other => other,
        }
    }
}
