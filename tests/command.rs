//! The command as Rust builds it, without Python around it: its log, its signals, its end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

const ZMQLOCKER: &str = env!("CARGO_BIN_EXE_zmqlocker");

fn zmqlocker(words: &[&str]) -> Command {
    let mut command = Command::new(ZMQLOCKER);
    command.args(words).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ZMQLOCKER_")) {
        command.env_remove(name);
    }
    command
}

/// A server on a port of the system's choice, its URL, and what else it logs.
fn serve() -> (Child, String, BufReader<impl Read>) {
    let words = ["serve", "--url=tcp://127.0.0.1:*", "--limit=default=1/h", "--log-format=json"];
    let mut server = zmqlocker(&words).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    assert!(line.contains("\"event\": \"start\""), "{line}");
    let (_, rest) = line.split_once("\"url\": \"").unwrap();
    let url = rest.split('"').next().unwrap().to_owned();
    (server, url, log)
}

#[test]
fn a_server_answers_logs_and_stops_when_it_is_told_to() {
    let (mut server, url, mut log) = serve();
    let next = |url: &str| {
        let words = ["next", "--timeout=30", "--url", url];
        let asked = zmqlocker(&words).output().unwrap();
        (asked.status.code(), asked.stdout.ends_with(b" go\n"))
    };
    assert_eq!([next(&url), next(&url)], [(Some(0), true), (Some(1), false)]);
    let told = Command::new("kill").arg(server.id().to_string()).status().unwrap();
    assert!(told.success());
    assert_eq!(server.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    let last = rest.lines().last().unwrap();
    assert!(last.contains("\"event\": \"stop\"") && last.contains("\"go\": 1"), "{last}");
}

#[test]
fn where_nobody_reads_on_a_command_ends_by_a_signal() {
    const SIGPIPE: i32 = 13;
    let (mut server, url, log) = serve();
    let words = ["next", "--repeat=1000000", "--every=0", "--url", &url];
    let mut asking =
        zmqlocker(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(asking.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ended = asking.wait_with_output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(SIGPIPE));
    assert_eq!(ended.stderr, b"");
    // The server's log is read no further either, and it goes on.
    drop(log);
    let words = ["next", "--timeout=30", "--url", &url];
    assert_eq!(zmqlocker(&words).output().unwrap().status.code(), Some(1));
    server.kill().unwrap();
    server.wait().unwrap();
}
