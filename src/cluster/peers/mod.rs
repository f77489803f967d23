//! SANS-IO: servers that all grant, and tell each other of each "go".
//!
//! Each server publishes what it grants, and hears all others. Rules:
//!
//! P1 messages are numbered; what was heard before is dropped, and who misses one takes none of it
//! for known until the other has told all that is used. P2 a message says up to which number each
//! other was heard; who is not named tells all that is used. P3 two are in touch if each hears the
//! other without a gap, and said so within [`Times::silence`]. P4 a server in touch with some of
//! all servers grants that part of each limit. P5 it grants next to nothing beyond what those in
//! touch say they know. P6 one that says it leaves grants nothing any more, and is in touch for
//! ever. P7 whoever begins grants nothing until it is in touch with all, or has waited for them.
//!
//! ```text
//! ┌──────────────────────────────────────────────────────────────────────────────────┐
//! │ Drain `poll_output` after each `hear` and `tick`, before anything is granted.     │
//! │ Call `tick` when `poll_timeout` says so, and then `publish` until it says nothing.│
//! └──────────────────────────────────────────────────────────────────────────────────┘
//! ```

mod message;
mod peer;

use std::collections::VecDeque;
use std::time::Duration;

pub use message::{Message, Part, Run};
pub use peer::Touch;
use peer::{Peer, Take};

use crate::engine::{Go, Machine, Peering, Usage};
use crate::time::Timestamp;

/// How many other servers there may be.
pub const PEERS_MAX: usize = 15;

/// The most keys of which one message tells that they were granted.
pub const GOES_MAX: usize = 64;

/// With more of them, it tells nothing of usage beside.
const GOES_BESIDE_USAGE: usize = 16;

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// For how long it is gathered what was granted, unless it is urgent.
    pub gather: Duration,
    /// After how long a server that has nothing to say says that it lives.
    pub beat: Duration,
    /// For how long one that is not heard may still be there.
    pub silence: Duration,
    /// How long a server that begins waits for the others.
    pub join: Duration,
    /// How long it is between the end of all that is used and its next beginning.
    pub pause: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            gather: Duration::from_millis(1),
            beat: Duration::from_millis(50),
            silence: Duration::from_millis(300),
            join: Duration::from_millis(800),
            pause: Duration::from_millis(100),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The server at this place has granted this.
    Count(usize, Vec<Go>),
    /// The server at this place has counted this.
    TakeOver(usize, Vec<Usage>),
    /// From now on this server stands to the others like that.
    Standing(Peering),
    /// All others know what was told in the messages up to this one.
    Known(u64),
    /// The server at this place is in touch from now on, or it is not.
    Touch(usize, bool),
    /// What is said at this place comes from this very server, or from one at another place too.
    Double(usize),
}

/// A server among others.
#[derive(Debug)]
pub struct Peers {
    run: Run,
    times: Times,
    others: Vec<Peer>,
    /// The number of the last message.
    number: u64,
    /// When the next one is due at the latest.
    beat_at: Timestamp,
    joins_until: Timestamp,
    /// Somebody waits to hear that it was heard.
    is_awaited: bool,
    telling: Telling,
    /// When all that is used may be told from the beginning.
    tell_at: Timestamp,
    known: u64,
    standing: Peering,
    outputs: VecDeque<Output>,
}

/// Whether all that is used is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    No,
    /// Somebody does not know it.
    Wanted,
    /// It goes on from this place.
    From(usize),
}

impl Peers {
    /// A server that begins at `now`, in a run of that number, with so many others.
    #[must_use]
    pub fn new(now: Timestamp, run: Run, others: usize, times: Times) -> Self {
        let joins_until = now + times.join;
        let servers = others as u64 + 1;
        let standing = Peering { servers, in_touch: 1, is_told: false, joins_until };
        Self {
            run,
            times,
            others: (0..others).map(|_| Peer::default()).collect(),
            number: 0,
            beat_at: now,
            joins_until,
            is_awaited: false,
            telling: Telling::No,
            tell_at: now,
            known: 0,
            standing,
            outputs: VecDeque::from([Output::Standing(standing)]),
        }
    }

    /// The server at this place said something.
    pub fn hear(&mut self, now: Timestamp, place: usize, message: Message) {
        self.look_for_doubles(place, &message);
        let Some(peer) = self.others.get_mut(place) else { return };
        let taken = peer.hear(now, self.run, &message);
        if taken == Take::Nothing || peer.is_double {
            return self.judge(now);
        }
        self.is_awaited |= message.is_urgent;
        if peer.hears_us.is_none() && !message.leaves && self.telling == Telling::No {
            self.telling = Telling::Wanted;
        }
        if !message.goes.is_empty() {
            self.outputs.push_back(Output::Count(place, message.goes));
        }
        if let (Take::All, Some(part)) = (taken, message.usage)
            && !part.keys.is_empty()
        {
            self.outputs.push_back(Output::TakeOver(place, part.keys));
        }
        self.judge(now);
    }

    /// Nothing but the time.
    pub fn tick(&mut self, now: Timestamp) {
        self.judge(now);
    }

    /// The next thing to do, if there is one.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next message, if there is anything to say: of what the machine has granted, and of what
    /// is used, if somebody does not know it.
    pub fn publish<E>(&mut self, now: Timestamp, machine: &mut Machine<E>) -> Option<Message> {
        let granted = machine.granted_since();
        let is_urgent = granted.is_some_and(|(_, is_urgent)| is_urgent);
        let from = match self.telling {
            Telling::No => None,
            Telling::Wanted => (now >= self.tell_at).then_some(0),
            Telling::From(place) => Some(place),
        };
        let is_due = granted.is_some_and(|(since, _)| now >= since + self.times.gather);
        // What is used goes out with all that was granted: what came behind it would count twice.
        let goes = if is_urgent || is_due || from.is_some() {
            machine.take_granted(now, self.number + 1, GOES_MAX)
        } else {
            Vec::new()
        };
        let has_room = goes.len() <= GOES_BESIDE_USAGE && machine.granted_since().is_none();
        let usage = from.filter(|_| has_room).map(|from| self.part(now, machine.usage(now, from)));
        if goes.is_empty() && usage.is_none() && !self.is_awaited && now < self.beat_at {
            return None;
        }
        Some(self.message(now, (is_urgent, false), goes, usage))
    }

    /// A last message, in which this server says that it grants nothing any more. While something
    /// is left of what was granted, there is another one.
    pub fn leave<E>(&mut self, now: Timestamp, machine: &mut Machine<E>) -> Message {
        let goes = machine.take_granted(now, self.number + 1, GOES_MAX);
        self.message(now, (false, true), goes, None)
    }

    /// Whether there is more to tell of what is used, at once.
    #[must_use]
    pub fn goes_on_telling(&self, now: Timestamp) -> bool {
        match self.telling {
            Telling::No => false,
            Telling::Wanted => now >= self.tell_at,
            Telling::From(_) => true,
        }
    }

    fn part(&mut self, now: Timestamp, usage: (Vec<Usage>, Option<usize>)) -> Part {
        let (keys, next) = usage;
        let is_first = self.telling == Telling::Wanted;
        self.telling = next.map_or(Telling::No, Telling::From);
        if next.is_none() {
            self.tell_at = now + self.times.pause;
        }
        Part { is_first, is_last: next.is_none(), keys }
    }

    /// When to come back with a [`Peers::tick`] and [`Peers::publish`], if nothing happens before.
    #[must_use]
    pub fn poll_timeout<E>(&self, machine: &Machine<E>) -> Timestamp {
        let touched = self.others.iter().filter(|peer| peer.in_touch && !peer.is_gone());
        let silent_at = touched.map(|peer| peer.silent_at(&self.times)).min();
        let due = silent_at.map_or(self.beat_at, |at| at.min(self.beat_at));
        let granted = machine.granted_since().map(|(since, _)| since + self.times.gather);
        let due = granted.map_or(due, |at| at.min(due));
        if self.telling == Telling::Wanted { due.min(self.tell_at) } else { due }
    }

    /// How this server stands to the others.
    #[must_use]
    pub const fn standing(&self) -> Peering {
        self.standing
    }

    /// How this server stands to each of the others, in their order.
    pub fn touches(&self) -> impl Iterator<Item = Touch> {
        self.others.iter().map(Peer::touch)
    }

    fn message(
        &mut self,
        now: Timestamp,
        (is_urgent, leaves): (bool, bool),
        goes: Vec<Go>,
        usage: Option<Part>,
    ) -> Message {
        self.number += 1;
        self.beat_at = now + self.times.beat;
        self.is_awaited = false;
        let heard = self.others.iter().filter_map(|peer| peer.heard_up_to(now, &self.times));
        let (heard, run, number) = (heard.collect(), self.run, self.number);
        Message { run, number, is_urgent, leaves, heard, goes, usage }
    }

    /// The same list of URLs may be given to all servers, so one of them leads back here; and one
    /// server may be known by two URLs.
    fn look_for_doubles(&mut self, place: usize, message: &Message) {
        if self.others.get(place).is_none_or(|peer| peer.run == Some(message.run)) {
            return;
        }
        let rest = self.others.iter().enumerate().filter(|(other, _)| *other != place);
        let is_known = |(_, peer): (usize, &Peer)| peer.run == Some(message.run) && !peer.is_double;
        let is_double = message.run == self.run || rest.into_iter().any(is_known);
        if is_double && !self.others[place].is_double {
            self.outputs.push_back(Output::Double(place));
        }
        self.others[place].is_double = is_double;
    }

    /// Finds out who is in touch, and what the others know.
    fn judge(&mut self, now: Timestamp) {
        let times = self.times;
        let words = self.others.iter().filter_map(|peer| peer.word(now, &times));
        let word = words.min();
        if let Some(known) = word.filter(|word| *word > self.known) {
            self.known = known;
            self.outputs.push_back(Output::Known(known));
        } else if word.is_none() {
            // Nobody is there to be told.
            self.known = self.number;
        }
        for (place, peer) in self.others.iter_mut().enumerate() {
            // Whoever comes back is in touch once it knows all that counts as known.
            let knows = peer.word(now, &times);
            let in_touch = knows.is_some_and(|word| peer.in_touch || word >= self.known);
            let in_touch = !peer.is_double && (peer.is_gone() || in_touch);
            if peer.in_touch != in_touch {
                peer.in_touch = in_touch;
                self.outputs.push_back(Output::Touch(place, in_touch));
            }
        }
        let count =
            |is: fn(&Peer) -> bool| self.others.iter().filter(|peer| is(peer)).count() as u64;
        let (servers, in_touch) =
            (1 + count(|peer| !peer.is_double), 1 + count(|peer| peer.in_touch));
        let joined = in_touch == servers || now >= self.joins_until;
        if joined && self.joins_until != Timestamp::ZERO {
            self.joins_until = Timestamp::ZERO;
            // Who was waited for in vain.
            let is_absent =
                |(_, it): &(usize, &Peer)| !it.in_touch && !it.is_double && !it.is_gone();
            let absent = self.others.iter().enumerate().filter(is_absent);
            self.outputs.extend(absent.map(|(place, _)| Output::Touch(place, false)));
        }
        let joins_until = self.joins_until;
        let standing = Peering { servers, in_touch, is_told: word.is_some(), joins_until };
        if standing != self.standing {
            self.standing = standing;
            self.outputs.push_back(Output::Standing(standing));
        }
    }
}
