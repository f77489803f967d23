//! Servers of a cluster over real registries, each on a thread of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use zmqlocker::cluster::{
    Epoch, Memory, Output, Partition, PartitionMap, RunId, ServerName, Settings, Standing,
};
use zmqlocker::net::{BootClock, Membership};
use zmqlocker::registry::RegistryUrl;
use zmqlocker::time::{Clock, Timestamp};

use crate::PATIENCE;
use crate::laws::Engine;

/// The next run of a server.
static RUNS: AtomicU64 = AtomicU64::new(1);

/// What all servers show, on the one clock of this host.
#[derive(Default)]
struct Board {
    /// Who is home of each partition, and until when.
    homes: PartitionMap<Option<(usize, Timestamp)>>,
    /// Whether it may grant, and not only hear what is held.
    grants: PartitionMap<bool>,
    /// When a partition was stopped to be handed over.
    stopped_at: PartitionMap<Option<Timestamp>>,
    /// How long each was without a home then.
    gaps: Vec<Duration>,
    problems: Vec<String>,
    left: Vec<usize>,
}

impl Board {
    /// How many partitions each server may grant in, in order.
    fn shares(&self) -> Vec<usize> {
        let grants = self.homes.iter().filter(|(partition, _)| self.grants[*partition]);
        let homes: Vec<_> = grants.filter_map(|(_, home)| *home).map(|(it, _)| it).collect();
        let homes = || homes.iter().copied();
        let last = homes().max().map_or(0, |server| server + 1);
        (0..last).map(|server| homes().filter(|home| *home == server).count()).collect()
    }

    /// Until when all of them are granted in at least.
    fn until(&self) -> Timestamp {
        let untils = self.homes.iter().map(|(_, home)| home.map_or(Timestamp::ZERO, |it| it.1));
        untils.min().unwrap_or(Timestamp::ZERO)
    }
}

type Shared = Arc<(Mutex<Board>, Condvar)>;

enum Event {
    Wake,
    Leave,
    Die,
}

/// A server; it dies with this.
struct Server {
    events: Sender<Event>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(number: usize, url: &str, board: &Shared) -> Self {
        let settings = Settings {
            name: ServerName::parse(&format!("s{number}")).unwrap(),
            run: RunId(RUNS.fetch_add(1, Ordering::Relaxed)),
            url: format!("tcp://s{number}:7777"),
            version: "0".to_owned(),
            cluster: String::new(),
            above: Epoch(0),
            first: Epoch(0),
            memory: Memory::default(),
        };
        let (events, inbox) = mpsc::channel();
        let (wake, board) = (events.clone(), Arc::clone(board));
        let url = RegistryUrl::parse(url).unwrap();
        let wake = move || drop(wake.send(Event::Wake));
        let mut member = Membership::start(&url, settings, wake).unwrap();
        let thread = thread::spawn(move || {
            loop {
                let due = member.poll_timeout().map_or(PATIENCE, |at| at.since(BootClock.now()));
                match inbox.recv_timeout(due) {
                    Ok(Event::Die) => return,
                    Ok(Event::Leave) => member.leave(),
                    Ok(Event::Wake) | Err(_) => member.advance(),
                }
                show(number, &mut member, &board);
            }
        });
        Self { events, thread: Some(thread) }
    }

    fn leave(&self) {
        self.events.send(Event::Leave).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Die);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Does what a member says, and shows what it may do.
fn show(number: usize, member: &mut Membership, board: &Shared) {
    let mut changes = member.changes();
    let mut shown = board.0.lock().unwrap();
    while !changes.is_empty() {
        for change in changes {
            let now = BootClock.now();
            match change {
                Output::Stop { partition, epoch } => {
                    shown.stopped_at[partition] = Some(now);
                    shown.homes[partition] = None;
                    member.give(partition, epoch, Some(format!("of s{number}").into_bytes()));
                }
                Output::Gained { partition, holds: Some(_), .. } => {
                    let gap = shown.stopped_at[partition].take().map(|at| now.since(at));
                    shown.gaps.extend(gap);
                }
                Output::Left => shown.left.push(number),
                Output::Failed(problem) => shown.problems.push(problem.to_string()),
                _ => {}
            }
        }
        changes = member.changes();
    }
    let now = BootClock.now();
    for partition in Partition::all() {
        let home = shown.homes[partition];
        let is_ours = home.is_some_and(|(server, _)| server == number);
        let standing = member.standing(now, partition);
        let grants = matches!(standing, Standing::Granting(_));
        let is_home = grants || matches!(standing, Standing::Reclaiming(..));
        if !is_home && is_ours {
            shown.homes[partition] = None;
        } else if is_home {
            shown.grants[partition] = grants;
            if let Some((other, until)) = home.filter(|(_, until)| !is_ours && now < *until) {
                let problem =
                    format!("s{other} is home of {partition} until {until:?}, at {now:?}");
                shown.problems.push(problem);
            }
            shown.homes[partition] = Some((number, member.home().alive_until()));
        }
    }
    board.1.notify_all();
}

/// Waits until the board shows this, and says how long that took.
#[track_caller]
fn wait(board: &Shared, what: &str, is_so: impl Fn(&Board) -> bool) -> Duration {
    let from = BootClock.now();
    let shown = board.0.lock().unwrap();
    let waiting = |shown: &mut Board| shown.problems.is_empty() && !is_so(shown);
    let (shown, _) = board.1.wait_timeout_while(shown, PATIENCE, waiting).unwrap();
    assert_eq!(shown.problems, Vec::<String>::new(), "{what}");
    assert!(is_so(&shown), "not {what}: {:?}", shown.shares());
    BootClock.now().since(from)
}

pub fn servers_share_what_there_is_and_take_it_over(engine: &mut impl Engine) {
    let board = Shared::default();
    let mut servers: Vec<_> =
        (0..3).map(|number| Server::start(number, &engine.url(), &board)).collect();
    let is_even = |shown: &Board| {
        let mut shares = shown.shares();
        shares.sort_unstable();
        shares == [21, 21, 22]
    };
    let joined = wait(&board, "even", is_even);
    let died_at = BootClock.now();
    drop(servers.remove(0));
    let dead_until = |shown: &Board| shown.until() > died_at + Duration::from_secs(1);
    let is_taken = |shown: &Board| shown.shares()[1..] == [32, 32] && dead_until(shown);
    let taken = wait(&board, "taken over", is_taken);
    board.0.lock().unwrap().gaps.clear();
    servers[0].leave();
    let left = wait(&board, "left", |shown| shown.left == [1] && shown.shares() == [0, 0, 64]);
    let gap = board.0.lock().unwrap().gaps.iter().max().copied();
    println!("even after {joined:?}, taken over {taken:?}, left {left:?}, gap {gap:?}");
    // What is handed over comes with what is held.
    assert_eq!(board.0.lock().unwrap().gaps.len(), 32);
}

pub fn servers_go_on_when_the_registry_is_back(engine: &mut impl Engine) {
    let board = Shared::default();
    let _servers = [0, 1].map(|number| Server::start(number, &engine.url(), &board));
    wait(&board, "even", |shown| shown.shares() == [32, 32]);
    engine.restart();
    let back_at = BootClock.now();
    let is_back = |shown: &Board| {
        shown.shares() == [32, 32] && shown.until() > back_at + Duration::from_millis(600)
    };
    let back = wait(&board, "back", is_back);
    println!("back after {back:?}");
}

pub fn a_second_server_of_a_name_fails(engine: &mut impl Engine) {
    let (board, second) = (Shared::default(), Shared::default());
    let _server = Server::start(0, &engine.url(), &board);
    wait(&board, "whole", |shown| shown.shares() == [64]);
    let _other = Server::start(0, &engine.url(), &second);
    let shown = second.0.lock().unwrap();
    let (shown, _) =
        second.1.wait_timeout_while(shown, PATIENCE, |shown| shown.problems.is_empty()).unwrap();
    assert!(shown.problems[0].contains("another server of this cluster is named \"s0\""));
    wait(&board, "whole still", |shown| shown.shares() == [64]);
}
