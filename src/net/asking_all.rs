//! Many requests of one call: sent as they fit together, answered part by part, in their order.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use crate::asking::{LinkId, RequestId};
use crate::conversation::Outcome;
use crate::engine::{Code, Problem, Reply, Request};
use crate::error::Error;
use crate::fallback::Policy;
use crate::net::client::{Client, Heard};
use crate::net::connections::Connections;
use crate::net::exchange::{Caller, Question};
use crate::net::judge::judge_reply;

/// How many requests of one call are under way at a time.
const UNDER_WAY_MAX: usize = 4096;

/// The requests of one call. Its caller makes something of the first answers while the server works
/// out the others.
#[derive(Debug)]
pub struct AskingAll<'a> {
    client: &'a Client,
    connections: &'a Connections,
    requests: &'a [Request<'a>],
    timeout: Option<Duration>,
    policy: &'a Policy,
    /// How many of the requests were asked, or need not be.
    asked: usize,
    /// How many of them are answered.
    answered: usize,
    /// How many there are of each part of those between, and its number if it was asked.
    under_way: VecDeque<(Option<RequestId>, usize)>,
}

impl<'a> AskingAll<'a> {
    pub(super) fn new(
        client: &'a Client,
        connections: &'a Connections,
        requests: &'a [Request<'a>],
        timeout: Option<Duration>,
        policy: &'a Policy,
    ) -> Self {
        let (asked, answered, under_way) = (0, 0, VecDeque::new());
        Self { client, connections, requests, timeout, policy, asked, answered, under_way }
    }

    /// Waits for the answers to the next requests, in their order; `None` after the last.
    ///
    /// # Errors
    ///
    /// As [`Client::acquire`], of the first request that has one.
    pub fn next_answers(
        &mut self,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Vec<Heard>>, Error> {
        self.ask()?;
        let Some((id, count)) = self.under_way.pop_front() else { return Ok(None) };
        let requests = &self.requests[self.answered..self.answered + count];
        self.answered += count;
        let outcome = match id {
            Some(id) => self.connections.finish(id, go_on)?,
            None => Outcome::Silence,
        };
        let heard: Result<Vec<_>, _> = match outcome {
            Outcome::Replies(link, replies) => {
                let again = self.ask_homes(requests, &replies)?;
                let heard = self.hear_all(requests, (link, replies), &again, go_on);
                self.connections.forget(again.into_iter().flatten());
                heard
            }
            outcome => requests.iter().map(|request| self.judge(request, &outcome)).collect(),
        };
        heard.map(Some)
    }

    /// Asks the homes of those keys of which the server is not home that was asked. The numbers.
    fn ask_homes(
        &self,
        requests: &[Request<'_>],
        replies: &[Reply],
    ) -> Result<Vec<Option<RequestId>>, Error> {
        let ask = |(request, reply): (&Request<'_>, &Reply)| {
            let Reply::Refuse(Problem { code: Code::NotHome, .. }) = reply else { return Ok(None) };
            let question = Question { request: Some(request), only: None, timeout: self.timeout };
            self.connections.begin(question, Caller::Thread(thread::current())).map(Some)
        };
        requests.iter().zip(replies).map(ask).collect()
    }

    /// What was heard of all, those that were asked again included.
    fn hear_all(
        &self,
        requests: &[Request<'_>],
        (link, replies): (LinkId, Vec<Reply>),
        again: &[Option<RequestId>],
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Heard>, Error> {
        let timeout = self.timeout.unwrap_or_default();
        let mut all = Vec::with_capacity(requests.len());
        for ((request, reply), again) in requests.iter().zip(replies).zip(again) {
            all.push(match again {
                None => judge_reply(request, timeout, link, reply)?,
                Some(id) => self.judge(request, &self.connections.finish(*id, go_on)?)?,
            });
        }
        Ok(all)
    }

    /// Asks as many of the requests as may be under way.
    fn ask(&mut self) -> Result<(), Error> {
        loop {
            let end = self.requests.len().min(self.answered + UNDER_WAY_MAX);
            let rest = &self.requests[self.asked..end];
            if rest.is_empty() {
                return Ok(());
            }
            let part = if self.is_by_policy() && !self.client.is_reachable()? {
                // The failure before has cost its time: this one costs none.
                (None, rest.len())
            } else if self.connections.knows_homes() {
                // Each goes to its home. What goes to one server goes in one message all the same.
                let question =
                    Question { request: rest.first(), only: None, timeout: self.timeout };
                let caller = Caller::Thread(thread::current());
                (Some(self.connections.begin(question, caller)?), 1)
            } else {
                let (id, count) = self.connections.begin_together(rest, self.timeout)?;
                (Some(id), count)
            };
            self.asked += part.1;
            self.under_way.push_back(part);
        }
    }

    fn judge(&self, request: &Request<'_>, outcome: &Outcome) -> Result<Heard, Error> {
        match self.client.judge(request, self.timeout, outcome.clone()) {
            Err(Error::Unavailable { .. }) if self.is_by_policy() => {
                Ok(self.client.fall_back(request, self.policy))
            }
            judged => judged,
        }
    }

    const fn is_by_policy(&self) -> bool {
        !matches!(self.policy, Policy::Raise)
    }
}

impl Drop for AskingAll<'_> {
    fn drop(&mut self) {
        if !self.under_way.is_empty() {
            self.connections.forget(self.under_way.iter().filter_map(|(id, _)| *id));
        }
    }
}
