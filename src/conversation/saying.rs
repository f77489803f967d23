//! What goes out on the links, and when: requests, and beats that tell that we live.

use crate::asking::{self, LinkId, RequestId};
use crate::conversation::question::Question;
use crate::conversation::{BEAT_INTERVAL, Conversation, FULL, Output, TOGETHER_MAX};
use crate::time::Timestamp;
use crate::wire::seed;
use crate::wire::{Frames, ITEMS_MAX};

impl Conversation {
    /// Does what [`Asking`] wants done.
    pub(super) fn perform(&mut self, now: Timestamp) {
        self.seek_others(now);
        while let Some(asking::Output::Send(link, request)) = self.asking.poll_output() {
            self.send(now, link, request);
        }
        for place in 0..self.talks.len() {
            self.say_releases(now, LinkId(place));
        }
    }

    fn send(&mut self, now: Timestamp, link: LinkId, request: RequestId) {
        let is_ours = |question: &Question| question.item.is_some();
        if self.questions.get(&request).is_some_and(is_ours) {
            self.hello(now, link);
        }
        let Some(question) = self.questions.get_mut(&request) else { return };
        self.counts.retries += if question.sent.is_empty() { 0 } else { question.count() };
        question.sent_to(link, self.talks[link.0].connection, now);
        let Some(item) = &question.item else {
            let number = request.0.to_be_bytes();
            let message = Frames::from_iter([number.as_slice(), b"", seed::REQUEST]);
            self.outputs.push_back(Output::Send(link, message));
            return;
        };
        let talk = &mut self.talks[link.0];
        talk.write(|body| body.extend_from_slice(item));
        let count = usize::try_from(question.count()).unwrap_or(usize::MAX);
        talk.items += count - 1;
        if talk.count_requests(u32::try_from(count).unwrap_or(u32::MAX)) {
            self.say_beat(now, link);
        }
        self.flush_full(link);
    }

    /// Sends a message that nothing more may be added to.
    pub(super) fn flush_full(&mut self, link: LinkId) {
        let talk = &mut self.talks[link.0];
        if talk.body.len() > FULL || talk.items + TOGETHER_MAX + 8 > ITEMS_MAX {
            let message = talk.take_message();
            self.outputs.push_back(Output::Send(link, message));
        }
    }

    pub(super) fn beat(&mut self, now: Timestamp, link: LinkId) {
        if self.talks[link.0].is_up {
            self.hello(now, link);
        }
        let talk = &mut self.talks[link.0];
        talk.next_beat = talk.interval().map(|interval| now + interval);
        if !self.available && talk.next_beat.is_none() {
            // Nothing else would find out that the server is back.
            talk.next_beat = Some(now + BEAT_INTERVAL);
        }
        if talk.is_up {
            self.say_beat(now, link);
            self.ask_around(now, link);
            self.flush_full(link);
        }
    }

    /// Requests that waited at a server wait there no more.
    pub(super) fn requeue(&mut self, link: LinkId) {
        for question in self.questions.values_mut() {
            if question.queued_on == Some(link) {
                question.queued_on = None;
            }
        }
        self.talks[link.0].end_waits();
    }
}
