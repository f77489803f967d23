//! The thread that those who watch a server talk to. It holds up nobody: the server's thread shows
//! it how things stand when it has the time, and what visitors may cost is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use crate::net::clock::BootClock;
use crate::net::http::{Answer, Route};
use crate::net::page::page;
use crate::net::process::process;
use crate::net::server::Control;
use crate::net::sight::{Wanted, Watching};
use crate::net::visitor::{Progress, Visitor};
use crate::observe::{History, Latest, Observation, Watch, document, scrape};
use crate::time::{Clock, Timestamp};

/// How many connections there may be; the one that is open for longest makes room for another.
const CONNECTIONS_MAX: usize = 128;

/// How many are accepted before the others are looked at again.
const ACCEPTED_MAX: usize = 64;

/// How long a connection may last.
const CONNECTION_TIME: Duration = Duration::from_secs(5);

/// How often how things stand is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often the server is asked at most to show how things stand, whoever asks.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the server may take to show something before it is taken to be stuck.
const SHOW_TIME: Duration = Duration::from_secs(1);

/// For how long after people have looked they are shown more than numbers each second.
const PEOPLE_STAY: Duration = Duration::from_secs(5);

pub(super) const LISTENER: Token = Token(0);
pub(super) const WAKER: Token = Token(1);

/// The tokens from here on are those of connections.
const FIRST_VISITOR: usize = 2;

/// What the thread owns.
pub(super) struct Watcher {
    poll: Poll,
    listener: TcpListener,
    /// Whether only this host can connect.
    is_local: bool,
    watching: Watching,
    /// Wakes the server.
    control: Arc<Control>,
    view: View,
    /// When the server was asked last how things stand, and when it is asked next.
    looked_at: Timestamp,
    look_at: Timestamp,
    /// Until when people are shown more than numbers.
    people_until: Timestamp,
    /// By the order in which they came.
    visitors: BTreeMap<usize, Visitor>,
    next_token: usize,
}

/// What was seen.
#[derive(Default)]
struct View {
    seen: Option<Box<Observation>>,
    history: History,
    latest: Latest,
    watch: Watch,
    /// The document for people, if it was made of what was seen last.
    document: Option<String>,
}

impl Watcher {
    pub(super) fn new(
        (poll, listener): (Poll, TcpListener),
        is_local: bool,
        watching: Watching,
        control: Arc<Control>,
    ) -> Self {
        let (view, visitors) = (View::default(), BTreeMap::new());
        let next_token = FIRST_VISITOR;
        let [looked_at, look_at, people_until] = [Timestamp::ZERO; 3];
        Self {
            poll,
            listener,
            is_local,
            watching,
            control,
            view,
            looked_at,
            look_at,
            people_until,
            visitors,
            next_token,
        }
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !self.watching.is_over() {
            let now = BootClock.now();
            if self.look_at <= now {
                self.look(now);
            }
            let due = self.visitors.values().map(Visitor::due).fold(self.look_at, Timestamp::min);
            if let Err(error) = self.poll.poll(&mut events, Some(due.since(now)))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                log::error!(target: "zmqlocker", "metrics are served no more: {error}");
                return;
            }
            self.take_in();
            for event in &events {
                self.visit(event.token().0);
            }
            self.accept();
            self.close_overdue();
        }
    }

    /// Has the server show how things stand.
    fn look(&mut self, now: Timestamp) {
        let people = now < self.people_until;
        self.watching.want(if people { Wanted::All } else { Wanted::Numbers });
        self.control.wake();
        (self.looked_at, self.look_at) = (now, now + INTERVAL);
    }

    /// Takes in what the server has shown and told, and answers those who waited for it.
    fn take_in(&mut self) {
        while let Ok(news) = self.watching.news.try_recv() {
            self.view.latest.push(news);
        }
        let mut any = false;
        while let Ok(seen) = self.watching.observations.try_recv() {
            any = true;
            self.view.take(seen);
        }
        if any {
            let now = BootClock.now();
            let ready = self.visitors.iter().filter_map(|(token, visitor)| {
                let (route, is_head, since) = visitor.awaits?;
                self.view.is_fresh_for(route, since).then_some((*token, route, is_head))
            });
            for (token, route, is_head) in ready.collect::<Vec<_>>() {
                self.answer(now, token, route, is_head);
            }
        }
    }

    /// Takes connections up.
    fn accept(&mut self) {
        for _ in 0..ACCEPTED_MAX {
            // Out of descriptors, or whoever it was is gone: the others are not to suffer.
            let Ok((mut stream, _)) = self.listener.accept() else { return };
            let token = self.next_token;
            self.next_token += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self.poll.registry().register(&mut stream, Token(token), interest).is_err() {
                continue;
            }
            if self.visitors.len() >= CONNECTIONS_MAX {
                let oldest = self.visitors.pop_first();
                let is_lost = oldest.is_some_and(|(_, visitor)| !visitor.is_served());
                self.view.watch.dropped += u64::from(is_lost);
            }
            let deadline = BootClock.now() + CONNECTION_TIME;
            self.visitors.insert(token, Visitor::new(stream, deadline));
            self.visit(token);
        }
        // There may be more.
        self.watching.look_again();
    }

    /// Something may have come on a connection, or may be sent.
    fn visit(&mut self, token: usize) {
        let now = BootClock.now();
        let Some(visitor) = self.visitors.get_mut(&token) else { return };
        match visitor.go_on(self.is_local) {
            Progress::Asks(route, is_head) => {
                if route == Route::Page {
                    return self.answer(now, token, route, is_head);
                }
                visitor.awaits = Some((route, is_head, now));
                if route == Route::Status {
                    self.people_until = now + PEOPLE_STAY;
                }
                self.look_at = self.look_at.min(self.looked_at + PAUSE);
            }
            Progress::Refused(refusal) => {
                self.view.watch.refused += 1;
                let progress = visitor.answer(Answer::refusal(refusal).bytes(false));
                self.close_if_over(token, progress);
            }
            progress => self.close_if_over(token, progress),
        }
    }

    fn answer(&mut self, now: Timestamp, token: usize, route: Route, is_head: bool) {
        self.view.watch.open = self.visitors.len() as u64;
        let Some(visitor) = self.visitors.get_mut(&token) else { return };
        self.view.watch.answered += 1;
        let progress = visitor.answer(self.view.answer(now, route, is_head));
        self.close_if_over(token, progress);
    }

    fn close_if_over(&mut self, token: usize, progress: Progress) {
        match progress {
            Progress::Done => drop(self.visitors.remove(&token)),
            Progress::Gone => {
                self.visitors.remove(&token);
                self.view.watch.dropped += 1;
            }
            Progress::GoesOn | Progress::Asks(..) | Progress::Refused(_) => {}
        }
    }

    /// Answers those who have waited for too long with what there is, and closes connections whose
    /// time is over.
    fn close_overdue(&mut self) {
        let now = BootClock.now();
        let overdue = self.visitors.iter().filter_map(|(token, visitor)| {
            (visitor.due() <= now).then_some((*token, visitor.awaits, visitor.is_served()))
        });
        for (token, awaits, is_served) in overdue.collect::<Vec<_>>() {
            match awaits {
                Some((route, is_head, _)) => self.answer(now, token, route, is_head),
                None if is_served => self.close_if_over(token, Progress::Done),
                None => self.close_if_over(token, Progress::Gone),
            }
        }
    }
}

impl Visitor {
    /// When it is to be looked at again, if nothing comes.
    fn due(&self) -> Timestamp {
        let awaits = self.awaits.map(|(.., since)| since + SHOW_TIME);
        awaits.into_iter().fold(self.deadline, Timestamp::min)
    }
}

impl View {
    fn take(&mut self, seen: Box<Observation>) {
        self.history.take(seen.at, &seen.status.tally, &seen.keys);
        self.document = None;
        self.seen = Some(seen);
    }

    /// Whether what was seen last is no older than what somebody asked for at `since`.
    fn is_fresh_for(&self, route: Route, since: Timestamp) -> bool {
        let is_enough = |seen: &Observation| route != Route::Status || seen.people.is_some();
        self.seen.as_deref().is_some_and(|seen| since <= seen.at && is_enough(seen))
    }

    fn answer(&mut self, now: Timestamp, route: Route, is_head: bool) -> Vec<u8> {
        if route == Route::Page {
            return page(is_head);
        }
        let Some(seen) = &self.seen else {
            let silent = "the server has shown nothing yet\n";
            return Answer::text("503 Service Unavailable", silent).bytes(is_head);
        };
        let age = now.since(seen.at);
        let is_stuck = age > INTERVAL + SHOW_TIME;
        let unready = match seen.unready() {
            _ if is_stuck => Some(format!("the server's thread is busy for {age:?}")),
            unready => unready,
        };
        let bad = |text: &str| {
            Answer::text("503 Service Unavailable", &format!("{text}\n")).bytes(is_head)
        };
        match route {
            Route::Status => {
                let make = || document(seen, &self.history, &self.latest);
                let body = self.document.get_or_insert_with(make);
                let (status, content_type) = ("200 OK", "application/json");
                Answer { status, content_type, headers: "", body }.bytes(is_head)
            }
            Route::Metrics => {
                (self.watch.age, self.watch.is_ready) = (age, unready.is_none());
                let body = &scrape(seen, &process(), &self.watch);
                let content_type = "text/plain; version=0.0.4; charset=utf-8";
                Answer { status: "200 OK", content_type, headers: "", body }.bytes(is_head)
            }
            Route::Health if is_stuck => bad(&unready.unwrap_or_default()),
            Route::Ready if unready.is_some() => bad(&unready.unwrap_or_default()),
            Route::Page | Route::Health | Route::Ready => {
                Answer::text("200 OK", "ok\n").bytes(is_head)
            }
        }
    }
}
