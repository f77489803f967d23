//! What can go wrong for a caller, in one type.

use std::time::Duration;

use thiserror::Error;

use crate::engine::Problem;

/// An error of this crate. A refusal is not one: it is an [`Answer`](crate::answer::Answer).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// An argument that can never work.
    #[error("{argument} {problem}")]
    Config {
        /// The name that the caller knows the argument by.
        argument: &'static str,
        /// The rest of the sentence: what is allowed, what was given, what to do.
        problem: String,
    },
    /// The caller's time ran out before an answer came.
    #[error(
        "no answer from {servers} within {} s{}{problem}",
        .timeout.as_secs_f64(),
        if .problem.is_empty() { "" } else { ": " }
    )]
    Timeout {
        /// The URLs that were asked.
        servers: String,
        /// How long the caller was ready to wait.
        timeout: Duration,
        /// Why there is no connection, where that is known; empty if a server is only silent.
        problem: String,
    },
    /// No server answered in time.
    #[error(
        "no answer from {servers} within {} s{}{problem}",
        .timeout.as_secs_f64(),
        if .problem.is_empty() { "" } else { ": " }
    )]
    Unavailable {
        /// The URLs that were asked.
        servers: String,
        /// How long the caller was ready to wait.
        timeout: Duration,
        /// Why there is no connection, where that is known; empty if a server is only silent.
        problem: String,
    },
    /// The caller waited for permits until its time ran out.
    #[error("no permit of {keys} within {} s{}", .timeout.as_secs_f64(), Limited(.limit))]
    Late {
        /// The keys that were asked for.
        keys: String,
        /// How long the caller was ready to wait.
        timeout: Duration,
        /// The limit that said no, where that is known; otherwise empty.
        limit: String,
    },
    /// The caller waited for locks until its time ran out.
    #[error("{keys} {} within {} s", were_not_free(.keys), .timeout.as_secs_f64())]
    NotFree {
        /// The locks that were asked for.
        keys: String,
        /// How long the caller was ready to wait.
        timeout: Duration,
    },
    /// No server answered, and the policy for that let nobody in.
    #[error("no permit of {keys}: no server answers, and the policy is {policy:?}")]
    ByPolicy {
        /// The keys that were asked for.
        keys: String,
        /// The name of the policy.
        policy: &'static str,
    },
    /// A server refused a request because it cannot be answered.
    #[error("{0}")]
    Refused(Problem),
    /// A server answered with something that is no answer.
    #[error("{server} does not speak this protocol: it answered {answer:?}")]
    Protocol {
        /// The server's URL.
        server: String,
        /// What it said.
        answer: String,
    },
    /// A server does not let a client in, or is not the one that it should be.
    #[error("{server} cannot be used: {problem}")]
    Denied {
        /// The server's URL.
        server: String,
        /// What is wrong with which key, and what to do.
        problem: String,
    },
    /// A client was used after it was closed.
    #[error("the client is closed: make a new one")]
    Closed,
    /// Whoever waited was told to stop waiting.
    #[error("the wait was interrupted")]
    Interrupted,
    /// The operating system or ZeroMQ refused something that ought to work.
    #[error("cannot {action}: {problem}")]
    System {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        problem: String,
    },
}

impl Error {
    /// An answer that is none to what was asked.
    #[must_use]
    pub fn unexpected(answer: &dyn std::fmt::Debug) -> Self {
        let answer = format!("{answer:?}").chars().take(200).collect();
        Self::Protocol { server: "the server".to_owned(), answer }
    }

    /// The same, of another argument.
    #[must_use]
    pub fn about(self, argument: &'static str) -> Self {
        match self {
            Self::Config { problem, .. } => Self::Config { argument, problem },
            other => other,
        }
    }

    /// Something that ought to work, and what the system said instead.
    #[must_use]
    pub fn system(action: &'static str, problem: &dyn std::fmt::Display) -> Self {
        Self::System { action, problem: problem.to_string() }
    }
}

/// What is said of locks that are taken together or not at all.
fn were_not_free(quoted: &str) -> &'static str {
    if quoted.contains("\", \"") { "were not free together" } else { "was not free" }
}

/// The limit in a sentence, if there is one.
struct Limited<'a>(&'a str);

impl std::fmt::Display for Limited<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(formatter, ": the limit is {:?}", self.0) }
    }
}
