//! Blocks over a client's connections: the permits of one key that are spent without asking.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::asking::RequestId;
use crate::conversation::Outcome;
use crate::engine::{Cost, Decision, Key, Reply, Request};
use crate::error::Error;
use crate::net::client::{Client, Granted, Heard};
use crate::net::clock::BootClock;
use crate::net::exchange::Mailbox;
use crate::spending::{Spending, Spent};
use crate::time::{Clock, Timestamp};

/// Permits of one key that a client has in advance. Threads may share it.
#[derive(Debug)]
pub struct Lender {
    client: Arc<Client>,
    key: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spending: Spending<Granted>,
    /// The block that was asked for ahead.
    ahead: Option<Ahead>,
}

#[derive(Debug)]
struct Ahead {
    request: RequestId,
    sent_at: Timestamp,
    mailbox: Mailbox,
}

/// Whether permits could be spent at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtOnce {
    /// They were.
    Yes,
    /// There are none.
    No(Decision),
    /// A server has to be asked for so many.
    Ask(Cost),
}

impl Lender {
    /// Spends permits of the key that `client` gets from its servers.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it is no key.
    pub fn new(client: Arc<Client>, key: &str) -> Result<Self, Error> {
        let key = Key::parse(key)?.as_str().to_owned();
        Ok(Self { client, key, state: Mutex::default() })
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How many permits may be spent without asking.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.lock().spending.left(BootClock.now())
    }

    /// Spends `cost` permits if that needs no wait.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the client is closed.
    pub fn spend(&self, cost: Cost) -> Result<AtOnce, Error> {
        let mut state = self.lock();
        let spent = self.spend_present(&mut state, cost)?;
        let AtOnce::Ask(_) = spent else { return Ok(spent) };
        self.take_in_ahead(&mut state)?;
        self.give_back_void(&mut state)?;
        self.spend_present(&mut state, cost)
    }

    /// The same, and a server that has to be asked is asked ahead: what it gives is here later.
    ///
    /// # Errors
    ///
    /// As [`Lender::spend`].
    pub fn spend_at_hand(&self, cost: Cost) -> Result<AtOnce, Error> {
        let mut state = self.lock();
        if state.ahead.as_ref().is_some_and(|ahead| ahead.mailbox.is_filled()) {
            self.end_ahead(&mut state);
        }
        self.give_back_void(&mut state)?;
        let spent = self.spend_present(&mut state, cost)?;
        if let AtOnce::Ask(wanted) = &spent
            && state.ahead.is_none()
        {
            self.ask_ahead(&mut state, wanted.permits())?;
        }
        Ok(spent)
    }

    /// Asks a server for a block of `wanted` permits and waits for its answer.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn refill(
        &self,
        wanted: Cost,
        timeout: Option<Duration>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), Error> {
        let sent_at = BootClock.now();
        let request = self.request(wanted)?;
        let heard = self.client.ask(&request, None, timeout, go_on)?;
        self.receive(sent_at, heard)
    }

    /// Takes in what a server answered to [`Lender::request`].
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] if it is no answer to that.
    pub fn receive(&self, sent_at: Timestamp, heard: Heard) -> Result<(), Error> {
        let granted = heard.granted();
        let Reply::Block(block) = heard.reply else {
            return Err(Error::unexpected(&heard.reply));
        };
        self.lock().spending.receive(BootClock.now(), sent_at, &block, granted);
        Ok(())
    }

    /// Gives back what was not spent.
    pub fn close(&self) {
        let mut state = self.lock();
        self.end_ahead(&mut state);
        for (granted, unused) in state.spending.take_all() {
            // A client that is closed has given everything back already.
            let _ = self.tell(granted, unused);
        }
        drop(state);
        let _ = self.client.look();
    }

    /// What asks a server for a block.
    ///
    /// # Errors
    ///
    /// None: the key was read before.
    pub fn request(&self, wanted: Cost) -> Result<Request<'_>, Error> {
        Ok(Request::Block { key: Key::parse(&self.key)?, wanted })
    }

    /// Spends out of what there is. Where much of it is gone, more is asked for ahead.
    fn spend_present(&self, state: &mut State, cost: Cost) -> Result<AtOnce, Error> {
        Ok(match state.spending.spend(BootClock.now(), cost.permits()) {
            Spent::Yes => AtOnce::Yes,
            Spent::AskAhead(wanted) => {
                self.ask_ahead(state, wanted)?;
                AtOnce::Yes
            }
            Spent::Refused(decision) => AtOnce::No(decision),
            Spent::Empty(wanted) => AtOnce::Ask(Cost::new(wanted.into())?),
        })
    }

    fn ask_ahead(&self, state: &mut State, wanted: u64) -> Result<(), Error> {
        let sent_at = BootClock.now();
        let request = self.request(Cost::new(wanted.into())?)?;
        let mailbox = Mailbox::default();
        let request = self.client.begin_for(&request, mailbox.clone())?;
        state.ahead = Some(Ahead { request, sent_at, mailbox });
        Ok(())
    }

    /// Takes in what was asked for ahead. If it has not come, it is not waited for.
    fn take_in_ahead(&self, state: &mut State) -> Result<(), Error> {
        if state.ahead.is_some() {
            self.client.look()?;
            self.end_ahead(state);
        }
        Ok(())
    }

    /// Nobody waits for what was asked for ahead any more: it is here, or it goes back.
    fn end_ahead(&self, state: &mut State) {
        let Some(ahead) = state.ahead.take() else { return };
        self.client.forget([ahead.request]);
        if let Some(Outcome::Reply(link, Reply::Block(block))) = ahead.mailbox.take() {
            let granted = block.grant.map(|grant| Granted::new(link, grant));
            state.spending.receive(BootClock.now(), ahead.sent_at, &block, granted);
        } else {
            state.spending.give_up_asking_ahead();
        }
    }

    fn give_back_void(&self, state: &mut State) -> Result<(), Error> {
        for (granted, unused) in state.spending.take_void() {
            self.tell(granted, unused)?;
        }
        Ok(())
    }

    fn tell(&self, granted: Granted, unused: u64) -> Result<(), Error> {
        let request = Request::GiveBack { grant: granted.grant(), unused };
        self.client.tell(&request, granted)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        self.close();
    }
}
