//! A server's place in its cluster, for real: its registry is asked on threads of their own.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::cluster::{
    Answer, Epoch, Holds, Home, Input, Lane, Message, Output, Partition, Request, Settings,
    Standing, Times,
};
use crate::error::Error;
use crate::net::clock::BootClock;
use crate::registry::{Outcome, Registry, RegistryUrl, Trouble};
use crate::time::{Clock, Timestamp};

/// How long the registry has for an answer: less than after which a home gives it up.
const WITHIN: Duration = Duration::from_millis(300);

/// How long it has for the first one.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How many requests may wait for a thread that is held up. The home gives up those beyond it.
const WAITING_MAX: usize = 8;

/// Tells the owner of a membership that something has come for it.
type Wake = Arc<dyn Fn() + Send + Sync>;

/// A server's place in its cluster. Its owner calls [`advance`](Self::advance) when it is woken and
/// when [`poll_timeout`](Self::poll_timeout) says so, and takes all changes after each call.
#[derive(Debug)]
pub struct Membership {
    home: Home,
    threads: Vec<LaneThread>,
    answers: Receiver<(Request, Timestamp, Answer)>,
    changes: Vec<Output>,
}

/// Asks the registry for one lane.
#[derive(Debug)]
struct LaneThread {
    lane: Lane,
    /// None when it is to end.
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Membership {
    /// Begins to join. The settings' own `cluster` and `above` are those of the URL.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the registry cannot be used, [`Error::System`] if there is no thread.
    pub fn start(
        url: &RegistryUrl,
        settings: Settings,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let (sender, answers) = mpsc::channel();
        let wake: Wake = Arc::new(wake);
        let mut threads = Vec::new();
        for (lane, name) in
            [(Lane::Beat, "zmql-beat"), (Lane::Look, "zmql-look"), (Lane::Step, "zmql-step")]
        {
            let registry = url.open(CONNECT_WITHIN)?;
            let (requests, waiting) = mpsc::sync_channel(WAITING_MAX);
            let (sender, wake) = (sender.clone(), Arc::clone(&wake));
            let thread = thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || serve(registry, &waiting, &sender, &wake))
                .map_err(|error| Error::system("start a thread", &error))?;
            threads.push(LaneThread { lane, requests: Some(requests), thread: Some(thread) });
        }
        let cluster = url.cluster().to_owned();
        let settings = Settings { cluster, above: url.above(), ..settings };
        let home = Home::new(settings, Times::default());
        let mut membership = Self { home, threads, answers, changes: Vec::new() };
        membership.handle(Input::Tick);
        Ok(membership)
    }

    /// Takes in what the registry has answered, and the time.
    pub fn advance(&mut self) {
        while let Ok((request, sent, answer)) = self.answers.try_recv() {
            self.handle(Input::Answer { request, sent, answer });
        }
        self.handle(Input::Tick);
    }

    /// The changes since this was asked last: never an [`Output::Send`].
    pub fn changes(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.changes)
    }

    /// Says what is held in a partition that was to be stopped.
    pub fn give(&mut self, partition: Partition, epoch: Epoch, holds: Holds) {
        self.handle(Input::Holds { partition, epoch, holds });
    }

    /// Asks to be allowed to grant leases of this length in a partition.
    pub fn cover(&mut self, partition: Partition, length: Duration) {
        self.handle(Input::Cover { partition, length });
    }

    /// Begins to hand over all that there is.
    pub fn leave(&mut self) {
        self.handle(Input::Leave);
    }

    /// When to call [`advance`](Self::advance) at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.home.poll_timeout()
    }

    /// What this server may do for the keys of a partition now.
    #[must_use]
    pub fn standing(&self, now: Timestamp, partition: Partition) -> Standing {
        self.home.standing(now, partition)
    }

    /// The server's place, to ask more of it.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    fn handle(&mut self, input: Input) {
        self.home.handle(BootClock.now(), input);
        while let Some(output) = self.home.poll_output() {
            let Output::Send(request) = output else {
                self.changes.push(output);
                continue;
            };
            let lane = request.purpose.lane();
            let thread = self.threads.iter().find(|thread| thread.lane == lane);
            if let Some(requests) = thread.and_then(|thread| thread.requests.as_ref()) {
                // Where there is no room it is not sent, and given up as if its answer were lost.
                let _ = requests.try_send(request);
            }
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        for thread in &mut self.threads {
            thread.requests = None;
        }
        for thread in &mut self.threads {
            if let Some(Err(_)) = thread.thread.take().map(JoinHandle::join) {
                let broke = "a thread of the registry broke: please report it";
                log::error!(target: "zmqlocker", "{broke}");
            }
        }
    }
}

/// Asks the registry, one request after the other, until there are no more.
fn serve(
    mut registry: Box<dyn Registry>,
    requests: &Receiver<Request>,
    answers: &mpsc::Sender<(Request, Timestamp, Answer)>,
    wake: &Wake,
) {
    while let Ok(request) = requests.recv() {
        let sent = BootClock.now();
        let answer = match &request.message {
            Message::Read(prefix) => Answer::Read(registry.read(prefix, WITHIN)),
            Message::Transact(transaction) => {
                Answer::Transacted(registry.transact(transaction, WITHIN))
            }
        };
        if let Answer::Read(Err(trouble)) | Answer::Transacted(Outcome::Unknown(trouble)) = &answer
        {
            tell(trouble);
        }
        if answers.send((request, sent, answer)).is_err() {
            return;
        }
        wake();
    }
}

fn tell(trouble: &Trouble) {
    log::debug!(target: "zmqlocker", "the registry: {trouble}");
}
