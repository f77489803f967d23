//! What was granted to a caller that has left goes back, at whatever moment it left.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use zmqlocker::config::{ServerConfig, Url};
use zmqlocker::engine::{
    Cost, Decision, Demand, Hold, Key, Limits, Rate, Reply, Request, Rules, Wait,
};
use zmqlocker::error::Error;
use zmqlocker::net::{AtOnce, Client, Heard, Lender, Server};

use super::{PATIENCE, client};

/// More requests than a client makes before it tells the server which answers it has.
const MANY: usize = 100;

fn server(key: &str, limit: &str) -> Server {
    let url = Url::parse("tcp://127.0.0.1:*").unwrap();
    let mut config = ServerConfig::of_rate(Rate::new(1, 1.0).unwrap(), url);
    config.rules = Rules::new([(key.to_owned(), Limits::parse(&[limit]).unwrap())], None).unwrap();
    Server::start(&config).unwrap()
}

fn ask(
    client: &Client,
    request: &Request<'_>,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Heard, Error> {
    client.ask(request, None, Some(PATIENCE), go_on)
}

fn remaining(client: &Client, key: &str) -> u64 {
    let request = Request::Peek { key: Key::parse(key).unwrap(), cost: Cost::ONE };
    let heard = ask(client, &request, &mut || true).unwrap();
    let Reply::Decision(Decision { remaining, .. }) = heard.reply else { panic!("{heard:?}") };
    remaining
}

#[test]
fn a_lease_that_was_granted_to_a_thread_on_its_way_out_goes_back() {
    let server = server("seat", "1 at once");
    let client = client(server.url());
    let demand = Demand::one(Key::parse("seat").unwrap(), Cost::ONE);
    let hold = Hold::lease(Duration::from_secs(60)).unwrap();
    let lease = Request::Acquire { demand, wait: Wait::UpTo(PATIENCE), hold };
    let first = ask(&client, &lease, &mut || true).unwrap().granted().unwrap();
    let (is_away, away) = mpsc::channel();
    let (come_back, back) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let leaving = scope.spawn(|| {
            let back = back;
            let mut go_on = || {
                is_away.send(()).unwrap();
                back.recv().unwrap();
                false
            };
            ask(&client, &lease, &mut go_on)
        });
        away.recv().unwrap();
        // This thread hears meanwhile that the other one has the lease, and of much else.
        ask(&client, &Request::Release { grant: first.grant() }, &mut || true).unwrap();
        for _ in 0..MANY {
            assert_eq!(remaining(&client, "seat"), 0);
        }
        come_back.send(()).unwrap();
        assert_eq!(leaving.join().unwrap(), Err(Error::Interrupted));
    });
    assert_eq!(remaining(&client, "seat"), 1);
}

#[test]
fn permits_that_were_asked_for_ahead_go_back_with_the_rest_of_a_block() {
    let server = server("call", "1000/h");
    let client = Arc::new(client(server.url()));
    let lender = Lender::new(Arc::clone(&client), "call").unwrap();
    let AtOnce::Ask(wanted) = lender.spend(Cost::ONE).unwrap() else { panic!("there are none") };
    lender.refill(wanted, Some(PATIENCE), &mut || true).unwrap();
    let left = lender.left();
    for _ in 0..left - 1 {
        assert_eq!(lender.spend(Cost::ONE).unwrap(), AtOnce::Yes);
    }
    // The answer to what was asked for at half of the block comes before that to a later request.
    assert!(remaining(&client, "call") < 1000 - left);
    assert_eq!(lender.left(), 1);
    lender.close();
    assert_eq!(remaining(&client, "call"), 1000 - (left - 1));
}
