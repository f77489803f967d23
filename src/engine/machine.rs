//! The engine: requests and the passing of time go in, answers come out.
//!
//! ```text
//! ┌────────────────────────────────────────────────────────────────────────────────┐
//! │ Drain `poll_output` after each `handle`, before the next one. Call `handle`     │
//! │ with `Input::Tick` at the instant that `poll_timeout` names, or later.          │
//! └────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use crate::answer::Answer;
use crate::engine::limit::{FixedWindow, Rate};
use crate::engine::wait_queue::{WaitQueue, Waiter};
use crate::time::Timestamp;

/// How long requests wait for a permit, and how many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A request waits if the slot in which it gets its permit opens within this time.
    pub length: Duration,
    /// How many may wait; one more hears "sorry" at once.
    pub waiters_max: usize,
}

impl Patience {
    /// Nobody waits: the seed.
    pub const NONE: Self = Self { length: Duration::ZERO, waiters_max: 0 };

    /// [`Patience::waiters_max`] where nothing else is said.
    pub const WAITERS_MAX: usize = 100_000;
}

/// What the engine is told. `A` is the shell's address of whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<A> {
    /// A request for one permit.
    Next(A),
    /// Nothing but the time.
    Tick,
    /// The service ends: whoever waits is answered now.
    Close,
}

/// An answer on its way to whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<A> {
    /// The address that came with the request.
    pub to: A,
    /// What to say.
    pub answer: Answer,
}

/// Decides who gets a permit of one resource, and when.
///
/// The loop that drives it is the same everywhere:
///
/// ```
/// use std::time::Duration;
/// use zmqlocker::answer::Answer;
/// use zmqlocker::engine::{Input, Machine, Patience, Rate, SeedReply as Reply};
/// use zmqlocker::time::Timestamp;
///
/// let limit = Rate::new(1, 1.0)?;
/// let patience = Patience { length: Duration::from_millis(300), waiters_max: 10 };
/// let mut machine = Machine::new(Timestamp::ZERO, limit, patience);
/// let mut heard = Vec::new();
///
/// // "b" comes too early to wait, "c" comes when the next slot is near.
/// for (millis, who) in [(0, "a"), (100, "b"), (900, "c")] {
///     let now = Timestamp::ZERO + Duration::from_millis(millis);
///     machine.handle(now, Input::Next(who));
///     while let Some(reply) = machine.poll_output() {
///         heard.push((reply.to, reply.answer));
///     }
/// }
/// assert_eq!(heard, [("a", Answer::Go), ("b", Answer::Sorry)]);
///
/// let due = machine.poll_timeout().expect("somebody waits");
/// machine.handle(due, Input::Tick);
/// assert_eq!(machine.poll_output(), Some(Reply { to: "c", answer: Answer::Go }));
/// assert_eq!(machine.poll_timeout(), None);
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Machine<A> {
    window: FixedWindow,
    patience: Duration,
    waiting: WaitQueue<A>,
    outputs: VecDeque<Reply<A>>,
}

impl<A> Machine<A> {
    /// A machine whose first slot is open from `now`.
    #[must_use]
    pub fn new(now: Timestamp, limit: Rate, patience: Patience) -> Self {
        Self {
            window: FixedWindow::new(now, limit),
            patience: patience.length,
            waiting: WaitQueue::new(patience.waiters_max),
            outputs: VecDeque::new(),
        }
    }

    /// Takes in what happened at `now`, which is never before the `now` of an earlier call.
    pub fn handle(&mut self, now: Timestamp, input: Input<A>) {
        debug_assert!(self.outputs.is_empty(), "drain the outputs before the next input");
        self.serve_waiters(now);
        match input {
            Input::Next(address) => self.admit(now, address),
            Input::Tick => {}
            Input::Close => {
                while let Some(waiter) = self.waiting.pop() {
                    self.reply(waiter.address, Answer::Sorry);
                }
            }
        }
    }

    /// The next answer to send, if there is one.
    pub fn poll_output(&mut self) -> Option<Reply<A>> {
        self.outputs.pop_front()
    }

    /// When to come back with a [`Input::Tick`], if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.waiting.front().map(|first| first.deadline.min(self.window.next_slot()))
    }

    /// How many requests wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Permits go to those who came first. Who is past the deadline because a slot opened late, and
    /// finds no permit, hears "sorry".
    fn serve_waiters(&mut self, now: Timestamp) {
        while let Some(first) = self.waiting.front() {
            let answer = if self.window.try_acquire(now) {
                Answer::Go
            } else if first.deadline <= now {
                Answer::Sorry
            } else {
                return;
            };
            if let Some(first) = self.waiting.pop() {
                self.reply(first.address, answer);
            }
        }
    }

    /// Answers a request, or lets it wait where its permit is near. Where others wait, they have
    /// left no permit of the present slot.
    fn admit(&mut self, now: Timestamp, address: A) {
        if self.window.try_acquire(now) {
            return self.reply(address, Answer::Go);
        }
        let deadline = now + self.patience;
        let ahead = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        if self.window.slot_after(ahead) <= deadline && !self.waiting.is_full() {
            self.waiting.push(Waiter { address, deadline });
        } else {
            self.reply(address, Answer::Sorry);
        }
    }

    fn reply(&mut self, to: A, answer: Answer) {
        self.outputs.push_back(Reply { to, answer });
    }
}
