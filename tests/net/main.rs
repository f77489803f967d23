//! Servers and clients over real sockets.

mod claims;
mod homes;
mod leaving;
mod names;

use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use zmqlocker::answer::Answer::{Go, Sorry};
use zmqlocker::config::{ClientConfig, ServerConfig, Url};
use zmqlocker::engine::Rate;
use zmqlocker::error::Error;
use zmqlocker::net::{Client, PerProcess, Server};

/// Far beyond any honest delay.
const PATIENCE: Duration = Duration::from_secs(30);

fn server(max_requests: i128, url: &str) -> Server {
    let rate = Rate::new(max_requests, 3600.0).unwrap();
    let config = ServerConfig::of_rate(rate, Url::parse(url).unwrap());
    Server::start(&config).unwrap()
}

fn client(url: &str) -> Client {
    let config = ClientConfig::new(vec![Url::parse(url).unwrap()], Some(PATIENCE)).unwrap();
    Client::new(config).unwrap()
}

fn free_url() -> String {
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("tcp://127.0.0.1:{}", probe.local_addr().unwrap().port())
}

#[test]
fn a_client_hears_go_and_sorry() {
    let server = server(1, "tcp://127.0.0.1:*");
    let client = client(server.url());
    assert_eq!(client.next(client.timeout(), &mut || true), Ok(Go));
    assert_eq!(client.next(client.timeout(), &mut || true), Ok(Sorry));
    assert_eq!((server.stats().go, server.stats().sorry), (1, 1));
}

#[test]
fn a_server_that_was_stopped_is_found_again() {
    let url = free_url();
    let client = client(&url);
    for _ in 0..3 {
        let server = server(1, &url);
        assert_eq!(client.next(client.timeout(), &mut || true), Ok(Go));
        server.stop();
        assert_eq!(server.wait(PATIENCE), Some(Ok(())));
    }
}

#[test]
fn a_wait_ends_when_it_is_told_to() {
    let client = client(&free_url());
    let mut slices = 0;
    let mut go_on = || {
        slices += 1;
        slices < 3
    };
    assert_eq!(client.next(None, &mut go_on), Err(Error::Interrupted));
    assert_eq!(slices, 3);
}

#[test]
fn a_thousand_threads_share_a_connection() {
    let server = server(700, "tcp://127.0.0.1:*");
    let client = client(server.url());
    let (sender, heard) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..1000 {
            scope.spawn(|| sender.send(client.next(client.timeout(), &mut || true)).unwrap());
        }
    });
    let answers: Vec<_> = heard.try_iter().collect();
    assert_eq!(answers.len(), 1000);
    assert_eq!(answers.iter().filter(|answer| **answer == Ok(Go)).count(), 700);
    assert_eq!(answers.iter().filter(|answer| **answer == Ok(Sorry)).count(), 300);
}

#[test]
fn a_port_in_use_says_which() {
    let first = server(1, "tcp://127.0.0.1:*");
    let rate = Rate::new(1, 1.0).unwrap();
    let config = ServerConfig::of_rate(rate, Url::parse(first.url()).unwrap());
    let error = Server::start(&config).unwrap_err().to_string();
    let url = first.url();
    let expected = format!(
        "url {url} cannot be bound: the address is in use: stop its owner or choose another port"
    );
    assert_eq!(error, expected);
}

#[test]
fn a_value_per_process_is_made_once() {
    let value = PerProcess::new();
    assert_eq!(value.get(), None);
    assert_eq!(*value.get_or_init(|| 1), 1);
    assert_eq!(*value.get_or_init(|| 2), 1);
    assert_eq!(value.get(), Some(&1));
}

#[cfg(feature = "cli")]
#[test]
fn the_command_asks_and_prints() {
    let server = server(2, "tcp://127.0.0.1:*");
    let output = Command::new(env!("CARGO_BIN_EXE_zmqlocker"))
        .args(["next", "--url", server.url(), "--repeat", "3", "--every", "0"])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<_> = printed.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(answers, ["go", "go", "sorry"]);
    assert_eq!(output.status.code(), Some(1));
}
