//! What the outcome of a request means for whoever asked.

use std::time::Duration;

use crate::answer::Answer;
use crate::asking::LinkId;
use crate::config::Url;
use crate::conversation::Outcome;
use crate::engine::{Code, Decision, Hold, Key, Problem, Reply, Request, Wait};
use crate::error::Error;
use crate::net::client::{Client, Heard};
use crate::net::connections::Connections;
use crate::wire::seed;

/// How much of an answer that is none is shown, in characters.
const QUOTE_MAX: usize = 200;

impl Client {
    /// What the outcome of a seed's request means for whoever asked.
    ///
    /// # Errors
    ///
    /// As [`Client::next`]; [`Error::Refused`] if the server says why it cannot answer.
    pub fn judge_seed(&self, timeout: Option<Duration>, outcome: Outcome) -> Result<Answer, Error> {
        if let Outcome::Denied(by) = outcome {
            return Err(self.denied(by));
        }
        let Outcome::Seed(from, body) = outcome else {
            return Err(Error::Timeout {
                servers: self.servers(),
                timeout: timeout.unwrap_or_default(),
                problem: self.connections().map_or_else(|_| String::new(), Connections::problems),
            });
        };
        seed::parse_answer(&body).ok_or_else(|| match body.strip_prefix(b"error: key ") {
            // The only key that these requests are for, and it is the server's rules that lack it.
            _ if body.starts_with(seed::DENIAL) => Error::Refused(Problem {
                code: Code::Auth,
                message: String::from_utf8_lossy(&body[b"error: ".len()..]).into_owned(),
            }),
            Some(_) => Error::Refused(Problem {
                code: Code::Config,
                message: String::from_utf8_lossy(&body[b"error: ".len()..]).into_owned(),
            }),
            None => self.nonsense(from, &body),
        })
    }

    /// What the outcome of a request means for whoever asked.
    ///
    /// # Errors
    ///
    /// As [`Client::ask`].
    pub fn judge(
        &self,
        request: &Request<'_>,
        timeout: Option<Duration>,
        outcome: Outcome,
    ) -> Result<Heard, Error> {
        let timeout = timeout.unwrap_or_default();
        match outcome {
            Outcome::Reply(link, reply) => {
                let heard = judge_reply(request, timeout, link, reply)?;
                if self.is_over(request, &heard) {
                    return Err(over(request));
                }
                Ok(heard)
            }
            Outcome::Late => Err(late(request, timeout, String::new())),
            Outcome::Silence => {
                let problem =
                    self.connections().map_or_else(|_| String::new(), Connections::problems);
                Err(Error::Unavailable { servers: self.servers(), timeout, problem })
            }
            Outcome::Denied(by) => Err(self.denied(by)),
            Outcome::Replies(_, replies) => Err(Error::unexpected(&replies)),
            Outcome::Seed(link, body) => Err(self.nonsense(link, &body)),
        }
    }

    pub(super) fn denied(&self, by: LinkId) -> Error {
        let problem = self.connections().map(|connections| connections.problem_of(by));
        let server = self.server_of(by);
        Error::Denied { server, problem: problem.unwrap_or_default() }
    }

    /// Whether a lease was over before anybody had it, as when the process was stopped meanwhile.
    /// It is given back then, so that the keys can be asked for again.
    fn is_over(&self, request: &Request<'_>, heard: &Heard) -> bool {
        let is_lease =
            matches!(request, Request::Lock { .. } | Request::Acquire { hold: Hold::Lease(_), .. });
        let Some(granted) = heard.granted().filter(|_| is_lease) else { return false };
        if self.is_safe(granted) || self.lease_remaining(granted).is_some() {
            return false;
        }
        // A client that is closed has given everything back already.
        let _ = self.tell(&Request::Release { grant: granted.grant() }, granted);
        true
    }

    fn servers(&self) -> String {
        self.config.urls.iter().map(Url::as_str).collect::<Vec<_>>().join(", ")
    }

    /// The server of a link. Those beyond the URLs that were given are known from these.
    fn server_of(&self, link: LinkId) -> String {
        let url = self.config.urls.get(link.0);
        url.map_or_else(|| "a server of the cluster".to_owned(), Url::to_string)
    }

    fn nonsense(&self, from: LinkId, body: &[u8]) -> Error {
        Error::Protocol {
            server: self.server_of(from),
            answer: String::from_utf8_lossy(body).chars().take(QUOTE_MAX).collect(),
        }
    }
}

/// What the answer of a server means for whoever asked.
pub(super) fn judge_reply(
    request: &Request<'_>,
    timeout: Duration,
    link: LinkId,
    reply: Reply,
) -> Result<Heard, Error> {
    match reply {
        Reply::Refuse(problem) => Err(Error::Refused(problem)),
        Reply::Decision(Decision { allowed: false, limit, .. }) if waits(request) => {
            Err(late(request, timeout, limit.to_string()))
        }
        reply => Ok(Heard { link: Some(link), reply }),
    }
}

fn waits(request: &Request<'_>) -> bool {
    matches!(
        request,
        Request::Acquire { wait: Wait::UpTo(_), .. } | Request::Lock { wait: Wait::UpTo(_), .. }
    )
}

/// Nobody may have this: it is to be asked for again.
fn over(request: &Request<'_>) -> Error {
    let message = format!("the lease of {} was over when it came: ask again", keys_of(request));
    Error::Refused(Problem { code: Code::Forgotten, message })
}

/// The caller's time ran out in the queue.
pub(super) fn late(request: &Request<'_>, timeout: Duration, limit: String) -> Error {
    let keys = keys_of(request);
    match request {
        Request::Lock { .. } => Error::NotFree { keys, timeout },
        _ => Error::Late { keys, timeout, limit },
    }
}

fn keys_of(request: &Request<'_>) -> String {
    let quoted = |key: &Key<'_>| format!("{:?}", key.as_str());
    let keys: Vec<String> = match request {
        Request::Acquire { demand, .. } => {
            demand.parts().iter().map(|(key, _)| quoted(key)).collect()
        }
        Request::Lock { wanted, .. } => {
            wanted.locks.parts().iter().map(|(key, _)| quoted(key)).collect()
        }
        _ => Vec::new(),
    };
    keys.join(", ")
}
