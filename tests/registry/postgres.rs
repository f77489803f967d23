//! A registry in PostgreSQL, with passwords and over TLS.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use zmqlocker::registry::{Outcome, Transaction, Trouble};

use crate::engine::{Folder, Running, User, free_port, run};
use crate::laws::{Engine, laws};
use crate::tls::Certificates;
use crate::{done, open, problem, put, read, transact};

struct Postgres {
    folder: Folder,
    user: Option<User>,
    port: u16,
    certificates: Option<Certificates>,
    running: Option<Running>,
}

/// Debian keeps the programs of a server off the PATH.
fn programs() -> PathBuf {
    let found = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().map_while(Result::ok);
    let newest = found.max_by_key(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    newest.map_or_else(PathBuf::new, |entry| entry.path().join("bin"))
}

impl Postgres {
    fn start_with(certificates: Option<Certificates>) -> Self {
        let folder = Folder::new();
        let user = User::instead_of_root("postgres", &folder);
        let mut command = Command::new(programs().join("initdb"));
        let password = folder.join("password");
        fs::write(&password, "s@cret").unwrap();
        let data = folder.join("data");
        command.args(["-D", &data, "-U", "me", "-A", "scram-sha-256", "--no-sync"]);
        command.arg(format!("--pwfile={password}"));
        User::runs(user.as_ref(), &mut command);
        run(&mut command);
        if let Some(certificates) = &certificates {
            for (name, copy) in [("server.pem", "server.pem"), ("server.key", "server.key")] {
                let copy = folder.join(copy);
                fs::copy(certificates.path(name), &copy).unwrap();
                if let Some(user) = &user {
                    user.own(&copy);
                }
            }
            let rules = "hostssl all all 127.0.0.1/32 scram-sha-256\n";
            fs::write(format!("{data}/pg_hba.conf"), rules).unwrap();
        }
        let port = free_port();
        let mut postgres = Self { folder, user, port, certificates, running: None };
        postgres.run();
        postgres
    }

    fn run(&mut self) {
        let mut command = Command::new(programs().join("postgres"));
        command.args(["-D", &self.folder.join("data"), "-p", &self.port.to_string()]);
        command.args(["-h", "127.0.0.1", "-k", ""]);
        if self.certificates.is_some() {
            for (name, file) in [("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key")] {
                command.arg(format!("--{name}={}", self.folder.join(file)));
            }
            command.arg("--ssl=on");
        }
        User::runs(self.user.as_ref(), &mut command);
        self.running = Some(Running::start(&mut command, "ready to accept connections"));
    }

    fn url_of(&self, password: &str, options: &str) -> String {
        format!("postgresql://me:{password}@127.0.0.1:{}/postgres{options}", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.end("QUIT");
        }
    }
}

impl Engine for Postgres {
    fn start() -> Self {
        Self::start_with(None)
    }

    fn url(&self) -> String {
        self.url_of("s%40cret", "")
    }

    fn silence(&mut self, is_silent: bool) {
        self.running.as_ref().unwrap().signal_all(if is_silent { "STOP" } else { "CONT" });
    }

    /// At this signal it ends at once, as by a crash, and takes its helpers with it.
    fn restart(&mut self) {
        self.running.take().unwrap().end("QUIT");
        self.run();
    }
}

laws!(Postgres);

#[test]
fn tables_of_other_names_are_not_seen() {
    let postgres = Postgres::start();
    let at = |table: &str| open(&postgres.url_of("s%40cret", &format!("?table={table}")));
    done(transact(&mut *at("shop"), &[], &[put("a", b"1")]));
    assert_eq!(read(&mut *at("shop"), "").len(), 1);
    assert_eq!(read(&mut *at("other"), ""), []);
}

#[test]
fn many_servers_that_begin_at_once_make_one_table() {
    let postgres = Postgres::start();
    let url = postgres.url();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| open(&url));
        }
    });
    done(transact(&mut *open(&url), &[], &[put("a", b"1")]));
}

#[test]
fn who_stands_still_in_a_transaction_does_not_stop_the_others_for_long() {
    let postgres = Postgres::start();
    let (mut one, mut other) = (open(&postgres.url()), open(&postgres.url()));
    // Given up in the middle, as far as a tenth of a millisecond hits it; the others go on.
    let change = Transaction { guards: Vec::new(), changes: vec![put("a", b"1")] };
    for micros in (100..2_000).step_by(100) {
        one.transact(&change, Duration::from_micros(micros));
    }
    // Whoever was given up may stand before it for a second, and so may the one behind that.
    let put_other = || transact(&mut *other, &[], &[put("a", b"2")]);
    let is_known = |outcome: &Outcome| match outcome {
        Outcome::Unknown(Trouble(told)) => !told.contains("timeout"),
        _ => true,
    };
    let mut tries = std::iter::repeat_with(put_other).take(20);
    done(tries.find(is_known).expect("nobody stands in its way for ever"));
}

#[test]
fn what_does_not_work_is_told_of_without_the_password() {
    let postgres = Postgres::start();
    let nobody = free_port();
    for (url, part) in [
        (postgres.url_of("wrong", ""), "password authentication failed for user \"me\""),
        (postgres.url().replace("/postgres", "/nowhere"), "database \"nowhere\" does not exist"),
        (format!("postgresql://me:s%40cret@127.0.0.1:{nobody}/postgres"), "refused"),
        (postgres.url_of("s%40cret", "?sslmode=require"), "TLS"),
        (postgres.url_of("s%40cret", "?table=pg_class"), "column \"key\" does not exist"),
    ] {
        let told = problem(&url, Duration::from_secs(5));
        assert!(told.contains(part), "{told}");
        assert!(!told.contains("cret") && !told.contains("wrong"), "{told}");
    }
}

#[test]
fn the_server_shows_a_certificate_that_is_checked() {
    let postgres = Postgres::start_with(Some(Certificates::new()));
    let path = |name: &str| postgres.certificates.as_ref().unwrap().path(name);
    let trusted = format!("?sslmode=require&sslrootcert={}", path("ca.pem"));
    done(transact(&mut *open(&postgres.url_of("s%40cret", &trusted)), &[], &[put("a", b"1")]));
    for options in ["?sslmode=require", "?sslmode=disable"] {
        let told = problem(&postgres.url_of("s%40cret", options), Duration::from_secs(5));
        assert!(told.contains("certificate") || told.contains("no encryption"), "{told}");
    }
}
