//! What holds for every engine. Each test has an engine of its own.

use std::thread;
use std::time::Duration;

use zmqlocker::registry::{
    Change, Guard, Outcome, Registry, Revision, STEPS_MAX, Transaction, VALUE_BYTES_MAX,
};

pub use crate::members::{
    a_second_server_of_a_name_fails, servers_go_on_when_the_registry_is_back,
    servers_share_what_there_is_and_take_it_over,
};
use crate::{done, open, put, read, transact, unchanged};

/// Something that serves a registry.
pub trait Engine {
    fn start() -> Self;
    fn url(&self) -> String;
    /// It answers nobody, until this is called with `false`.
    fn silence(&mut self, is_silent: bool);
    /// It dies without a warning, and starts again with what it had.
    fn restart(&mut self);
}

/// The laws, as tests of an engine.
macro_rules! laws {
    ($engine:ty: $($law:ident)*) => {
        $(#[test]
        fn $law() {
            $crate::laws::$law(&mut <$engine as $crate::laws::Engine>::start());
        })*
    };
    ($engine:ty) => {
        $crate::laws::laws! { $engine:
            an_entry_is_made_once
            what_was_changed_meanwhile_is_not_changed
            all_is_changed_or_nothing
            an_entry_keeps_when_it_was_made_until_it_is_made_anew
            entries_come_below_a_prefix_and_in_order
            any_bytes_are_a_value_and_many_steps_a_transaction
            no_count_is_lost_among_many_writers
            a_reader_sees_all_of_a_transaction_or_nothing
            who_is_silent_gives_no_answer_in_time_and_later_again
            what_is_done_is_there_after_a_crash
            servers_share_what_there_is_and_take_it_over
            servers_go_on_when_the_registry_is_back
            a_second_server_of_a_name_fails
        }
    };
}
pub(crate) use laws;

pub fn an_entry_is_made_once(engine: &mut impl Engine) {
    let (mut one, mut other) = (open(&engine.url()), open(&engine.url()));
    let missing = unchanged("a", Revision::NONE);
    let made = done(transact(&mut *one, std::slice::from_ref(&missing), &[put("a", b"one")]));
    let again = transact(&mut *other, &[missing], &[put("a", b"other")]);
    assert_eq!(again, Outcome::Refused);
    let never = Guard::Created("a".to_owned(), Revision::NONE);
    assert_eq!(transact(&mut *other, &[never], &[put("a", b"other")]), Outcome::Refused);
    let found = read(&mut *other, "");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].key.as_str(), found[0].value.as_slice()), ("a", &b"one"[..]));
    assert_eq!((found[0].created, found[0].modified), (made, made));
}

pub fn what_was_changed_meanwhile_is_not_changed(engine: &mut impl Engine) {
    let (mut one, mut other) = (open(&engine.url()), open(&engine.url()));
    let seen = done(transact(&mut *one, &[], &[put("a", b"0")]));
    let newer = done(transact(&mut *other, &[unchanged("a", seen)], &[put("a", b"1")]));
    assert!(newer > seen);
    assert_eq!(transact(&mut *one, &[unchanged("a", seen)], &[put("a", b"2")]), Outcome::Refused);
    let delete = [Change::Delete("a".to_owned())];
    assert_eq!(transact(&mut *one, &[unchanged("a", seen)], &delete), Outcome::Refused);
    assert_eq!(read(&mut *one, "a")[0].value, b"1");
    done(transact(&mut *one, &[unchanged("a", newer)], &delete));
    assert_eq!(read(&mut *one, "a"), []);
}

pub fn all_is_changed_or_nothing(engine: &mut impl Engine) {
    let mut registry = open(&engine.url());
    let seen = done(transact(&mut *registry, &[], &[put("a", b"0"), put("b", b"0")]));
    let changes = [put("a", b"1"), Change::Delete("b".to_owned()), put("c", b"1")];
    let mixed = [unchanged("a", seen), unchanged("c", seen)];
    assert_eq!(transact(&mut *registry, &mixed, &changes), Outcome::Refused);
    assert_eq!(registry.read("", crate::PATIENCE).unwrap().revision, seen);
    let values: Vec<_> =
        read(&mut *registry, "").into_iter().map(|it| (it.key, it.value)).collect();
    assert_eq!(values, [("a".to_owned(), b"0".to_vec()), ("b".to_owned(), b"0".to_vec())]);
    let revision = done(transact(&mut *registry, &[unchanged("a", seen)], &changes));
    let found = read(&mut *registry, "");
    assert_eq!(found.iter().map(|it| it.key.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert!(found.iter().all(|it| it.value == b"1" && it.modified == revision));
}

pub fn an_entry_keeps_when_it_was_made_until_it_is_made_anew(engine: &mut impl Engine) {
    let mut registry = open(&engine.url());
    let made = done(transact(&mut *registry, &[], &[put("a", b"0")]));
    let later = done(transact(&mut *registry, &[], &[put("a", b"1")]));
    let found = read(&mut *registry, "a").remove(0);
    assert_eq!((found.created, found.modified), (made, later));
    let same = [Guard::Created("a".to_owned(), made)];
    done(transact(&mut *registry, &same, &[Change::Delete("a".to_owned())]));
    let anew = done(transact(&mut *registry, &[], &[put("a", b"2")]));
    assert_eq!(read(&mut *registry, "a")[0].created, anew);
    assert_eq!(transact(&mut *registry, &same, &[put("a", b"3")]), Outcome::Refused);
}

pub fn entries_come_below_a_prefix_and_in_order(engine: &mut impl Engine) {
    let mut registry = open(&engine.url());
    let keys = ["srv/b", "srv", "srw", "srv/a", "srv/B", "srv_x", "srv/\u{e4}", "part/1"];
    let changes: Vec<_> = keys.iter().map(|key| put(key, b"")).collect();
    let revision = done(transact(&mut *registry, &[], &changes));
    let snapshot = registry.read("srv/", crate::PATIENCE).unwrap();
    assert_eq!(snapshot.revision, revision);
    let found: Vec<_> = snapshot.entries.iter().map(|it| it.key.as_str()).collect();
    assert_eq!(found, ["srv/B", "srv/a", "srv/b", "srv/\u{e4}"]);
    assert_eq!(read(&mut *registry, "").len(), keys.len());
    assert_eq!(read(&mut *registry, "%"), []);
}

pub fn any_bytes_are_a_value_and_many_steps_a_transaction(engine: &mut impl Engine) {
    let mut registry = open(&engine.url());
    let all: Vec<u8> = (0..=255).cycle().take(VALUE_BYTES_MAX).collect();
    done(transact(&mut *registry, &[], &[put("all", &all), put("none", b"")]));
    let values: Vec<_> = read(&mut *registry, "").into_iter().map(|it| it.value).collect();
    assert_eq!(values, [all, Vec::new()]);
    let keys: Vec<_> = (0..STEPS_MAX).map(|number| format!("many/{number}")).collect();
    let guards: Vec<_> = keys.iter().map(|key| unchanged(key, Revision::NONE)).collect();
    let changes: Vec<_> = keys.iter().map(|key| put(key, b"x")).collect();
    done(transact(&mut *registry, &guards, &changes));
    assert_eq!(read(&mut *registry, "many/").len(), STEPS_MAX);
}

pub fn no_count_is_lost_among_many_writers(engine: &mut impl Engine) {
    const WRITERS: usize = 4;
    const EACH: usize = 10;
    let url = engine.url();
    let count = |mut registry: Box<dyn Registry>| {
        let mut counted = 0;
        while counted < EACH {
            let found = read(&mut *registry, "count").pop();
            let seen = found.as_ref().map_or(Revision::NONE, |entry| entry.modified);
            let count: usize =
                found.map_or(0, |it| String::from_utf8(it.value).unwrap().parse().unwrap());
            let next = put("count", (count + 1).to_string().as_bytes());
            match transact(&mut *registry, &[unchanged("count", seen)], &[next]) {
                Outcome::Done(_) => counted += 1,
                Outcome::Refused => {}
                Outcome::Unknown(trouble) => panic!("{trouble}"),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| count(open(&url)));
        }
    });
    let found = read(&mut *open(&url), "count");
    assert_eq!(found[0].value, (WRITERS * EACH).to_string().as_bytes());
}

pub fn a_reader_sees_all_of_a_transaction_or_nothing(engine: &mut impl Engine) {
    let (mut writer, mut reader) = (open(&engine.url()), open(&engine.url()));
    done(transact(&mut *writer, &[], &[put("x", b"0"), put("y", b"0")]));
    thread::scope(|scope| {
        let writing = scope.spawn(move || {
            for number in 1..=30 {
                let value = number.to_string();
                done(transact(
                    &mut *writer,
                    &[],
                    &[put("x", value.as_bytes()), put("y", value.as_bytes())],
                ));
            }
        });
        let mut last = Revision::NONE;
        while !writing.is_finished() {
            let snapshot = reader.read("", crate::PATIENCE).unwrap();
            assert_eq!(snapshot.entries[0].value, snapshot.entries[1].value);
            assert_eq!(snapshot.entries[0].modified, snapshot.revision);
            assert!(snapshot.revision >= last);
            last = snapshot.revision;
        }
    });
}

pub fn who_is_silent_gives_no_answer_in_time_and_later_again(engine: &mut impl Engine) {
    let mut registry = open(&engine.url());
    let seen = done(transact(&mut *registry, &[], &[put("a", b"0")]));
    engine.silence(true);
    let short = Duration::from_millis(100);
    let change = Transaction { guards: vec![unchanged("a", seen)], changes: vec![put("a", b"1")] };
    let outcome = registry.transact(&change, short);
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert!(registry.read("", short).is_err());
    engine.silence(false);
    // What was unknown has happened or has not; a guard makes sure that it does not happen later.
    let mut again = || {
        let found = registry.read("a", crate::PATIENCE).ok()?.entries.remove(0);
        let changes = [put("a", b"2")];
        let outcome = transact(&mut *registry, &[unchanged("a", found.modified)], &changes);
        matches!(outcome, Outcome::Done(_)).then_some(())
    };
    assert!((0..20).find_map(|_| again()).is_some(), "it does not come back");
    assert_eq!(read(&mut *registry, "a")[0].value, b"2");
    assert_eq!(transact(&mut *registry, &change.guards, &change.changes), Outcome::Refused);
}

pub fn what_is_done_is_there_after_a_crash(engine: &mut impl Engine) {
    let mut registry = open(&engine.url());
    let made = done(transact(&mut *registry, &[], &[put("a", b"0")]));
    engine.restart();
    // Over the old connection or a new one: the first answer may only tell that the old one broke.
    let found = registry.read("", crate::PATIENCE).or_else(|_| registry.read("", crate::PATIENCE));
    let found = found.unwrap();
    assert_eq!(found.revision, made);
    assert_eq!(found.entries[0].created, made);
    let later = done(transact(&mut *registry, &[unchanged("a", made)], &[put("a", b"1")]));
    assert!(later > made);
}
