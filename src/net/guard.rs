//! Who a server with a key lets in, and what each may ask for.

use std::collections::HashMap;
use std::sync::Arc;

use mio::{Registry, Token};

use crate::access::{Client, Clients, PublicKey};
use crate::config::{Security, Url};
use crate::engine::{Code, Problem, SessionId};
use crate::error::Error;
use crate::net::socket::{Socket, system};
use crate::wire::Frames;
use crate::wire::zap::{self, Question};

/// How many questions are answered before messages are looked at: whoever connects without an end
/// must not keep the others waiting.
const BATCH_MAX: usize = 64;

/// How many sessions there are before any is forgotten.
const TIDY_AT_MIN: usize = 1024;

/// How libzmq calls the server when it asks about a client.
const DOMAIN: &str = "zmqlocker";

/// And about another server.
const PEERS_DOMAIN: &str = "zmqlocker-peers";

/// Answers libzmq whether clients are let in, and knows them by the keys of their messages.
///
/// It lives in the thread that serves: a list that is taken up counts from the next message on, and
/// an answer costs little beside the handshake, which is the work of libzmq's own thread.
pub(super) struct Guard {
    socket: Socket,
    clients: Clients,
    /// The key of this server, and of all that count for each other with it.
    own: PublicKey,
    /// Whose a session is: nobody else may go on with it.
    owners: HashMap<SessionId, PublicKey>,
    /// With so many, those of sessions that are no more are forgotten.
    tidy_at: usize,
}

/// The client of a message.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) key: PublicKey,
    pub(super) client: Arc<Client>,
}

/// Gives the socket on which a server tells others what it grants the server's key: those are let
/// in that have the same.
pub(super) fn secure_publisher(socket: &zmq::Socket, security: &Security) -> zmq::Result<()> {
    socket.set_curve_server(true)?;
    socket.set_curve_secretkey(&security.keys.secret_bytes())?;
    socket.set_zap_domain(PEERS_DOMAIN)
}

/// Gives the socket on which it hears another one that key.
pub(super) fn secure_subscriber(socket: &zmq::Socket, security: &Security) -> zmq::Result<()> {
    let public = security.keys.public();
    socket.set_curve_serverkey(public.bytes())?;
    socket.set_curve_publickey(public.bytes())?;
    socket.set_curve_secretkey(&security.keys.secret_bytes())
}

impl Guard {
    /// Gives the server's socket its key, and binds a socket for the questions about clients.
    pub(super) fn open(
        context: &zmq::Context,
        server: &zmq::Socket,
        security: &Security,
    ) -> Result<Self, Error> {
        let secret = security.keys.secret_bytes();
        let set = || {
            server.set_curve_server(true)?;
            server.set_curve_secretkey(&secret)?;
            server.set_zap_domain(DOMAIN)
        };
        set().map_err(|error| system("give a socket its key", error))?;
        let socket = Socket::new(context, zmq::ROUTER)?;
        socket.options().set_linger(0).map_err(|error| system("open a socket", error))?;
        socket.bind(&Url::parse(zap::ENDPOINT)?)?;
        let (clients, own) = (security.clients.clone(), security.keys.public());
        Ok(Self { socket, clients, own, owners: HashMap::new(), tidy_at: TIDY_AT_MIN })
    }

    pub(super) fn register(&self, registry: &Registry, token: Token) -> Result<(), Error> {
        self.socket.register(registry, token)
    }

    /// Answers questions about clients, and tells who is not let in. Whether there were no more.
    pub(super) fn admit(
        &mut self,
        mut denied: impl FnMut(&str, &PublicKey),
    ) -> Result<bool, Error> {
        let mut message = Frames::default();
        for _ in 0..BATCH_MAX {
            if !self.socket.receive(&mut message)? {
                return Ok(true);
            }
            // Nothing but libzmq can ask within the server's context, and it asks about keys only.
            let Some(question) = Question::parse(&message) else { continue };
            let is_let_in = if question.domain == PEERS_DOMAIN.as_bytes() {
                question.key == self.own
            } else {
                self.clients.find(&question.key).is_some()
            };
            if !is_let_in {
                denied(question.address, &question.key);
            }
            self.socket.send(&question.answer(is_let_in))?;
        }
        Ok(false)
    }

    /// The client with the key that is the user id of a message, if it is still let in.
    pub(super) fn sender(&self, user_id: Option<&str>) -> Result<Sender, Problem> {
        let key = user_id.and_then(|user_id| PublicKey::parse("key", user_id).ok());
        let find = |key| Some(Sender { key, client: Arc::clone(self.clients.find(&key)?) });
        key.and_then(find).ok_or_else(|| Problem {
            code: Code::Auth,
            message: "this client is not let in any more: its key was taken from the server's list"
                .to_owned(),
        })
    }

    /// A client says that a session is its own. Refused if it is that of another one.
    pub(super) fn claim(
        &mut self,
        session: SessionId,
        key: PublicKey,
        is_there: impl Fn(SessionId) -> bool,
    ) -> Result<(), Problem> {
        if self.owners.len() >= self.tidy_at {
            self.owners.retain(|session, _| is_there(*session));
            self.tidy_at = (2 * self.owners.len()).max(TIDY_AT_MIN);
        }
        let owner = *self.owners.entry(session).or_insert(key);
        if owner == key {
            return Ok(());
        }
        let message = "this client has not begun this session: another key has".to_owned();
        Err(Problem { code: Code::Auth, message })
    }

    /// Another list holds from now on. The sessions of clients that it does not let in any more.
    pub(super) fn take_up(&mut self, clients: Clients) -> Vec<SessionId> {
        self.clients = clients;
        let barred = self.owners.iter().filter(|(_, key)| self.clients.find(key).is_none());
        let mut barred: Vec<_> = barred.map(|(session, _)| *session).collect();
        barred.sort_unstable();
        barred
    }
}
