//! A client's side of our protocol: laws of what it says and believes, without a server.

mod denial;
mod homes;
mod lease;
mod link;
mod locks;
mod looks;
mod parted;
mod releases;
mod request;
mod together;

use std::time::Duration;

use zmqlocker::asking::{LinkId, RequestId};
use zmqlocker::conversation::{Conversation, Input, Outcome, Output};
use zmqlocker::engine::{
    ClientInfo, Code, Cost, Decision, Demand, GrantId, Hold, Key, Problem, Reply, Request, Wait,
};
use zmqlocker::time::Timestamp;
use zmqlocker::wire::Frames;
use zmqlocker::wire::reply::{encode_heard, encode_problem, encode_reply, encode_welcome};
use zmqlocker::wire::request::{ClientItem, Items};

const A: LinkId = LinkId(0);
const B: LinkId = LinkId(1);

/// What a client says, without what is of no concern here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Hello,
    Beat {
        number: u64,
        floor: u64,
    },
    /// A beat that does not say that these are answered.
    Open {
        number: u64,
        floor: u64,
        open: Vec<u64>,
    },
    Ask(u64),
    Reclaim {
        id: u64,
        grant: u64,
    },
    Release {
        id: u64,
        grant: u64,
    },
    Commit {
        grant: u64,
        spent: Vec<u64>,
    },
    Cancel(u64),
    KnowMoved,
    Bye,
}

/// A conversation with its clock.
struct Side {
    conversation: Conversation,
    now: Timestamp,
    finished: Vec<(u64, Outcome)>,
    /// The links that it wanted beside those that were there.
    opened: Vec<(LinkId, Box<str>)>,
    /// Whether callers leave it open whether they take their answers.
    hesitates: bool,
}

impl Side {
    /// A client of so many links, all of them up.
    fn new(links: usize) -> Self {
        let conversation = Conversation::new(links, [7; 16], ClientInfo::default());
        let now = Timestamp::from_nanos(1_000_000_000_000);
        let (finished, opened) = (Vec::new(), Vec::new());
        let mut side = Self { conversation, now, finished, opened, hesitates: false };
        for link in 0..links {
            side.handle(&Input::Up(LinkId(link)));
        }
        side
    }

    fn handle(&mut self, input: &Input<'_>) {
        self.conversation.handle(self.now, input);
    }

    /// Lets time pass, with a look whenever the conversation wants one: what it says meanwhile.
    fn advance(&mut self, millis: u64) -> Vec<(u64, LinkId, Vec<Item>)> {
        let (begin, until) = (self.now, self.now + Duration::from_millis(millis));
        let mut said = Vec::new();
        while let Some(due) = self.conversation.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.handle(&Input::Tick);
            let at = u64::try_from(self.now.since(begin).as_millis()).unwrap();
            said.extend(self.drain().into_iter().map(|(link, items)| (at, link, items)));
        }
        self.now = until;
        said
    }

    /// The messages that go out now.
    fn drain(&mut self) -> Vec<(LinkId, Vec<Item>)> {
        let mut messages = Vec::new();
        while let Some(output) = self.conversation.poll_output() {
            match output {
                Output::Open(link, url) => self.opened.push((link, url)),
                Output::Send(link, message) => messages.push((link, items(&message))),
                Output::Finish(id, outcome) => {
                    self.finished.push((id.0, outcome));
                    if !self.hesitates {
                        self.conversation.settle(id);
                    }
                }
            }
        }
        messages
    }

    /// The items that go out now on the only link.
    fn said(&mut self) -> Vec<Item> {
        self.drain().into_iter().flat_map(|(_, items)| items).collect()
    }

    fn ask(&mut self, request: &Request<'_>, millis: Option<u64>) -> u64 {
        let deadline = millis.map(|millis| self.now + Duration::from_millis(millis));
        self.conversation.ask(self.now, Some(request), None, deadline).0
    }

    fn hear(&mut self, link: LinkId, write: impl FnOnce(&mut Vec<u8>)) {
        let mut body = Vec::new();
        write(&mut body);
        let message = Frames::from_iter([body.as_slice()]);
        self.handle(&Input::Message(link, &message));
    }

    fn welcome(&mut self, link: LinkId, run: u64) {
        self.hear(link, |body| encode_welcome(body, run, Duration::ZERO));
    }

    fn heard(&mut self, link: LinkId, number: u64) {
        self.hear(link, |body| encode_heard(body, number));
    }

    fn answer(&mut self, link: LinkId, id: u64, reply: &Reply) {
        self.hear(link, |body| encode_reply(body, RequestId(id), reply));
    }

    fn problem(&mut self, link: LinkId, code: Code) {
        let problem = Problem { code, message: "no".to_owned() };
        self.hear(link, |body| encode_problem(body, &problem));
    }

    /// The outcomes since the last look.
    fn outcomes(&mut self) -> Vec<(u64, Outcome)> {
        std::mem::take(&mut self.finished)
    }
}

fn items(message: &Frames) -> Vec<Item> {
    let item = |item| match item {
        ClientItem::Hello(_) => Item::Hello,
        ClientItem::Beat { number, floor, open } if open.is_empty() => {
            Item::Beat { number, floor: floor.0 }
        }
        ClientItem::Beat { number, floor, open } => {
            Item::Open { number, floor: floor.0, open: open.into_iter().map(|id| id.0).collect() }
        }
        ClientItem::Ask { id, request: Request::Reclaim { grant, .. } } => {
            Item::Reclaim { id: id.0, grant: grant.0 }
        }
        ClientItem::Ask {
            id,
            request: Request::Release { grant } | Request::ReleaseIn { grant, .. },
        } => Item::Release { id: id.0, grant: grant.0 },
        ClientItem::Ask { request: Request::Commit { grant, spent }, .. } => {
            Item::Commit { grant: grant.0, spent: spent.to_vec() }
        }
        ClientItem::Ask { id, .. } => Item::Ask(id.0),
        ClientItem::Cancel(id) => Item::Cancel(id.0),
        ClientItem::KnowMoved(_) => Item::KnowMoved,
        ClientItem::Bye => Item::Bye,
        other => panic!("{other:?}"),
    };
    Items::new(message.get(0).unwrap()).map(|it| item(it.unwrap())).collect()
}

fn acquire(wait: Wait, hold: Hold) -> Request<'static> {
    let key = Key::parse("key").unwrap();
    Request::Acquire { demand: Demand::one(key, Cost::ONE), wait, hold }
}

fn spend() -> Request<'static> {
    acquire(Wait::No, Hold::Spend)
}

fn patient(millis: u64) -> Request<'static> {
    acquire(Wait::UpTo(Duration::from_millis(millis)), Hold::Spend)
}

fn lease(millis: u64) -> Request<'static> {
    acquire(Wait::No, Hold::lease(Duration::from_millis(millis)).unwrap())
}

fn yes(grant: Option<u64>) -> Reply {
    Reply::Decision(Decision {
        allowed: true,
        remaining: 0,
        retry_after: Some(Duration::ZERO),
        reset_after: Duration::ZERO,
        limit: "1/s".into(),
        key: 0,
        grant: grant.map(GrantId),
    })
}

const QUEUED: Reply = Reply::Queued { ahead: 0 };
