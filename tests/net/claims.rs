//! The path of a Unix socket is one server's at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;

use zmqlocker::config::{ServerConfig, Url};
use zmqlocker::engine::Rate;
use zmqlocker::error::Error;
use zmqlocker::net::Server;

/// A path that no test has used.
fn new_path(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

fn start(path: &Path) -> Result<Server, Error> {
    let url = Url::parse(&format!("ipc://{}", path.display())).unwrap();
    Server::start(&ServerConfig::of_rate(Rate::new(1, 1.0).unwrap(), url))
}

#[test]
fn of_servers_that_start_in_the_same_instant_one_has_the_path() {
    const SERVERS: usize = 4;
    let path = new_path("instant");
    for _ in 0..50 {
        let instant = Barrier::new(SERVERS);
        let start_at_once = || {
            instant.wait();
            start(&path)
        };
        let started: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..SERVERS).map(|_| scope.spawn(start_at_once)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let refused: Vec<_> = started
            .iter()
            .filter_map(|server| server.as_ref().err())
            .map(Error::to_string)
            .collect();
        assert_eq!(refused.len(), SERVERS - 1, "{refused:?}");
        let in_use = |error: &String| error.contains("cannot be bound: the address is in use");
        assert!(refused.iter().all(in_use), "{refused:?}");
    }
}

#[test]
fn a_server_whose_socket_was_removed_still_has_the_path() {
    let path = new_path("removed");
    let server = start(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let error = start(&path).unwrap_err().to_string();
    assert!(error.contains("cannot be bound: the address is in use"), "{error}");
    drop(server);
    start(&path).unwrap();
}

#[test]
fn a_path_that_cannot_be_claimed_says_why() {
    let path = new_path("folder").join("socket");
    let error = start(&path).unwrap_err().to_string();
    assert!(error.ends_with("cannot be bound: there is no such folder"), "{error}");
}

/// The file that is locked for a path.
fn lock_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.lock", path.display()))
}

#[test]
fn a_path_that_is_refused_is_left_as_it_was_found() {
    let path = new_path("refused");
    fs::write(&path, "not a socket").unwrap();
    let _ = fs::remove_file(lock_of(&path));
    let error = start(&path).unwrap_err().to_string();
    assert!(error.contains("the path is taken by what is no socket"), "{error}");
    assert!(!lock_of(&path).exists());
    fs::write(lock_of(&path), "of somebody else").unwrap();
    start(&path).unwrap_err();
    assert_eq!(fs::read_to_string(lock_of(&path)).unwrap(), "of somebody else");
}

#[test]
fn of_servers_that_start_where_others_are_refused_one_has_the_path() {
    const SERVERS: usize = 4;
    let path = new_path("freed");
    for _ in 0..50 {
        fs::write(&path, "not a socket").unwrap();
        let _ = fs::remove_file(lock_of(&path));
        let instant = Barrier::new(SERVERS + 1);
        let start_at_once = || {
            instant.wait();
            [start(&path), start(&path)]
        };
        let started: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..SERVERS).map(|_| scope.spawn(start_at_once)).collect();
            instant.wait();
            fs::remove_file(&path).unwrap();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert!(started.iter().filter(|server| server.is_ok()).count() <= 1);
        drop(started);
        let _ = fs::remove_file(&path);
    }
}
