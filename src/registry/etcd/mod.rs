//! A registry in etcd, over its JSON gateway.
//!
//! The gateway takes what gRPC takes: the guide of etcd's version 3 describes `/v3/kv/range`,
//! `/v3/kv/txn` and `/v3/auth/authenticate`. Keys and values travel in base 64, numbers as text.

mod names;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use crate::error::Error;
use crate::registry::address::{TlsFiles, wrong};
use crate::registry::{
    Address, Change, Entry, EtcdAddress, Guard, Outcome, Registry, Revision, Snapshot, Transaction,
    Trouble, tls,
};
use names::Names;

/// The longest answer that is read: all entries of a cluster, in base 64, are shorter.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// gRPC's code for a token that etcd does not know, or no more.
const UNAUTHENTICATED: i64 = 16;

/// A registry in etcd.
#[derive(Debug)]
pub struct Etcd {
    address: EtcdAddress,
    agent: Agent,
    names: Names,
    /// The endpoint that answered last.
    present: usize,
    /// What etcd gave for the password.
    token: Option<String>,
}

/// Why there is no answer of use.
#[derive(Debug)]
enum Failure {
    /// The request did not leave: there is no connection.
    Unsent(String),
    /// It may have arrived.
    Unanswered(String),
    /// etcd refused it by a code of gRPC.
    Refused(i64, String),
}

impl Etcd {
    /// The registry at this address, which has answered once.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if no server of it can be reached, or lets us in.
    pub fn open(address: &EtcdAddress, within: Duration) -> Result<Self, Error> {
        let shown = Address::Etcd(address.clone());
        let mut agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .max_idle_connections_per_host(2);
        if let Some(files) = &address.tls {
            agent = agent.tls_config(tls_config(files)?);
        }
        let names = Names::default();
        let connector = DefaultConnector::default();
        let agent = Agent::with_parts(agent.build(), connector, names.clone());
        let mut etcd = Self { address: address.clone(), agent, names, present: 0, token: None };
        etcd.read("", within).map_err(|trouble| wrong(format!("{shown}: {trouble}")))?;
        Ok(etcd)
    }

    /// Asks an endpoint after the other for as long as there is no connection, and once again with
    /// a new token where the old one is not taken.
    fn call(&mut self, path: &str, body: &Value, within: Duration) -> Result<Value, Failure> {
        if self.address.user.is_some() && self.token.is_none() {
            self.authenticate(within)?;
        }
        match self.send(path, body, within) {
            Err(Failure::Refused(UNAUTHENTICATED, _)) if self.address.user.is_some() => {
                self.authenticate(within)?;
                self.send(path, body, within)
            }
            outcome => outcome,
        }
    }

    fn authenticate(&mut self, within: Duration) -> Result<(), Failure> {
        self.token = None;
        let Some((name, password)) = &self.address.user else { return Ok(()) };
        let body = json!({ "name": name, "password": password });
        // That the token was asked for is no trace of the request itself.
        let unsent = |problem: String| Failure::Unsent(format!("cannot authenticate: {problem}"));
        let answer = self.send("auth/authenticate", &body, within).map_err(|failure| {
            let (Failure::Unsent(problem)
            | Failure::Unanswered(problem)
            | Failure::Refused(_, problem)) = failure;
            unsent(problem)
        })?;
        let token = answer["token"].as_str().ok_or_else(|| unsent("no token came".to_owned()))?;
        self.token = Some(token.to_owned());
        Ok(())
    }

    fn send(&mut self, path: &str, body: &Value, within: Duration) -> Result<Value, Failure> {
        let count = self.address.endpoints.len();
        let mut problems = Vec::new();
        for _ in 0..count {
            let endpoint = &self.address.endpoints[self.present];
            let failure = match self.send_to(endpoint, path, body, within) {
                Err(failure @ (Failure::Unsent(_) | Failure::Unanswered(_))) => failure,
                outcome => return outcome,
            };
            self.names.doubt();
            let name = |problem: &str| format!("{endpoint}: {problem}");
            let problem = match failure {
                Failure::Unanswered(problem) => Err(Failure::Unanswered(name(&problem))),
                Failure::Unsent(problem) | Failure::Refused(_, problem) => Ok(name(&problem)),
            };
            self.present = (self.present + 1) % count;
            problems.push(problem?);
        }
        Err(Failure::Unsent(problems.join("; ")))
    }

    fn send_to(
        &self,
        endpoint: &str,
        path: &str,
        body: &Value,
        within: Duration,
    ) -> Result<Value, Failure> {
        let scheme = if self.address.tls.is_some() { "https" } else { "http" };
        let count = u32::try_from(self.address.endpoints.len()).unwrap_or(u32::MAX);
        let mut request = self
            .agent
            .post(format!("{scheme}://{endpoint}/v3/{path}"))
            .config()
            .timeout_global(Some(within))
            .timeout_connect(Some(within / count.max(1)))
            .build();
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        let answer = request
            .content_type("application/json")
            .send(body.to_string())
            .map_err(|error| failure(&error))?;
        read_answer(answer)
    }

    /// A key as etcd has it.
    fn key(&self, key: &str) -> String {
        BASE64_STANDARD.encode(format!("{}{key}", self.address.prefix))
    }

    fn guard(&self, guard: &Guard) -> Value {
        let (key, target, field, revision) = match guard {
            Guard::Created(key, revision) => (key, "CREATE", "create_revision", revision),
            Guard::Modified(key, revision) => (key, "MOD", "mod_revision", revision),
        };
        let revision = revision.0.to_string();
        json!({ "key": self.key(key), "target": target, "result": "EQUAL", field: revision })
    }

    fn change(&self, change: &Change) -> Value {
        match change {
            Change::Put(key, value) => {
                let value = BASE64_STANDARD.encode(value);
                json!({ "request_put": { "key": self.key(key), "value": value } })
            }
            Change::Delete(key) => json!({ "request_delete_range": { "key": self.key(key) } }),
        }
    }

    fn snapshot(&self, answer: &Value) -> Option<Snapshot> {
        let revision = revision(answer)?;
        let mut entries = Vec::new();
        for found in answer["kvs"].as_array().into_iter().flatten() {
            let key = String::from_utf8(bytes(&found["key"])?).ok()?;
            entries.push(Entry {
                key: key.strip_prefix(&self.address.prefix)?.to_owned(),
                value: if found["value"].is_null() { Vec::new() } else { bytes(&found["value"])? },
                created: Revision(number(&found["create_revision"])?),
                modified: Revision(number(&found["mod_revision"])?),
            });
        }
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        Some(Snapshot { revision, entries })
    }
}

impl Registry for Etcd {
    fn read(&mut self, prefix: &str, within: Duration) -> Result<Snapshot, Trouble> {
        let first = format!("{}{prefix}", self.address.prefix).into_bytes();
        let body = json!({
            "key": BASE64_STANDARD.encode(&first),
            "range_end": BASE64_STANDARD.encode(end_of_prefix(first)),
        });
        let answer = self.call("kv/range", &body, within).map_err(Failure::trouble)?;
        self.snapshot(&answer)
            .ok_or_else(|| Trouble("this is not etcd: the answer has no entries".to_owned()))
    }

    fn transact(&mut self, transaction: &Transaction, within: Duration) -> Outcome {
        let compare: Vec<_> = transaction.guards.iter().map(|it| self.guard(it)).collect();
        let success: Vec<_> = transaction.changes.iter().map(|it| self.change(it)).collect();
        let body = json!({ "compare": compare, "success": success });
        let answer = match self.call("kv/txn", &body, within) {
            Ok(answer) => answer,
            Err(failure) => return Outcome::Unknown(failure.trouble()),
        };
        match revision(&answer) {
            // What is false is left out.
            Some(revision) if answer["succeeded"] == json!(true) => Outcome::Done(revision),
            Some(_) => Outcome::Refused,
            None => {
                Outcome::Unknown(Trouble("this is not etcd: the answer has no revision".to_owned()))
            }
        }
    }
}

impl Failure {
    fn trouble(self) -> Trouble {
        Trouble(match self {
            Self::Unsent(problem) => format!("cannot be reached: {problem}"),
            Self::Unanswered(problem) => format!("does not answer: {problem}"),
            Self::Refused(_, problem) => format!("refuses: {problem}"),
        })
    }
}

fn failure(error: &ureq::Error) -> Failure {
    let problem = error.to_string();
    let is_unsent = match error {
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => true,
        ureq::Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
        _ => false,
    };
    if is_unsent { Failure::Unsent(problem) } else { Failure::Unanswered(problem) }
}

fn read_answer(mut answer: Response<Body>) -> Result<Value, Failure> {
    let status = answer.status();
    let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let text = text.map_err(|error| Failure::Unanswered(error.to_string()))?;
    let value: Result<Value, _> = serde_json::from_str(&text);
    match value {
        Ok(value) if status.is_success() => Ok(value),
        Ok(value) if value["code"].is_i64() => {
            let message = value["message"].as_str().or(value["error"].as_str());
            let message = message.unwrap_or("without a reason").to_owned();
            let code = value["code"].as_i64().unwrap_or_default();
            // Whatever is not about who asks may have been done, or is done later.
            let is_final = [3, 5, 7, 8, 9, 11, 12, UNAUTHENTICATED].contains(&code);
            Err(if is_final {
                Failure::Refused(code, message)
            } else {
                Failure::Unanswered(message)
            })
        }
        _ => {
            let start: String = text.chars().take(80).collect();
            Err(Failure::Unanswered(format!("this is not etcd: {status}, {start:?}")))
        }
    }
}

fn tls_config(files: &TlsFiles) -> Result<TlsConfig, Error> {
    let owned = |der: &[u8]| Certificate::from_der(der).to_owned();
    let mut config = TlsConfig::builder();
    if let Some(path) = &files.authorities {
        let roots = tls::certificates(path)?.iter().map(|it| owned(it)).collect();
        config = config.root_certs(RootCerts::Specific(Arc::new(roots)));
    }
    if let Some((certificate, key)) = &files.client {
        let chain: Vec<_> = tls::certificates(certificate)?.iter().map(|it| owned(it)).collect();
        tls::private_key(key)?;
        let text =
            std::fs::read(key).map_err(|error| wrong(format!("{}: {error}", key.display())))?;
        let key = PrivateKey::from_pem(&text).map_err(|error| wrong(error.to_string()))?;
        config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
    }
    Ok(config.build())
}

/// The first key after all that begin with these bytes.
fn end_of_prefix(mut prefix: Vec<u8>) -> Vec<u8> {
    while prefix.last() == Some(&0xff) {
        prefix.pop();
    }
    match prefix.last_mut() {
        Some(last) => *last += 1,
        // All keys, as etcd has it.
        None => prefix.push(0),
    }
    prefix
}

fn revision(answer: &Value) -> Option<Revision> {
    answer["header"]["revision"].as_str()?.parse().ok().map(Revision)
}

/// A number that travels as text, and not at all if it is zero.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Null => Some(0),
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64(),
        _ => None,
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(value.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_after_it() {
        assert_eq!(end_of_prefix(b"ab".to_vec()), b"ac");
        assert_eq!(end_of_prefix(b"a\xff".to_vec()), b"b");
        assert_eq!(end_of_prefix(Vec::new()), b"\0");
    }
}
