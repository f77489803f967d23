//! Servers that count for each other: what the thread of one does for that.

use std::collections::BTreeSet;

use mio::{Registry, Token};

use crate::cluster::peers::{Message, Output, Peers, Run, Times};
use crate::config::{PeersConfig, Security, ServerConfig, Url};
use crate::engine::{Difference, Peering};
use crate::error::Error;
use crate::net::guard::{secure_publisher, secure_subscriber};
use crate::net::journal::LOG;
use crate::net::service::{PEERS, Service};
use crate::net::socket::{Socket, system};
use crate::observe::{Counting, CountingCounts};
use crate::time::{Clock, Timestamp};
use crate::wire::Frames;
use crate::wire::peers as wire;
use crate::wire::seed::BYTES_MAX;

/// How many messages of one server are taken in before clients are heard.
const BATCH_MAX: usize = 256;

/// How many messages may wait on their way; one that is lost with more is seen to be missing.
const WAITING_MAX: i32 = 10_000;

/// How many differences are remembered as told.
const TOLD_MAX: usize = 1000;

/// How often the library looks whether a connection lives, and how long it waits for a sign, in
/// milliseconds.
const HEARTBEAT: (i32, i32) = (1000, 2000);

/// The sockets between servers.
pub(super) struct PeerLine {
    peers: Peers,
    url: Url,
    publisher: Socket,
    others: Vec<Other>,
    counts: CountingCounts,
    /// The memory for the next message.
    message: Frames,
    bytes: Vec<u8>,
}

struct Other {
    url: Url,
    socket: Socket,
    /// Of which keys it was said that they have other limits there.
    told: BTreeSet<Box<str>>,
    /// Whether it was said that it cannot be understood.
    is_strange: bool,
}

impl PeerLine {
    /// The sockets of the run of that number, if the server is to have peers.
    pub(super) fn of(
        now: Timestamp,
        number: u64,
        (context, registry): (&zmq::Context, &Registry),
        config: &ServerConfig,
    ) -> Result<Option<Self>, Error> {
        let security = config.security.as_ref();
        let open = |peers| Self::open(now, number, context, peers, security);
        let line = config.peers.as_ref().map(open).transpose()?;
        if let Some(line) = &line {
            for (place, other) in line.others.iter().enumerate() {
                other.socket.register(registry, Token(PEERS + place))?;
            }
        }
        Ok(line)
    }

    fn open(
        now: Timestamp,
        number: u64,
        context: &zmq::Context,
        config: &PeersConfig,
        security: Option<&Security>,
    ) -> Result<Self, Error> {
        let failed = |error| system("open a socket", error);
        let publisher = Socket::new(context, zmq::PUB)?;
        let set = |socket: &zmq::Socket, url: &Url| {
            socket.set_linger(500)?;
            socket.set_sndhwm(WAITING_MAX)?;
            socket.set_rcvhwm(WAITING_MAX)?;
            socket.set_ipv6(url.is_ipv6())?;
            socket.set_heartbeat_ivl(HEARTBEAT.0)?;
            socket.set_heartbeat_timeout(HEARTBEAT.1)?;
            socket.set_maxmsgsize(i64::try_from(2 * BYTES_MAX).unwrap_or(i64::MAX))?;
            // Less than a server that starts waits for the others to be there.
            socket.set_reconnect_ivl(100)?;
            socket.set_connect_timeout(2000)?;
            socket.set_handshake_ivl(2000)
        };
        set(publisher.options(), &config.url).map_err(failed)?;
        if let Some(security) = security {
            secure_publisher(publisher.options(), security).map_err(failed)?;
        }
        let endpoint = publisher.bind(&config.url).map_err(|error| error.about("peers_url"))?;
        if config.url.is_open_to_other_hosts() && security.is_none() {
            log::warn!(
                target: LOG, event = "open", url = endpoint.as_str();
                "{endpoint} tells other hosts what is granted, without encryption and \
                 authentication: give all servers a key where that is not wanted"
            );
        }
        let mut others = Vec::new();
        for url in &config.others {
            let socket = Socket::new(context, zmq::SUB)?;
            set(socket.options(), url).map_err(failed)?;
            socket.options().set_linger(0).map_err(failed)?;
            socket.options().set_subscribe(b"").map_err(failed)?;
            if let Some(security) = security {
                secure_subscriber(socket.options(), security).map_err(failed)?;
            }
            socket.connect(url)?;
            let (url, told) = (url.clone(), BTreeSet::new());
            others.push(Other { url, socket, told, is_strange: false });
        }
        let peers = Peers::new(now, Run(number), others.len(), Times::default());
        let (message, bytes) = (Frames::default(), Vec::new());
        let url = Url::parse(&endpoint)?;
        let counts = CountingCounts::default();
        Ok(Self { peers, url, publisher, others, counts, message, bytes })
    }

    /// How it stands to its peers, for those who watch.
    pub(super) fn seen(&self) -> Counting {
        let urls = self.others.iter().map(|other| other.url.as_str().into());
        Counting { others: urls.zip(self.peers.touches()).collect(), counts: self.counts }
    }

    fn send(&mut self, message: &Message) -> Result<(), Error> {
        self.bytes.clear();
        wire::encode(&mut self.bytes, message);
        self.message.clear();
        self.message.push(&self.bytes);
        self.counts.updates += u64::from(!message.goes.is_empty() || message.usage.is_some());
        self.publisher.send(&self.message).map(drop)
    }
}

impl Service {
    /// Takes in what other servers have said. Whether there was no more.
    pub(super) fn hear_peers(&mut self) -> Result<bool, Error> {
        let Some(mut line) = self.peers.take() else { return Ok(true) };
        let mut all_heard = true;
        let now = self.clock.now();
        if line.peers.poll_timeout(&self.machine) <= now {
            line.peers.tick(now);
            self.follow(now, &mut line);
        }
        for place in 0..line.others.len() {
            let mut left = BATCH_MAX;
            while left > 0 && line.others[place].socket.receive(&mut line.message)? {
                left -= 1;
                let now = self.clock.now();
                match wire::decode(line.message.get(0).unwrap_or_default()) {
                    Ok(message) => line.peers.hear(now, place, message),
                    Err(bad) => line.others[place].complain(&line.url, &bad),
                }
                self.follow(now, &mut line);
            }
            all_heard &= left > 0;
        }
        self.peers = Some(line);
        Ok(all_heard)
    }

    /// Tells other servers what was granted. Whether there is no more to tell.
    pub(super) fn tell_peers(&mut self) -> Result<bool, Error> {
        let Some(line) = &mut self.peers else { return Ok(true) };
        let now = self.clock.now();
        // A part of all that is used goes out at a time: clients are heard between.
        while let Some(message) = line.peers.publish(now, &mut self.machine) {
            line.send(&message)?;
            if message.usage.is_some() {
                break;
            }
        }
        Ok(!line.peers.goes_on_telling(now))
    }

    /// Tells other servers that this one grants nothing any more.
    pub(super) fn leave_peers(&mut self) -> Result<(), Error> {
        let Some(line) = &mut self.peers else { return Ok(()) };
        let now = self.clock.now();
        loop {
            let message = line.peers.leave(now, &mut self.machine);
            line.send(&message)?;
            if self.machine.granted_since().is_none() {
                return Ok(());
            }
        }
    }

    /// When something is due between servers, if nothing happens before.
    pub(super) fn peers_timeout(&self) -> Option<Timestamp> {
        Some(self.peers.as_ref()?.peers.poll_timeout(&self.machine))
    }

    /// Does what came of what was heard.
    fn follow(&mut self, now: Timestamp, line: &mut PeerLine) {
        while let Some(output) = line.peers.poll_output() {
            match output {
                Output::Count(place, goes) => {
                    for go in &goes {
                        line.counts.permits += go.permits;
                        let counted = self.machine.count_in(now, go);
                        self.drain();
                        line.others[place].note(&line.url, counted);
                    }
                }
                Output::TakeOver(place, usages) => {
                    for usage in &usages {
                        let taken = self.machine.take_over(now, usage);
                        self.drain();
                        line.others[place].note(&line.url, taken);
                    }
                }
                Output::Standing(standing) => {
                    self.machine.set_peering(now, standing);
                    self.drain();
                }
                Output::Known(number) => {
                    self.machine.is_known(now, number);
                    self.drain();
                }
                Output::Touch(place, in_touch) => {
                    line.others[place].touch(line.peers.standing(), in_touch);
                    let url = &line.others[place].url;
                    let how = if in_touch { "in touch" } else { "out of touch" };
                    self.journal.reporter.tell(now, "peer", || format!("{how} with {url}"));
                }
                Output::Double(place) => {
                    let url = line.others[place].url.as_str();
                    log::info!(
                        target: LOG, event = "peer_double", peer = url;
                        "{url} is this server itself, or one that is known by another URL too: it \
                         is left out"
                    );
                }
            }
        }
    }
}

impl Other {
    fn touch(&mut self, standing: Peering, in_touch: bool) {
        let url = self.url.as_str();
        self.is_strange = false;
        if in_touch {
            log::info!(target: LOG, event = "peer_up", peer = url; "in touch with {url}");
        } else {
            let servers = standing.servers;
            log::warn!(
                target: LOG, event = "peer_down", peer = url;
                "out of touch with {url}: until it is back, of each limit no more is granted \
                 than the share of those of {servers} servers that are in touch"
            );
        }
    }

    fn note(&mut self, here: &Url, counted: Result<(), Difference>) {
        let Err(Difference { key, here: ours, there }) = counted else { return };
        if self.told.len() >= TOLD_MAX || !self.told.insert(key.clone()) {
            return;
        }
        let (url, here) = (self.url.as_str(), here.as_str());
        let ours = if ours.is_empty() { "no limits" } else { &ours };
        log::error!(
            target: LOG, event = "peer_differs", peer = url, key = &*key, here = ours,
            there = there.as_str();
            "key {key:?} has {ours} at {here}, and {there} at {url}: what is granted there counts \
             here all the same, each server keeps to its own; give both the same limits"
        );
    }

    fn complain(&mut self, here: &Url, bad: &wire::Bad) {
        if !std::mem::replace(&mut self.is_strange, true) {
            let (url, here) = (self.url.as_str(), here.as_str());
            log::error!(
                target: LOG, event = "peer_strange", peer = url, reason:% = bad;
                "{url} cannot be understood at {here}: {bad}"
            );
        }
    }
}
