//! A server and its clients in virtual time, where links fail, clients stop or die, clocks differ
//! and the server starts anew: the promises hold in all of it.
//!
//! `SIM_SEEDS=10000 cargo test --test sim` tries more seeds than usual.

mod client;
mod clock;
mod keys;
mod random;
mod scenario;
mod server;
mod witness;
mod world;

use std::panic::{self, AssertUnwindSafe};

use zmqlocker::engine::{ClientInfo, Cost, Input, Key, Output, Reply, Request, RequestId};

use crate::keys::{ACCOUNT, ACCOUNT_LIMIT, KEYS, Law};
use crate::scenario::{EVERYTHING, LEASES, Scenario};
use crate::world::{SECOND, World};

const SEEDS: u64 = 200;

/// How many permits of a key are left.
fn remaining(world: &mut World, key: &str, number: u64) -> u64 {
    let now = world.server_time();
    let machine = &mut world.server.machine;
    let (session, _) = machine.greet(now, [255; 16], ClientInfo::default()).unwrap();
    let request = Request::Peek { key: Key::parse(key).unwrap(), cost: Cost::ONE };
    machine.handle(now, Input::Ask(session, RequestId(number), &request));
    match machine.poll_output() {
        Some(Output::Reply { reply: Reply::Decision(decision), .. }) => decision.remaining,
        other => panic!("{other:?}"),
    }
}

fn simulate(scenario: Scenario, seed: u64) {
    let mut world = World::new(scenario, seed);
    world.run(world.calm_from + scenario.calm);
    world.check_uses();
    for client in world.clients.iter().filter(|client| !client.is_dead) {
        assert!(client.asked.is_empty(), "without an end: {:?}", client.asked);
        assert!(client.conversation.is_idle());
        assert_eq!(client.conversation.next_beat(), None, "a beat for nothing");
    }
    assert_eq!(world.server.machine.tally().waiting, 0);
    for (number, key) in (1..).zip(KEYS) {
        let left = remaining(&mut world, key.name, number);
        match key.law {
            Law::AtOnce(most) => assert_eq!(left, most as u64, "{} did not come back", key.name),
            _ if key.name == ACCOUNT => {
                let known = world.account.get(&world.server.run).copied().unwrap_or(0);
                let used = ACCOUNT_LIMIT - left;
                // What a dead client knew is not known.
                assert!(used == known || world.deaths > 0, "{used}, not {known}");
            }
            _ => {}
        }
    }
    world.run(world.now + 62 * SECOND);
    assert_eq!(world.server.machine.tally().sessions, 0);
    assert_eq!(world.server.machine.poll_timeout(), None);
}

fn simulate_all(scenario: Scenario) {
    let seeds = std::env::var("SIM_SEEDS").ok().map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let first = std::env::var("SIM_FIRST").ok().map_or(1, |seed| seed.parse().unwrap());
    for seed in first..first + seeds {
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| simulate(scenario, seed)));
        assert!(outcome.is_ok(), "seed {seed} fails: SIM_FIRST={seed} SIM_SEEDS=1 tries it alone");
    }
}

#[test]
fn the_promises_hold_whatever_fails() {
    simulate_all(EVERYTHING);
}

#[test]
fn no_lease_is_held_by_two_however_their_clocks_differ() {
    simulate_all(LEASES);
}
