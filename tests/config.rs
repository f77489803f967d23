//! The file `zmqlocker.toml`: what it may say, and the texts of all its errors.

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use zmqlocker::cluster::ServerName;
use zmqlocker::config::Url;
use zmqlocker::config_file::{ClientList, FileConfig};
use zmqlocker::engine::{Bounds, Limits, Rate, SomeBounds};
use zmqlocker::observe::WatchAddress;
use zmqlocker::registry::RegistryUrl;

const WHOLE: &str = r#"
url = "tcp://127.0.0.1:7777"
peers = ["tcp://b:7778"]
peers_url = "tcp://a:7778"
patience = 0.2
data_dir = "/var/lib/zmqlocker"
curve_key = "/etc/zmqlocker/server.key"
clients = "/etc/zmqlocker/clients.toml"
metrics = "127.0.0.1:9464"
registry = "etcd://a:2379,b:2379/shop"
name = "blue-1"
advertise = "tcp://db1:7777"
max_requests = 5          # both: the limit of every key without a rule
in_seconds = 0.8

[limits]
openai = ["500/min", "20 at once"]
"tenant:*" = "10/s"

[bounds]
keys_max = 1_000_000
waiters_max = 100_000
key_waiters_max = 1_000
sessions_max = 65_536
leases_max = 0xf4240
client_leases_max = 100
"#;

fn bounds(given: &[(&str, i128)]) -> SomeBounds {
    let mut bounds = SomeBounds::default();
    for (name, number) in given {
        bounds.set(name, *number).unwrap();
    }
    bounds
}

#[test]
fn every_bound_can_be_set_in_the_file() {
    let lines: Vec<_> = Bounds::NAMES.iter().map(|name| format!("{name} = 7")).collect();
    let file = FileConfig::parse("a", &format!("[bounds]\n{}", lines.join("\n"))).unwrap();
    let resolved = file.bounds.over(Bounds::default());
    assert!(Bounds::NAMES.iter().all(|name| resolved.named(name) == Some(7)), "{resolved:?}");
}

/// The problem of a file, without the name of the argument.
fn problem(text: &str) -> String {
    let error = FileConfig::parse("zmqlocker.toml", text).unwrap_err().to_string();
    error.strip_prefix("config ").unwrap().to_owned()
}

#[test]
fn a_file_says_all_that_a_server_can_be_told() {
    let limits = |texts: &[&str]| Limits::parse(texts).unwrap();
    assert_eq!(
        FileConfig::parse("zmqlocker.toml", WHOLE).unwrap(),
        FileConfig {
            url: Some(Url::parse("tcp://127.0.0.1:7777").unwrap()),
            peers: Some(vec![Url::parse("tcp://b:7778").unwrap()]),
            peers_url: Some(Url::parse("tcp://a:7778").unwrap()),
            patience: Some(Duration::from_millis(200)),
            metrics: Some(WatchAddress::parse("127.0.0.1:9464").unwrap()),
            data_dir: Some(PathBuf::from("/var/lib/zmqlocker")),
            curve_key: Some(PathBuf::from("/etc/zmqlocker/server.key")),
            clients: Some(ClientList::File(PathBuf::from("/etc/zmqlocker/clients.toml"))),
            registry: Some(RegistryUrl::parse("etcd://a:2379,b:2379/shop").unwrap()),
            name: Some(ServerName::parse("blue-1").unwrap()),
            advertise: Some(Url::parse("tcp://db1:7777").unwrap()),
            rate: Some(Rate::new(5, 0.8).unwrap()),
            limits: vec![
                ("openai".to_owned(), limits(&["500/min", "20 at once"])),
                ("tenant:*".to_owned(), limits(&["10/s"])),
            ],
            bounds: bounds(&[
                ("keys_max", 1_000_000),
                ("waiters_max", 100_000),
                ("key_waiters_max", 1_000),
                ("sessions_max", 65_536),
                ("leases_max", 1_000_000),
                ("client_leases_max", 100),
            ]),
        }
    );
}

#[test]
fn a_file_may_say_nothing() {
    assert_eq!(FileConfig::parse("a", "").unwrap(), FileConfig::default());
    assert_eq!(FileConfig::parse("a", "[limits]\n[bounds]").unwrap(), FileConfig::default());
}

#[test]
fn a_star_lets_any_client_in() {
    let config = FileConfig::parse("a", "clients = \"*\"").unwrap();
    assert_eq!(config.clients, Some(ClientList::Anybody));
}

#[test]
fn seconds_may_be_written_without_a_point() {
    let config = FileConfig::parse("a", "patience = 1\nmax_requests = 5\nin_seconds = 60").unwrap();
    assert_eq!(config.patience, Some(Duration::from_secs(1)));
    assert_eq!(config.rate, Some(Rate::new(5, 60.0).unwrap()));
}

#[test]
fn a_place_to_be_watched_reads_as_the_error_says() {
    let said = problem("metrics = \"x\"");
    let said = said.strip_prefix("zmqlocker.toml:1:11: metrics must read HOST:PORT").unwrap();
    assert!(said.ends_with("localhost or *, and PORT a number or *, not \"x\""), "{said}");
}

#[test]
fn an_error_has_a_line_a_column_and_a_way_out() {
    for (text, message) in [
        ("url = 7777", "1:7: url must be a string, not a whole number"),
        ("curve_key = \"\"", "1:13: curve_key must be the path of a file, not \"\""),
        ("clients = \"\"", "1:11: clients must be the path of a file, or \"*\", not \"\""),
        ("clients = []", "1:11: clients must be a string, not a list"),
        (
            "\nurl = \"a\"",
            "2:7: url must read tcp://HOST:PORT, ipc://PATH or inproc://NAME, not \"a\"",
        ),
        ("patience = \"1\"", "1:12: patience must be a number of seconds, not a string"),
        ("patience = -1", "1:12: patience must be from 0 and at most 1000000000 seconds, not -1.0"),
        ("patience = nan", "1:12: patience must be from 0 and at most 1000000000 seconds, not NaN"),
        ("data_dir = \"\"", "1:12: data_dir must be the path of a folder, not \"\""),
        ("max_requests = 5", "1:1: max_requests needs in_seconds beside it"),
        ("in_seconds = 5", "1:1: in_seconds needs max_requests beside it"),
        (
            "in_seconds = 1.0\nmax_requests = 5.0",
            "2:16: max_requests must be a whole number, not a number with a point",
        ),
        (
            "in_seconds = 1.0\nmax_requests = 0",
            "2:16: max_requests must be from 1 to 1000000000000, not 0",
        ),
        (
            "in_seconds = 0\nmax_requests = 1",
            "1:14: in_seconds must be above 0 and at most 1000000000 seconds, not 0.0",
        ),
        ("[limts]", "1:2: unknown key \"limts\": did you mean \"limits\"?"),
        (
            "colour = true",
            "1:1: unknown key \"colour\": there are url, patience, data_dir, metrics, \
             curve_key, clients, registry, name, advertise, max_requests, in_seconds, limits, \
             bounds, peers, peers_url",
        ),
        ("[bounds]\nkey_max = 1", "2:1: unknown key \"key_max\": did you mean \"keys_max\"?"),
        ("[bounds]\nkeys_max = 0", "2:12: keys_max must be from 1 to 1000000000, not 0"),
        ("bounds = 5", "1:10: bounds must be a table, not a whole number"),
        ("limits = []", "1:10: limits must be a table, not a list"),
        (
            "[limits]\na = 1",
            "2:5: limits of \"a\" must be a string or a list of strings, not a whole number",
        ),
        (
            "[limits]\na.b = \"1/s\"",
            "2:1: limits of \"a\" must be a string or a list of strings, not a table; a key with a \
             dot needs quotes",
        ),
        ("[limits]\na = []", "2:5: limits must be 1 to 8 for a key"),
        ("[limits]\na = [true]", "2:6: limit must be a string, not true or false"),
        (
            "[limits]\n\"é\" = [\"5/s\", \"500/mn\"]",
            "2:15: limit must read like \"500/min\": column 5 of \"500/mn\": expected a unit (s, \
             ms, min, h, day), found \"mn\"",
        ),
        (
            "[limits]\n\"*b\" = \"1/s\"\n\"a*\" = \"1/s\"",
            "3:1: limits must tell patterns apart: \"*b\" and \"a*\" fit the same keys and are as \
             specific; make one of them longer",
        ),
        (
            "[limits]\n\"\" = \"1/s\"",
            "2:1: limits must be for keys: key must be 1 to 256 bytes of UTF-8, not 0",
        ),
        ("[limits]\na = \"1/s\"\na = \"2/s\"", "3:1: duplicate key"),
    ] {
        assert_eq!(problem(text), format!("zmqlocker.toml:{message}"), "{text}");
    }
}

#[test]
fn all_errors_of_a_file_are_told_in_its_order() {
    assert_eq!(
        problem("max_requests = 0\nin_seconds = 0\n[limits]\na = [\"x\", \"5/s\", \"5/x\"]\n"),
        "zmqlocker.toml:1:16: max_requests must be from 1 to 1000000000000, not 0\n\
         zmqlocker.toml:2:14: in_seconds must be above 0 and at most 1000000000 seconds, not 0.0\n\
         zmqlocker.toml:4:6: limit must read like \"500/min\": column 1 of \"x\": expected a \
         whole number, found \"x\"\n\
         zmqlocker.toml:4:18: limit must read like \"500/min\": column 3 of \"5/x\": expected a \
         unit (s, ms, min, h, day), found \"x\""
    );
}

#[test]
fn so_many_errors_are_told_and_the_rest_are_counted() {
    let lines: Vec<_> = (0..25).map(|number| format!("x{number} = 1")).collect();
    let text = lines.join("\n");
    let problem = problem(&text);
    assert_eq!(problem.lines().count(), 21);
    assert!(problem.ends_with("\nzmqlocker.toml: and 5 errors more"), "{problem}");
}

#[test]
fn a_file_has_a_bound() {
    let text = " ".repeat(FileConfig::TEXT_BYTES_MAX + 1);
    let message = "zmqlocker.toml:1:1: must be at most 1048576 bytes, not 1048577";
    assert_eq!(problem(&text), message);
}

proptest! {
    #[test]
    fn any_text_is_a_config_or_errors_with_places(text in any::<String>()) {
        if FileConfig::parse("zmqlocker.toml", &text).is_err() {
            prop_assert!(problem(&text).starts_with("zmqlocker.toml:"));
        }
    }

    #[test]
    fn a_file_with_a_change_is_a_config_or_errors_with_places(
        at in 0..WHOLE.len(), removed in 0..20_usize, put in "[\\[\\]\"'=.*\n a1é#-]{0,3}"
    ) {
        // All of it is ASCII: it can be cut anywhere.
        let rest = &WHOLE[(at + removed).min(WHOLE.len())..];
        let text = format!("{}{put}{rest}", &WHOLE[..at]);
        if FileConfig::parse("zmqlocker.toml", &text).is_err() {
            prop_assert!(problem(&text).starts_with("zmqlocker.toml:"));
        }
    }
}
