//! The seed's requests to a server that is not home of their key: they are asked on, and the
//! answer is passed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mio::Interest;
use mio::unix::SourceFd;

use crate::answer::Answer;
use crate::asking::RequestId;
use crate::cluster::Partition;
use crate::config::{ClientConfig, Url};
use crate::conversation::Outcome;
use crate::engine::{Code, Input, Key, Problem, Reply};
use crate::error::Error;
use crate::net::borrowing::Borrowing;
use crate::net::client::Client;
use crate::net::service::{FORWARD, SEED_REQUEST, Service};
use crate::time::{Clock, Timestamp};
use crate::wire::seed::Envelope;

/// How many may wait for an answer from elsewhere.
const WAITING_MAX: usize = 10_000;

/// How long an answer from elsewhere may take, beside the patience of the server there.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// When what could not be asked is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// How often it is looked for answers at least, should the system not tell of them.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What is said to whoever asked.
type Passed = Result<Answer, Problem>;

/// Asks other servers what the seed's clients have asked here.
#[derive(Default)]
pub(super) struct Forwarder {
    /// Who is asked, and how.
    home: Option<(Box<str>, Arc<Client>)>,
    borrowing: Borrowing,
    /// What was asked, by whom, and until when it is asked again.
    asked: BTreeMap<RequestId, (Envelope, Timestamp)>,
    /// What is still to be asked.
    waiting: Vec<(Envelope, Timestamp)>,
    /// Before that nothing is asked: whoever was asked last is not the home.
    paused_until: Timestamp,
}

impl Forwarder {
    pub(super) fn poll_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        let waits = (!self.waiting.is_empty()).then(|| self.paused_until.max(now + PAUSE / 4));
        let client = self.home.as_ref().filter(|_| self.awaits());
        let looks = client.map(|(_, client)| {
            now + client.poll_timeout().map_or(LOOK_INTERVAL, |due| due.min(LOOK_INTERVAL))
        });
        waits.into_iter().chain(looks).chain(self.borrowing.poll_timeout()).min()
    }

    /// Whether somebody is still to be answered.
    pub(super) fn owes(&self) -> bool {
        !self.asked.is_empty() || !self.waiting.is_empty()
    }

    /// Whether something may come from elsewhere.
    fn awaits(&self) -> bool {
        !self.asked.is_empty() || self.borrowing.poll_timeout().is_some()
    }

    /// Has the home at this URL be asked from now on.
    fn turn_to(&mut self, url: &str, registry: &mio::Registry) -> Result<(), Error> {
        if self.home.as_ref().is_some_and(|(known, _)| **known == *url) {
            return Ok(());
        }
        // What was asked of another one is asked again.
        self.waiting.extend(std::mem::take(&mut self.asked).into_values());
        let client = Client::new(ClientConfig::new(vec![Url::parse(url)?], None)?)?;
        let descriptor = client.descriptor()?;
        registry
            .register(&mut SourceFd(&descriptor), FORWARD, Interest::READABLE)
            .map_err(|error| Error::system("watch a socket", &error))?;
        self.borrowing.end();
        self.home = Some((url.into(), Arc::new(client)));
        Ok(())
    }

    /// What was answered meanwhile, to whom.
    fn collect(&mut self, now: Timestamp) -> Result<Vec<(Envelope, Passed)>, Error> {
        let mut passed = Vec::new();
        let Some((_, client)) = self.home.as_ref().filter(|_| self.awaits()) else {
            return Ok(passed);
        };
        let outcomes = client.collect()?;
        client.settle(outcomes.iter().map(|(id, _)| *id));
        for (id, outcome) in outcomes {
            let Some((to, until)) = self.asked.remove(&id) else { continue };
            match outcome {
                Outcome::Reply(_, Reply::Decision(decision)) => {
                    let answer = if decision.allowed { Answer::Go } else { Answer::Sorry };
                    passed.push((to, Ok(answer)));
                }
                Outcome::Reply(_, Reply::Refuse(problem)) if problem.code != Code::NotHome => {
                    passed.push((to, Err(problem)));
                }
                _ if until <= now => passed.push((to, Err(nobody()))),
                _ => {
                    self.paused_until = now + PAUSE;
                    self.waiting.push((to, until));
                }
            }
        }
        Ok(passed)
    }
}

impl Service {
    /// One permit for one of the seed's clients, from here or from elsewhere.
    pub(super) fn next(&mut self, now: Timestamp, envelope: Envelope) {
        if self.is_home_of_seed(now) {
            self.handle(now, Input::Next(envelope));
        } else {
            self.forward(now, envelope);
        }
    }

    /// A request of one of the seed's clients for a key of which another server is home.
    pub(super) fn forward(&mut self, now: Timestamp, to: Envelope) {
        let until = now + self.machine.patience() + ANSWER_TIME;
        let is_secured = self.guard.is_some();
        let Some(homes) = &mut self.homes else { return };
        let forwarder = &mut homes.forwarder;
        if is_secured || forwarder.waiting.len() + forwarder.asked.len() >= WAITING_MAX {
            self.outbox.push((to, Err(nobody())));
        } else {
            homes.counts.forwarded += 1;
            forwarder.waiting.push((to, until));
        }
    }

    /// Tells all who are not answered yet that they will not be.
    pub(super) fn end_forwarding(&mut self) {
        let Some(homes) = &mut self.homes else { return };
        let asked = std::mem::take(&mut homes.forwarder.asked).into_values();
        let waiting = std::mem::take(&mut homes.forwarder.waiting);
        self.outbox.extend(asked.chain(waiting).map(|(to, _)| (to, Err(nobody()))));
    }

    /// Passes answers on, and asks what is still to be asked.
    pub(super) fn forward_on(&mut self) -> Result<(), Error> {
        let now = self.clock.now();
        let Some(homes) = &mut self.homes else { return Ok(()) };
        let forwarder = &mut homes.forwarder;
        self.outbox.extend(forwarder.collect(now)?);
        forwarder.borrowing.count(now, forwarder.home.as_ref().map(|(_, client)| client))?;
        if homes.forwarder.waiting.is_empty() || now < homes.forwarder.paused_until {
            return Ok(());
        }
        if self.is_home_of_seed(now) {
            let Some(homes) = &mut self.homes else { return Ok(()) };
            for (to, _) in std::mem::take(&mut homes.forwarder.waiting) {
                self.handle(now, Input::Next(to));
            }
            return Ok(());
        }
        let Some(homes) = &mut self.homes else { return Ok(()) };
        let home = homes.map.home_of(Partition::of(Key::DEFAULT));
        let Some(home) = home.filter(|home| *home.name != *homes.name.as_str()) else {
            let forwarder = &mut homes.forwarder;
            let over = forwarder.waiting.extract_if(.., |(_, until)| *until <= now);
            self.outbox.extend(over.map(|(to, _)| (to, Err(nobody()))));
            return Ok(());
        };
        homes.forwarder.turn_to(&home.url, self.poll.registry())?;
        let Forwarder { home, borrowing, asked, waiting, .. } = &mut homes.forwarder;
        let Some((_, client)) = home else { return Ok(()) };
        for (to, until) in waiting.drain(..) {
            if let Some(answer) = borrowing.answer(self.machine.patience())? {
                homes.counts.borrowed += 1;
                self.outbox.push((to, Ok(answer)));
                continue;
            }
            let id = client.begin(&SEED_REQUEST, None, Some(until.since(now)))?;
            asked.insert(id, (to, until));
        }
        client.look()
    }
}

/// The answer where no server has one.
fn nobody() -> Problem {
    let message = "no server is home of the key \"default\" at present, or it cannot be asked from \
                   here: ask again, or its home itself";
    Problem { code: Code::NotHome, message: message.to_owned() }
}
