//! What a home is told, and what it says.

use std::fmt;
use std::time::Duration;

use crate::cluster::partition::Partition;
use crate::cluster::record::{Epoch, ServerName, Strange};
use crate::registry::{Outcome, Revision, Snapshot, Transaction, Trouble};
use crate::time::Timestamp;

/// What is held in a partition, as its home writes it down; none if that is too long, so that the
/// successor has to hear it from the holders.
pub type Holds = Option<Vec<u8>>;

/// What a home is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// Nothing but the time.
    Tick,
    /// A request to the registry was answered. Whatever is not known is to be said to be so.
    Answer {
        /// The request, as it was asked for.
        request: Request,
        /// A time before the request left.
        sent: Timestamp,
        /// What came back.
        answer: Answer,
    },
    /// What is held in a partition that was to be stopped.
    Holds {
        /// The partition.
        partition: Partition,
        /// As it was asked for.
        epoch: Epoch,
        /// What is held, at most [`HOLDS_BYTES_MAX`](crate::cluster::HOLDS_BYTES_MAX).
        holds: Holds,
    },
    /// Leases of this length are about to be granted in a partition, which is longer than the usual
    /// grace: whoever takes over has to wait for them. They may be granted when
    /// [`Output::Covered`] comes, and not before.
    Cover {
        /// The partition.
        partition: Partition,
        /// The longest lease.
        length: Duration,
    },
    /// The server is about to end: what it has is to be handed over.
    Leave,
}

/// What the registry said.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To a [`Message::Read`].
    Read(Result<Snapshot, Trouble>),
    /// To a [`Message::Transact`].
    Transacted(Outcome),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask the registry. Requests of different lanes do not wait for each other.
    Send(Request),
    /// This server is home of a partition from now on.
    Gained {
        /// The partition.
        partition: Partition,
        /// What the numbers of its grants begin with.
        epoch: Epoch,
        /// When it may grant: until then it only hears from holders what they hold. In the past if
        /// there is nothing to hear.
        start: Timestamp,
        /// What is held, if it was handed over.
        holds: Holds,
        /// Whether nobody had it before: nothing is held, and nothing is used.
        is_first: bool,
    },
    /// Grant nothing more in this partition, and say what is held by [`Input::Holds`].
    Stop {
        /// The partition.
        partition: Partition,
        /// To be said with it.
        epoch: Epoch,
    },
    /// Leases up to this length may be granted in a partition, for as long as this server is its
    /// home.
    Covered {
        /// The partition.
        partition: Partition,
        /// The longest lease.
        length: Duration,
    },
    /// This server is not home of a partition any more, and never knew that it would not be.
    Lost {
        /// The partition.
        partition: Partition,
    },
    /// All was handed over, and the server is not in the cluster any more.
    Left,
    /// The server cannot be in the cluster, and is home of nothing. Nothing more comes.
    Failed(Problem),
}

/// Something to ask the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which one of its lane it is.
    pub number: u64,
    /// What it is for.
    pub purpose: Purpose,
    /// What to ask.
    pub message: Message,
}

/// A call of a [`Registry`](crate::registry::Registry).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Read all below this prefix.
    Read(&'static str),
    /// Make these changes.
    Transact(Transaction),
}

/// Requests of one lane follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What keeps the server alive.
    Beat,
    /// What it sees.
    Look,
    /// What changes hands.
    Step,
}

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To see all, of this revision at the earliest.
    Look {
        /// The last revision that was known.
        least: Revision,
    },
    /// To read what is held in partitions that were handed over.
    ReadHolds,
    /// To say which cluster this is.
    Found,
    /// To join.
    Register,
    /// To delete the entry that an earlier server of the same name or URL has left.
    Unseat,
    /// To stay alive.
    Beat {
        /// Whose beat it is.
        incarnation: Revision,
        /// Whether it says that the server leaves.
        is_leaving: bool,
    },
    /// To leave.
    Quit,
    /// To take partitions over.
    TakeOver {
        /// Who takes them.
        incarnation: Revision,
        /// Which ones, and the epochs that begin.
        gains: Vec<(Partition, Epoch)>,
    },
    /// To hand partitions over.
    HandOver {
        /// Which ones, and the epochs that begin.
        gifts: Vec<(Partition, Epoch)>,
    },
    /// To say how long leases are.
    Cover,
    /// To delete what was read.
    Tidy,
}

impl Purpose {
    /// The requests that it is one of.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Look { .. } | Self::ReadHolds => Lane::Look,
            Self::Register | Self::Unseat | Self::Beat { .. } | Self::Quit => Lane::Beat,
            Self::Found
            | Self::TakeOver { .. }
            | Self::HandOver { .. }
            | Self::Cover
            | Self::Tidy => Lane::Step,
        }
    }
}

/// Why a server cannot be in its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Another server has the name, and is alive.
    NameTaken {
        /// The name.
        name: ServerName,
        /// Where the other one serves.
        url: String,
    },
    /// Another server serves at the URL, and is alive.
    UrlTaken {
        /// Its name.
        name: ServerName,
        /// The URL.
        url: String,
    },
    /// The registry is that of another cluster.
    OtherCluster {
        /// What was wanted.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// Servers of another version write other records.
    OtherFormat {
        /// The entry.
        key: String,
        /// The version of its record.
        found: String,
    },
    /// There is something that no server writes.
    Strange {
        /// The entry.
        key: String,
    },
    /// The registry knows less than before.
    WentBack {
        /// What it is that went back.
        what: String,
        /// The last epoch that is known of any partition.
        last: Epoch,
    },
    /// Partitions have changed hands two thousand million times.
    NoEpochsLeft,
}

impl From<Strange> for Problem {
    fn from(strange: Strange) -> Self {
        match strange {
            Strange::Format { key, found } => Self::OtherFormat { key, found },
            Strange::Entry { key } => Self::Strange { key },
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken { name, url } => write!(
                formatter,
                "another server of this cluster is named {name:?}, and serves {url}: give each \
                 server a name of its own",
                name = name.as_str()
            ),
            Self::UrlTaken { name, url } => write!(
                formatter,
                "the server {name:?} of this cluster is found at {url} as well: give each server a \
                 URL of its own, by `url` or by `advertise`",
                name = name.as_str()
            ),
            Self::OtherCluster { wanted, found } => write!(
                formatter,
                "the registry is of the cluster {found}, not of {wanted}: give each cluster a \
                 prefix, a table or a folder of its own"
            ),
            Self::OtherFormat { key, found } => write!(
                formatter,
                "the entry {key} of the registry is of format {found}, and this version reads \
                 format 1: run servers of one version in a cluster"
            ),
            Self::Strange { key } => write!(
                formatter,
                "the entry {key} of the registry is none of zmqlocker: give the cluster a prefix, \
                 a table or a folder of its own"
            ),
            Self::WentBack { what, last } => write!(
                formatter,
                "the registry went back: {what}. It was restored from an old backup, or entries \
                 were deleted, and numbers of grants would be given twice. Stop all servers of the \
                 cluster, and start them with `above={last}` in the registry's URL, or a number \
                 above that if another server tells of one",
                last = last.0
            ),
            Self::NoEpochsLeft => write!(
                formatter,
                "partitions have changed hands too often: there is no epoch left. Begin a new \
                 cluster, under a prefix, a table or a folder of its own"
            ),
        }
    }
}
