//! The requests that wait at the server, first come, first served.

use std::collections::VecDeque;

use crate::time::Timestamp;

/// A waiter: whom to answer, and until when at the latest.
#[derive(Clone, Debug)]
pub(super) struct Waiter<A> {
    pub(super) address: A,
    pub(super) deadline: Timestamp,
}

/// A FIFO queue with a bound.
#[derive(Clone, Debug)]
pub(super) struct WaitQueue<A> {
    waiters: VecDeque<Waiter<A>>,
    waiters_max: usize,
}

impl<A> WaitQueue<A> {
    pub(super) const fn new(waiters_max: usize) -> Self {
        Self { waiters: VecDeque::new(), waiters_max }
    }

    /// Puts a waiter at the end. The caller has seen that the queue is not full.
    pub(super) fn push(&mut self, waiter: Waiter<A>) {
        debug_assert!(!self.is_full());
        self.waiters.push_back(waiter);
    }

    pub(super) fn pop(&mut self) -> Option<Waiter<A>> {
        self.waiters.pop_front()
    }

    pub(super) fn front(&self) -> Option<&Waiter<A>> {
        self.waiters.front()
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiters.len() >= self.waiters_max
    }
}
