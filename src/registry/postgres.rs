//! A registry in PostgreSQL: one table.
//!
//! The row without a key counts the revisions. Each transaction begins by counting on, which takes
//! that row's lock: so transactions come one after the other, and each sees what those before it
//! left. Nothing rests on a lock or a clock of the database; that it ends a transaction whose owner
//! is silent only lets the others go on.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, IsolationLevel, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::Error;
use crate::registry::address::{TlsFiles, wrong};
use crate::registry::{
    Address, Change, Entry, Guard, Outcome, PostgresAddress, Registry, Revision, Snapshot,
    Transaction, Trouble, tls,
};

/// What the database does by itself: it ends what a silent server has begun, and says that a
/// transaction is done when it is on its disk.
const SESSION: &str = "SET idle_in_transaction_session_timeout = '1s'; \
                       SET statement_timeout = '1s'; SET synchronous_commit = on";

/// When to begin anew to connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A registry in PostgreSQL.
pub struct Postgres {
    shown: Address,
    config: Config,
    table: String,
    connector: MakeRustlsConnect,
    /// Runs only while a call lasts, on the caller's thread.
    runtime: Runtime,
    client: Option<Client>,
    /// The connection that is being made.
    connecting: Option<JoinHandle<Result<Client, tokio_postgres::Error>>>,
}

impl Postgres {
    /// The registry at this address, which has answered once. Its table is made unless it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the database cannot be reached, does not let us in, or has another
    /// table of that name.
    pub fn open(address: &PostgresAddress, within: Duration) -> Result<Self, Error> {
        let shown = Address::Postgres(address.clone());
        let mut config: Config =
            address.url.parse().map_err(|error| wrong(format!("{shown}: {}", reason(&error))))?;
        if config.get_application_name().is_none() {
            config.application_name("zmqlocker");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_WITHIN);
        }
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::system("reach a registry", &error))?;
        let connector = MakeRustlsConnect::new(tls_config(&address.tls)?);
        let table = address.table.clone();
        let (client, connecting) = (None, None);
        let mut registry = Self { shown, config, table, connector, runtime, client, connecting };
        registry.prepare(within).map_err(|trouble| {
            let shown = &registry.shown;
            wrong(format!("{shown}: {trouble}"))
        })?;
        Ok(registry)
    }

    fn prepare(&mut self, within: Duration) -> Result<(), Trouble> {
        let table = &self.table;
        let is_there = format!("SELECT key, value, created, modified FROM {table} LIMIT 1");
        let make = format!(
            "CREATE TABLE IF NOT EXISTS {table} (key text COLLATE \"C\" PRIMARY KEY, \
             value bytea NOT NULL, created bigint NOT NULL, modified bigint NOT NULL); \
             INSERT INTO {table} VALUES ('', '', 0, 0) ON CONFLICT (key) DO NOTHING"
        );
        let is_missing = |error: &tokio_postgres::Error| {
            error.code() == Some(&tokio_postgres::error::SqlState::UNDEFINED_TABLE)
        };
        self.call(within, async |client| {
            match client.simple_query(&is_there).await {
                Err(error) if !is_missing(&error) => Err(error),
                // Several servers may begin at once: who comes second fails where it makes the
                // table, and finds it.
                Err(_) => match client.batch_execute(&make).await {
                    Err(_) => client.simple_query(&is_there).await.map(|_| ()),
                    outcome => outcome,
                },
                Ok(_) => client.batch_execute(&make).await,
            }
        })?;
        self.read("", within).map(|_| ())
    }

    /// Does something over the connection, which is made if there is none. Where it fails or takes
    /// too long, the connection is given up: nobody knows what is still on its way there. One that
    /// is being made is not: it may take longer than a call, and goes on in the next one.
    fn call<T>(
        &mut self,
        within: Duration,
        action: impl AsyncFnOnce(&mut Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Trouble> {
        let Self { config, connector, runtime, client, connecting, .. } = self;
        let whole = async {
            let mut present = if let Some(present) = client.take() {
                present
            } else {
                let begin = || tokio::spawn(connect(config.clone(), connector.clone()));
                let connected = connecting.get_or_insert_with(begin).await;
                *connecting = None;
                let connected = connected.map_err(|error| Trouble(error.to_string()))?;
                connected.map_err(|error| Trouble(reason(&error)))?
            };
            let done = action(&mut present).await.map_err(|error| Trouble(reason(&error)))?;
            *client = Some(present);
            Ok(done)
        };
        let late = || Err(Trouble(format!("no answer within {} s", within.as_secs_f64())));
        run(runtime, whole, within).unwrap_or_else(late)
    }
}

/// Runs a future on this thread, for `within` at most.
fn run<T>(runtime: &Runtime, whole: impl Future<Output = T>, within: Duration) -> Option<T> {
    runtime.block_on(async { timeout(within, whole).await.ok() })
}

async fn connect(
    config: Config,
    connector: MakeRustlsConnect,
) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(connector).await?;
    // It ends with its client; why it ended, the client tells as well.
    tokio::spawn(async move { drop(connection.await) });
    client.batch_execute(SESSION).await?;
    Ok(client)
}

impl Registry for Postgres {
    fn read(&mut self, prefix: &str, within: Duration) -> Result<Snapshot, Trouble> {
        // One statement sees one instant.
        let select = format!(
            "SELECT key, value, created, modified FROM {} \
             WHERE key = '' OR starts_with(key, $1) ORDER BY key",
            self.table
        );
        let prefix = prefix.to_owned();
        let rows = self.call(within, async |client| client.query(&select, &[&prefix]).await)?;
        let mut entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        if entries.first().is_none_or(|first| !first.key.is_empty()) {
            let problem = format!("the row that counts is gone from the table {}", self.table);
            return Err(Trouble(problem));
        }
        let counter = entries.remove(0);
        Ok(Snapshot { revision: counter.modified, entries })
    }

    fn transact(&mut self, transaction: &Transaction, within: Duration) -> Outcome {
        let table = self.table.clone();
        match self.call(within, async |client| transact(client, &table, transaction).await) {
            Ok(Some(revision)) => Outcome::Done(revision),
            Ok(None) => Outcome::Refused,
            Err(trouble) => Outcome::Unknown(trouble),
        }
    }
}

/// The revision of what was done; none if it was refused.
async fn transact(
    client: &mut Client,
    table: &str,
    transaction: &Transaction,
) -> Result<Option<Revision>, tokio_postgres::Error> {
    let begin = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted);
    let open = begin.start().await?;
    let count =
        format!("UPDATE {table} SET modified = modified + 1 WHERE key = '' RETURNING modified");
    let revision: i64 = open.query_one(&count, &[]).await?.try_get(0)?;
    let keys: Vec<&str> = transaction.guards.iter().map(|it| guarded(it).0).collect();
    let select = format!("SELECT key, created, modified FROM {table} WHERE key = ANY($1)");
    let mut found = Vec::new();
    for row in open.query(&select, &[&keys]).await? {
        let key: String = row.try_get(0)?;
        found.push((key, row.try_get::<_, i64>(1)?, row.try_get::<_, i64>(2)?));
    }
    let holds = |guard: &Guard| {
        let (key, wanted) = guarded(guard);
        let entry = found.iter().find(|(found, ..)| found == key);
        let present = entry.map_or(0, |(_, created, modified)| match guard {
            Guard::Created(..) => *created,
            Guard::Modified(..) => *modified,
        });
        i64::try_from(wanted.0) == Ok(present)
    };
    if !transaction.guards.iter().all(holds) {
        open.rollback().await?;
        return Ok(None);
    }
    let (mut gone, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for change in &transaction.changes {
        match change {
            Change::Delete(key) => gone.push(key.as_str()),
            Change::Put(key, value) => {
                keys.push(key.as_str());
                values.push(value.as_slice());
            }
        }
    }
    if !gone.is_empty() {
        open.execute(&format!("DELETE FROM {table} WHERE key = ANY($1)"), &[&gone]).await?;
    }
    if !keys.is_empty() {
        let put = format!(
            "INSERT INTO {table} SELECT key, value, $3, $3 \
             FROM unnest($1::text[], $2::bytea[]) AS put (key, value) ON CONFLICT (key) \
             DO UPDATE SET value = EXCLUDED.value, modified = EXCLUDED.modified"
        );
        open.execute(&put, &[&keys, &values, &revision]).await?;
    }
    open.commit().await?;
    Ok(Some(Revision(revision.cast_unsigned())))
}

fn guarded(guard: &Guard) -> (&str, Revision) {
    let (Guard::Created(key, revision) | Guard::Modified(key, revision)) = guard;
    (key, *revision)
}

fn entry(row: &Row) -> Result<Entry, Trouble> {
    let read = || {
        Ok(Entry {
            key: row.try_get(0)?,
            value: row.try_get(1)?,
            created: Revision(row.try_get::<_, i64>(2)?.cast_unsigned()),
            modified: Revision(row.try_get::<_, i64>(3)?.cast_unsigned()),
        })
    };
    read().map_err(|error: tokio_postgres::Error| Trouble(reason(&error)))
}

fn tls_config(files: &TlsFiles) -> Result<ClientConfig, Error> {
    let unusable = |error: &dyn Display| wrong(format!("cannot use TLS: {error}"));
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = &files.authorities {
        roots = RootCertStore::empty();
        for certificate in tls::certificates(path)? {
            roots.add(certificate).map_err(|error| unusable(&error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_root_certificates(roots);
    match &files.client {
        None => Ok(config.with_no_client_auth()),
        Some((certificate, key)) => config
            .with_client_auth_cert(tls::certificates(certificate)?, tls::private_key(key)?)
            .map_err(|error| unusable(&error)),
    }
}

/// The whole chain of reasons: the driver's own words are "db error".
fn reason(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
