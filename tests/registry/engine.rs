//! Programs that a test starts and ends, the folders they live in, and the ports they have.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::PATIENCE;

/// A folder that is removed with this.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("zmqlocker-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    pub fn join(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Another user, for programs that do not run as root.
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    /// That of a name, if we are root.
    pub fn instead_of_root(name: &str, folder: &Folder) -> Option<Self> {
        if fs::metadata(&folder.0).unwrap().uid() != 0 {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let user = users.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        let user = user.unwrap_or_else(|| panic!("no user {name}: run scripts/debian"));
        let numbers: Vec<u32> =
            user.split(':').skip(1).take(2).map(|number| number.parse().unwrap()).collect();
        let user = Self { uid: numbers[0], gid: numbers[1] };
        user.own(&folder.0);
        Some(user)
    }

    pub fn own(&self, path: impl AsRef<Path>) {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).unwrap();
    }

    pub fn runs(user: Option<&Self>, command: &mut Command) {
        if let Some(user) = user {
            command.uid(user.uid).gid(user.gid).current_dir("/");
        }
    }
}

/// A program that runs, and is killed with this.
pub struct Running(Child);

impl Running {
    /// Starts it, and waits until it writes `ready`.
    pub fn start(command: &mut Command, ready: &'static str) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child =
            child.unwrap_or_else(|error| panic!("cannot run {name}: {error}: run scripts/debian"));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let running = Self(child);
        let (sender, receiver) = mpsc::channel();
        // It reads to the end, so that the program never waits for a reader.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut seen = Vec::new();
        loop {
            match receiver.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(ready) => return running,
                Ok(line) => seen.push(line),
                Err(error) => panic!("{name} does not start, {error}:\n{}", seen.join("\n")),
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(name, &self.0.id().to_string());
    }

    /// Sends a signal to it and to all that it has started.
    pub fn signal_all(&self, name: &str) {
        let pid = self.0.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        self.signal(name);
        children.split_whitespace().for_each(|child| signal(name, child));
    }

    /// Sends it a signal and waits until it has ended.
    pub fn end(mut self, name: &str) {
        self.signal(name);
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), pid]).status().unwrap().success());
    while name == "STOP" && !stands_still(pid) {
        thread::yield_now();
    }
}

/// Whether all threads of a process have stopped. The signal says so before they have.
fn stands_still(pid: &str) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(|thread| thread.unwrap().path().join("stat")).all(|path| {
        let stat = fs::read_to_string(path).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

/// Runs a program to its end.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
}
