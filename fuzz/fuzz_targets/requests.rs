//! Arbitrary bytes as the messages of clients, through all that a server does with them but the
//! sockets: what is said is served or refused, the answers can be read, and the bounds hold.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use zmqlocker::engine::{
    Bounds, ClientInfo, GrantId, Input, Limits, Machine, Output, RequestId, Rules, SessionId,
};
use zmqlocker::time::Timestamp;
use zmqlocker::wire::Frames;
use zmqlocker::wire::reply::{Replies, encode_heard, encode_lost, encode_problem, encode_reply};
use zmqlocker::wire::request::{ClientItem, Items};
use zmqlocker::wire::seed::{BYTES_MAX, Envelope, FRAMES_MAX, encode_answer, parse_request};

const RULES: [(&str, &str); 5] = [
    ("a*", "5/s"),
    ("b*", "5/s sliding"),
    ("c*", "5/s gcra burst 2"),
    ("d*", "2 at once"),
    ("default", "3/s"),
];

const CONNECTIONS: usize = 3;

struct Server {
    machine: Machine<Envelope>,
    bounds: Bounds,
    /// Who speaks on which connection.
    sessions: [Option<SessionId>; CONNECTIONS],
    /// What was answered last.
    answered: Vec<(SessionId, RequestId)>,
}

impl Server {
    fn handle(&mut self, now: Timestamp, input: Input<'_, '_, Envelope>) {
        self.machine.handle(now, input);
        let mut body = Vec::new();
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Reply { session, request, reply } => {
                    self.answered.push((session, request));
                    encode_reply(&mut body, request, &reply);
                }
                Output::Lost { grants, .. } => encode_lost(&mut body, &grants),
                Output::Seed { to, answer } => {
                    let body = answer.map(encode_answer).unwrap_or(b"error");
                    assert!(to.answer(body).len() <= FRAMES_MAX + 1);
                }
                Output::WouldRefuse { .. }
                | Output::Record { .. }
                | Output::Lease { .. }
                | Output::Numbers { .. }
                | Output::Moved { .. }
                | Output::Await { .. } => {}
            }
            // An item is 4,096 bytes at most, so that a message of whole items always fits.
            assert!(body.len() <= 4096, "{} bytes", body.len());
            assert!(Replies::new(&body).all(|item| item.is_ok()), "{body:?}");
            body.clear();
        }
        let tally = self.machine.tally();
        assert!(tally.keys <= self.bounds.keys_max);
        assert!(tally.waiting <= self.bounds.waiters_max);
        assert!(tally.leases <= self.bounds.leases_max);
        assert!(tally.sessions <= self.bounds.sessions_max);
    }

    /// A message of ours, as the service takes it.
    fn converse(&mut self, now: Timestamp, connection: usize, body: &[u8]) {
        let mut out = Vec::new();
        for item in Items::new(body) {
            let knows = |session: &SessionId| self.machine.knows(*session);
            let session = self.sessions[connection].filter(knows);
            match (item, session) {
                (Ok(ClientItem::Hello(hello)), _) => {
                    match self.machine.greet(now, hello.session, ClientInfo::default()) {
                        Ok((id, _)) => {
                            let before = self.sessions[connection].replace(id);
                            if let Some(before) = before.filter(|before| *before != id) {
                                self.handle(now, Input::Bye(before));
                            }
                        }
                        Err(problem) => encode_problem(&mut out, &problem),
                    }
                }
                (Ok(ClientItem::Ask { id, request }), Some(session)) => {
                    self.handle(now, Input::Ask(session, id, &request));
                }
                (Ok(ClientItem::Beat { number, floor, open }), Some(session)) => {
                    encode_heard(&mut out, number);
                    self.handle(now, Input::Beat(session, floor, &open));
                }
                (Ok(ClientItem::Cancel(id)), Some(session)) => {
                    self.handle(now, Input::Cancel(session, id));
                }
                (Ok(ClientItem::Bye), Some(session)) => self.handle(now, Input::Bye(session)),
                (Ok(ClientItem::Bad { problem, .. }) | Err(problem), _) => {
                    encode_problem(&mut out, &problem);
                }
                (Ok(_), _) => {}
            }
            assert!(Replies::new(&out).all(|item| item.is_ok()), "{out:?}");
            out.clear();
        }
    }

    /// A message of the seed's, whose frames end with each `0xff`.
    fn answer_seed(&mut self, now: Timestamp, connection: usize, bytes: &[u8]) {
        let name = [0, 0, 0, 0, u8::try_from(connection).unwrap_or(0)];
        let frames = bytes.split(|byte| *byte == 0xff);
        let message: Frames = std::iter::once(&name[..]).chain(frames).collect();
        match parse_request(&message) {
            Ok(envelope) => {
                assert!(message.len() <= FRAMES_MAX && message.byte_len() <= BYTES_MAX);
                self.handle(now, Input::Next(envelope));
            }
            Err((bad, envelope)) => drop(envelope.answer(bad.to_string().as_bytes())),
        }
    }

    /// A connection is gone, and with it the last few answers.
    fn lose(&mut self, now: Timestamp, connection: usize) {
        let Some(session) = self.sessions[connection].take() else { return };
        let of_session = self.answered.iter().rev().take(9).filter(|(to, _)| *to == session);
        let lost: Vec<_> = of_session.map(|(_, request)| *request).collect();
        self.handle(now, Input::Lost(session, &lost));
    }
}

fuzz_target!(|messages: Vec<(u8, u32, Vec<u8>)>| {
    let rules = RULES.map(|(key, limit)| (key.to_owned(), Limits::parse(&[limit]).unwrap()));
    let rules = Rules::new(rules, None).unwrap();
    let bounds = Bounds {
        keys_max: 8,
        waiters_max: 4,
        key_waiters_max: 3,
        sessions_max: 2,
        leases_max: 4,
        client_leases_max: 3,
        answers_max: 40,
        client_answers_max: 30,
        ..Bounds::default()
    };
    let mut now = Timestamp::ZERO;
    let machine = Machine::new(now, rules, Duration::from_millis(100), bounds);
    let (sessions, answered) = ([None; CONNECTIONS], Vec::new());
    let mut server = Server { machine, bounds, sessions, answered };
    server.machine.number_grants_above(GrantId(8));
    server.machine.make_durable();
    server.machine.begin_locks(now, false);
    for (what, micros, message) in messages {
        now = now + Duration::from_micros(micros.into());
        let connection = usize::from(what) % CONNECTIONS;
        match usize::from(what) / CONNECTIONS % 8 {
            0 => server.answer_seed(now, connection, &message),
            1 => server.lose(now, connection),
            _ => server.converse(now, connection, &message),
        }
        for _ in 0..1000 {
            if server.machine.poll_timeout().is_none_or(|due| due > now) {
                break;
            }
            server.handle(now, Input::Tick);
        }
        let due = server.machine.poll_timeout();
        assert!(due.is_none_or(|due| due > now), "the time does not go on");
    }
    server.handle(now, Input::Close);
    assert_eq!(server.machine.tally().waiting, 0);
});
