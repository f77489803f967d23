//! Which server a client asks, and whose answer counts: laws over random fates of links.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::asking::{ANSWER_EXPECTED, Asking, Input, LinkId, Output, RequestId};
use zmqlocker::time::Timestamp;

fn outputs(asking: &mut Asking) -> Vec<Output> {
    std::iter::from_fn(|| asking.poll_output()).collect()
}

fn up(asking: &mut Asking, links: usize) {
    for link in 0..links {
        asking.handle(Timestamp::ZERO, Input::Up(LinkId(link)));
    }
}

#[test]
fn a_request_waits_for_a_link() {
    let mut asking = Asking::new(1);
    let request = asking.ask(Timestamp::ZERO, None);
    assert_eq!(outputs(&mut asking), []);
    up(&mut asking, 1);
    assert_eq!(outputs(&mut asking), [Output::Send(LinkId(0), request)]);
}

#[test]
fn requests_go_round_the_links_that_are_up() {
    let mut asking = Asking::new(3);
    up(&mut asking, 3);
    asking.handle(Timestamp::ZERO, Input::Down(LinkId(1)));
    let mut asked = Vec::new();
    for _ in 0..4 {
        asking.ask(Timestamp::ZERO, None);
        if let [Output::Send(link, _)] = outputs(&mut asking)[..] {
            asked.push(link.0);
        }
    }
    assert_eq!(asked, [0, 2, 0, 2]);
}

#[test]
fn the_next_look_is_when_the_first_answer_is_overdue_that_is_still_expected() {
    let mut asking = Asking::new(2);
    assert_eq!(asking.poll_timeout(), None);
    let at = |millis| Timestamp::ZERO + Duration::from_millis(millis);
    let unsent = asking.ask(Timestamp::ZERO, None);
    assert_eq!(asking.poll_timeout(), None);
    asking.handle(at(10), Input::Up(LinkId(0)));
    asking.handle(at(10), Input::Up(LinkId(1)));
    let [second, third] = [20, 30].map(|millis| asking.ask(at(millis), None));
    assert_eq!(asking.poll_timeout(), Some(at(10) + ANSWER_EXPECTED));
    asking.forget(unsent);
    assert_eq!(asking.poll_timeout(), Some(at(20) + ANSWER_EXPECTED));
    asking.handle(at(40), Input::Queued(second));
    assert_eq!(asking.poll_timeout(), Some(at(30) + ANSWER_EXPECTED));
    assert!(asking.answered(LinkId(0), third));
    assert_eq!(asking.poll_timeout(), None);
}

#[test]
fn what_was_under_way_on_a_lost_link_is_asked_again() {
    let mut asking = Asking::new(2);
    up(&mut asking, 2);
    let request = asking.ask(Timestamp::ZERO, None);
    assert_eq!(outputs(&mut asking), [Output::Send(LinkId(0), request)]);
    asking.handle(Timestamp::ZERO, Input::Down(LinkId(0)));
    assert_eq!(outputs(&mut asking), [Output::Send(LinkId(1), request)]);
}

#[test]
fn what_was_to_be_sent_on_a_link_that_went_down_is_not() {
    let mut asking = Asking::new(1);
    up(&mut asking, 1);
    let request = asking.ask(Timestamp::ZERO, None);
    asking.handle(Timestamp::ZERO, Input::Down(LinkId(0)));
    asking.handle(Timestamp::ZERO, Input::Up(LinkId(0)));
    assert_eq!(outputs(&mut asking), [Output::Send(LinkId(0), request)]);
}

#[test]
fn a_late_answer_is_nobodys() {
    let mut asking = Asking::new(1);
    up(&mut asking, 1);
    let given_up = asking.ask(Timestamp::ZERO, None);
    asking.forget(given_up);
    let later = asking.ask(Timestamp::ZERO, None);
    outputs(&mut asking);
    assert!(!asking.answered(LinkId(0), given_up));
    assert!(asking.answered(LinkId(0), later));
    assert!(!asking.answered(LinkId(0), later));
    assert_eq!(outputs(&mut asking), []);
    assert!(asking.is_idle());
}

#[test]
fn what_is_about_one_server_is_asked_of_no_other() {
    let mut asking = Asking::new(2);
    up(&mut asking, 2);
    let request = asking.ask(Timestamp::ZERO, Some(LinkId(1)));
    assert_eq!(outputs(&mut asking), [Output::Send(LinkId(1), request)]);
    asking.handle(Timestamp::ZERO, Input::Down(LinkId(1)));
    assert_eq!(outputs(&mut asking), []);
    asking.handle(Timestamp::ZERO, Input::Up(LinkId(1)));
    assert_eq!(outputs(&mut asking), [Output::Send(LinkId(1), request)]);
}

#[test]
fn a_request_that_waits_at_its_server_is_asked_of_no_other() {
    let mut asking = Asking::new(2);
    up(&mut asking, 2);
    let request = asking.ask(Timestamp::ZERO, None);
    outputs(&mut asking);
    asking.handle(Timestamp::ZERO, Input::Queued(request));
    assert_eq!(asking.poll_timeout(), None);
    asking.handle(Timestamp::ZERO, Input::Down(LinkId(0)));
    assert_eq!(outputs(&mut asking), [Output::Send(LinkId(1), request)]);
    assert!(asking.poll_timeout().is_some());
}

#[test]
fn numbers_that_were_never_given_do_not_make_a_silent_server_trusted() {
    let mut asking = Asking::new(2);
    up(&mut asking, 2);
    let request = asking.ask(Timestamp::ZERO, None);
    let due = asking.poll_timeout().unwrap();
    asking.handle(due, Input::Tick);
    outputs(&mut asking);
    assert!(!asking.answered(LinkId(0), RequestId(request.0 + 1000)));
    asking.ask(due, None);
    assert!(matches!(outputs(&mut asking)[..], [Output::Send(LinkId(1), _)]));
}

#[test]
fn a_silent_server_is_left_alone_until_it_answers() {
    let mut asking = Asking::new(2);
    up(&mut asking, 2);
    let request = asking.ask(Timestamp::ZERO, None);
    outputs(&mut asking);
    let due = asking.poll_timeout().unwrap();
    assert_eq!(due, Timestamp::ZERO + ANSWER_EXPECTED);
    asking.handle(due, Input::Tick);
    assert_eq!(outputs(&mut asking), [Output::Send(LinkId(1), request)]);
    for _ in 0..3 {
        let next = asking.ask(due, None);
        assert_eq!(outputs(&mut asking), [Output::Send(LinkId(1), next)]);
    }
    assert!(asking.answered(LinkId(0), request));
    assert_eq!(outputs(&mut asking), []);
    let next = asking.ask(due, None);
    assert_eq!(outputs(&mut asking), [Output::Send(LinkId(0), next)]);
}

#[test]
fn a_silent_server_that_connects_anew_is_asked_again() {
    let mut asking = Asking::new(2);
    up(&mut asking, 2);
    asking.ask(Timestamp::ZERO, None);
    let due = asking.poll_timeout().unwrap();
    asking.handle(due, Input::Tick);
    asking.handle(due, Input::Down(LinkId(0)));
    asking.handle(due, Input::Up(LinkId(0)));
    outputs(&mut asking);
    let next = asking.ask(due, None);
    assert_eq!(outputs(&mut asking), [Output::Send(LinkId(0), next)]);
}

#[test]
fn a_single_server_is_never_asked_twice_over_one_connection() {
    let mut asking = Asking::new(1);
    up(&mut asking, 1);
    asking.ask(Timestamp::ZERO, None);
    outputs(&mut asking);
    assert_eq!(asking.poll_timeout(), None);
    asking.handle(Timestamp::ZERO + ANSWER_EXPECTED * 10, Input::Tick);
    assert_eq!(outputs(&mut asking), []);
}

#[derive(Clone, Debug)]
enum Fate {
    Ask,
    Forget(prop::sample::Index),
    Up(usize),
    Down(usize),
    Answer(prop::sample::Index),
    Pass(Duration),
}

const LINKS: usize = 3;

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        Just(Fate::Ask),
        any::<prop::sample::Index>().prop_map(Fate::Forget),
        (0..LINKS).prop_map(Fate::Up),
        (0..LINKS).prop_map(Fate::Down),
        any::<prop::sample::Index>().prop_map(Fate::Answer),
        (0..3_000_u64).prop_map(|millis| Fate::Pass(Duration::from_millis(millis))),
    ];
    vec(fate, 0..100)
}

/// A world that carries messages: what is on its way on a link is lost with it.
#[derive(Default)]
struct World {
    now: u64,
    up: BTreeSet<usize>,
    carried: Vec<(usize, RequestId)>,
    waited_for: BTreeMap<RequestId, BTreeSet<usize>>,
    delivered: BTreeSet<RequestId>,
}

impl World {
    fn take(&mut self, asking: &mut Asking) -> Result<(), TestCaseError> {
        for output in outputs(asking) {
            match output {
                Output::Send(LinkId(link), request) => {
                    prop_assert!(self.up.contains(&link), "sent to a link that is down");
                    let asked = self.waited_for.get_mut(&request);
                    prop_assert!(asked.is_some(), "sent for nobody");
                    prop_assert!(asked.unwrap().insert(link), "sent twice over one connection");
                    self.carried.push((link, request));
                }
            }
        }
        if !self.up.is_empty() {
            let unsent = self.waited_for.values().filter(|asked| asked.is_empty()).count();
            prop_assert_eq!(unsent, 0, "a request waits although a link is up");
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn whatever_happens_to_links_each_request_is_asked_and_answered_once(fates in fates()) {
        let mut asking = Asking::new(LINKS);
        let mut world = World::default();
        for fate in fates {
            let now = Timestamp::from_nanos(world.now);
            match fate {
                Fate::Ask => {
                    let request = asking.ask(now, None);
                    world.waited_for.insert(request, BTreeSet::new());
                }
                Fate::Forget(which) => {
                    let waiting: Vec<_> = world.waited_for.keys().copied().collect();
                    if !waiting.is_empty() {
                        let request = *which.get(&waiting);
                        asking.forget(request);
                        world.waited_for.remove(&request);
                    }
                }
                Fate::Up(link) => {
                    if world.up.insert(link) {
                        asking.handle(now, Input::Up(LinkId(link)));
                    }
                }
                Fate::Down(link) => {
                    if world.up.remove(&link) {
                        world.carried.retain(|(carrier, _)| *carrier != link);
                        for asked in world.waited_for.values_mut() {
                            asked.remove(&link);
                        }
                        asking.handle(now, Input::Down(LinkId(link)));
                    }
                }
                Fate::Answer(which) => {
                    if !world.carried.is_empty() {
                        let place = which.index(world.carried.len());
                        let (link, to) = world.carried.swap_remove(place);
                        let counts = asking.answered(LinkId(link), to);
                        prop_assert_eq!(counts, world.waited_for.remove(&to).is_some());
                        prop_assert!(!counts || world.delivered.insert(to), "given twice");
                    }
                }
                Fate::Pass(length) => {
                    world.now += u64::try_from(length.as_nanos()).unwrap();
                    asking.handle(Timestamp::from_nanos(world.now), Input::Tick);
                }
            }
            world.take(&mut asking)?;
        }
        prop_assert_eq!(asking.is_idle(), world.waited_for.is_empty());
    }
}

#[test]
fn a_request_that_was_turned_away_goes_where_it_is_wanted_and_past_who_owes_the_answer() {
    let mut asking = Asking::new(3);
    for link in 0..3 {
        asking.handle(Timestamp::ZERO, Input::Up(LinkId(link)));
    }
    let request = asking.ask_first(Timestamp::ZERO, Some(LinkId(1)));
    assert_eq!(asking.poll_output(), Some(Output::Send(LinkId(1), request)));
    asking.turn_away(LinkId(1), request);
    assert_eq!(asking.poll_output(), None);
    asking.send_to(Timestamp::ZERO, request, Some(LinkId(2)));
    assert_eq!(asking.poll_output(), Some(Output::Send(LinkId(2), request)));
    // That one is silent: another one is asked, even if it is said again to be the one.
    let due = asking.poll_timeout().unwrap();
    asking.handle(due, Input::Tick);
    let Some(Output::Send(other, _)) = asking.poll_output() else { panic!() };
    assert_ne!(other, LinkId(2));
    asking.turn_away(other, request);
    asking.send_to(due, request, Some(LinkId(2)));
    let Some(Output::Send(next, _)) = asking.poll_output() else { panic!() };
    assert_ne!(next, LinkId(2));
    assert!(asking.answered(LinkId(2), request));
}

#[test]
fn a_link_that_rests_is_asked_only_if_there_is_no_other() {
    let mut asking = Asking::new(1);
    asking.add_link();
    asking.rest(LinkId(0), true);
    asking.handle(Timestamp::ZERO, Input::Up(LinkId(0)));
    let first = asking.ask(Timestamp::ZERO, None);
    assert_eq!(asking.poll_output(), Some(Output::Send(LinkId(0), first)));
    asking.handle(Timestamp::ZERO, Input::Up(LinkId(1)));
    for _ in 0..2 {
        let request = asking.ask(Timestamp::ZERO, None);
        assert_eq!(asking.poll_output(), Some(Output::Send(LinkId(1), request)));
    }
}
