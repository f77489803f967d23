//! A registry in etcd: one server, several of which some are away, with users and over TLS.

use std::process::Command;
use std::time::Duration;

use crate::engine::{Folder, Running, free_port, run};
use crate::laws::{Engine, laws};
use crate::tls::Certificates;
use crate::{done, open, problem, put, read, transact};

struct Etcd {
    folder: Folder,
    port: u16,
    peer_port: u16,
    certificates: Option<Certificates>,
    running: Option<Running>,
}

impl Etcd {
    fn start_with(certificates: Option<Certificates>) -> Self {
        let (folder, port, peer_port) = (Folder::new(), free_port(), free_port());
        let mut etcd = Self { folder, port, peer_port, certificates, running: None };
        etcd.run();
        etcd
    }

    fn run(&mut self) {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{}", self.port);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let mut command = Command::new("etcd");
        for (name, value) in [
            ("name", "one"),
            ("data-dir", &self.folder.join("data")),
            ("listen-client-urls", &client),
            ("advertise-client-urls", &client),
            ("listen-peer-urls", &peer),
            ("initial-advertise-peer-urls", &peer),
            ("initial-cluster", &format!("one={peer}")),
            ("heartbeat-interval", "50"),
            ("election-timeout", "500"),
        ] {
            command.arg(format!("--{name}={value}"));
        }
        if let Some(certificates) = &self.certificates {
            for (name, file) in [
                ("cert-file", "server.pem"),
                ("key-file", "server.key"),
                ("trusted-ca-file", "ca.pem"),
            ] {
                command.arg(format!("--{name}={}", certificates.path(file)));
            }
            command.arg("--client-cert-auth");
        }
        self.running = Some(Running::start(&mut command, "ready to serve client requests"));
    }

    fn control(&self, arguments: &[&str]) {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints=http://127.0.0.1:{}", self.port));
        run(command.args(arguments));
    }
}

impl Engine for Etcd {
    fn start() -> Self {
        Self::start_with(None)
    }

    fn url(&self) -> String {
        format!("etcd://127.0.0.1:{}/shop", self.port)
    }

    fn silence(&mut self, is_silent: bool) {
        self.running.as_ref().unwrap().signal(if is_silent { "STOP" } else { "CONT" });
    }

    fn restart(&mut self) {
        self.running = None;
        self.run();
    }
}

laws!(Etcd);

#[test]
fn registries_of_other_prefixes_are_not_seen() {
    let etcd = Etcd::start();
    let at = |prefix: &str| open(&format!("etcd://127.0.0.1:{}/{prefix}", etcd.port));
    done(transact(&mut *at("shop"), &[], &[put("a", b"1")]));
    assert_eq!(read(&mut *at("shop"), "").len(), 1);
    assert_eq!(read(&mut *at("sho"), ""), []);
    assert_eq!(read(&mut *at("shop/a"), ""), []);
}

#[test]
fn a_server_that_is_away_is_passed_over() {
    let (etcd, nobody) = (Etcd::start(), free_port());
    for away in [format!("127.0.0.1:{nobody}"), format!("no..name:{nobody}")] {
        let mut registry = open(&format!("etcd://{away},127.0.0.1:{}", etcd.port));
        done(transact(&mut *registry, &[], &[put("a", b"1")]));
        assert_eq!(read(&mut *registry, "").len(), 1);
    }
}

#[test]
fn a_server_that_has_a_name_is_found_again() {
    let mut etcd = Etcd::start();
    let mut registry = open(&format!("etcd://localhost:{}", etcd.port));
    done(transact(&mut *registry, &[], &[put("a", b"1")]));
    etcd.running = None;
    assert!(registry.read("", Duration::from_millis(500)).is_err());
    etcd.run();
    assert_eq!(read(&mut *registry, "").len(), 1);
}

#[test]
fn a_server_that_falls_silent_costs_one_answer() {
    let (mut silent, etcd) = (Etcd::start(), Etcd::start());
    // Two servers of one cluster would share what they hold; for one answer more, these need not.
    let mut registry = open(&format!("etcd://127.0.0.1:{},127.0.0.1:{}", silent.port, etcd.port));
    silent.silence(true);
    let told = registry.read("", Duration::from_millis(100)).unwrap_err().to_string();
    assert!(told.contains(&format!("127.0.0.1:{}: ", silent.port)), "{told}");
    assert!(registry.read("", crate::PATIENCE).is_ok());
    silent.silence(false);
}

#[test]
fn nobody_there_is_told_of() {
    let port = free_port();
    let told = problem(&format!("etcd://127.0.0.1:{port}/shop"), Duration::from_secs(1));
    let start =
        format!("registry etcd://127.0.0.1:{port}/shop: cannot be reached: 127.0.0.1:{port}");
    assert!(told.starts_with(&start), "{told}");
}

#[test]
fn who_is_not_etcd_is_told_of() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    });
    let told = problem(&format!("etcd://127.0.0.1:{port}"), Duration::from_secs(5));
    assert!(told.contains("this is not etcd: 200 OK, \"hello\""), "{told}");
    server.join().unwrap();
}

#[test]
fn a_user_needs_the_password_and_tokens_are_asked_for_anew() {
    let mut etcd = Etcd::start();
    for arguments in [
        &["user", "add", "root:top"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "ours"],
        &["role", "grant-permission", "ours", "readwrite", "--prefix=true", "shop/"],
        &["user", "add", "me:s@cret"],
        &["user", "grant-role", "me", "ours"],
        &["auth", "enable"],
    ] {
        etcd.control(arguments);
    }
    let url = |user: &str, prefix: &str| format!("etcd://{user}127.0.0.1:{}/{prefix}", etcd.port);
    let told = problem(&url("me:wrong@", "shop"), Duration::from_secs(5));
    assert!(told.contains("cannot authenticate") && !told.contains("wrong"), "{told}");
    assert!(problem(&url("", "shop"), Duration::from_secs(5)).contains("refuses: "));
    assert!(problem(&url("me:s%40cret@", "other"), Duration::from_secs(5)).contains("refuses: "));
    let mut registry = open(&url("me:s%40cret@", "shop"));
    done(transact(&mut *registry, &[], &[put("a", b"1")]));
    // A server that was started anew knows the tokens of before no more.
    etcd.restart();
    done(transact(&mut *registry, &[], &[put("a", b"2")]));
}

#[test]
fn both_ends_show_certificates() {
    let etcd = Etcd::start_with(Some(Certificates::new()));
    let path = |name: &str| etcd.certificates.as_ref().unwrap().path(name);
    let base = format!("etcd://127.0.0.1:{}/shop", etcd.port);
    let ca = format!("{base}?ca={}", path("ca.pem"));
    let whole = format!("{ca}&cert={}&key={}", path("client.pem"), path("client.key"));
    done(transact(&mut *open(&whole), &[], &[put("a", b"1")]));
    let short = Duration::from_secs(5);
    for (url, part) in [
        (format!("{base}?tls=on"), "certificate"),
        (ca, "does not answer"),
        (format!("{base}?ca={}", path("server.key")), "there is no certificate in it"),
        (format!("{base}?ca=/nowhere"), "cannot use /nowhere for TLS"),
        (base, "does not answer"),
    ] {
        let told = problem(&url, short).to_lowercase();
        assert!(told.contains(&part.to_lowercase()), "{url}: {told}");
    }
}
