//! The engine on an etcd cluster, 3.4 or newer.
//!
//! Invariant: a version is an etcd revision, a commit is one etcd transaction, and a batch is all events of one
//! revision. Whatever version a commit answers with, the watch reaches: no answer carries a revision that
//! somebody outside our prefix made.

mod transaction;
mod watch;

use crate::engine::{Changes, Engine, Error, Loaded, Outcome};
use async_trait::async_trait;
use etcd_client::{
    Certificate, Client, CompactionOptions, ConnectOptions, DeleteOptions, GetOptions, Identity, KvClient,
    TlsOptions, Txn, TxnOp, WatchClient,
};
use longshore_model::change::{Commit, Key, Version};
use std::sync::Arc;
use std::time::Duration;

/// Where the etcd cluster is and how it is spoken to.
#[derive(Clone)]
pub struct Config {
    /// `http://host:port` or `https://host:port`, one for each member.
    pub endpoints: Vec<String>,
    /// What every key starts with, so that one etcd can serve others too.
    pub prefix: String,
    pub user: Option<User>,
    /// For `https` endpoints; without it they are checked against the system's roots.
    pub tls: Option<Tls>,
    /// How many operations the servers take in one transaction: their `--max-txn-ops`.
    pub max_operations: usize,
}

#[derive(Clone)]
pub struct User {
    pub name: String,
    pub password: String,
}

/// PEM texts.
#[derive(Clone, Default)]
pub struct Tls {
    /// Who signs the servers' certificates; the system's roots where it is missing.
    pub authority: Option<Vec<u8>>,
    pub client: Option<ClientCertificate>,
    /// The name in the servers' certificates, where it is not the endpoint's host.
    pub server_name: Option<String>,
}

#[derive(Clone)]
pub struct ClientCertificate {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

impl Config {
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: "longshore/".to_owned(),
            user: None,
            tls: None,
            max_operations: 128,
        }
    }
}

const CONNECT: Duration = Duration::from_secs(5);
/// etcd gives up on a request after seven seconds without a leader.
const REQUEST: Duration = Duration::from_secs(15);
/// A connection that answers no ping is dropped, so that a watch on a dead host does not wait for ever.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_ANSWER: Duration = Duration::from_secs(5);
/// Records in one answer to a load.
const PAGE: i64 = 1000;

pub struct Etcd {
    kv: KvClient,
    watch: WatchClient,
    names: Names,
    max_operations: usize,
}

impl Etcd {
    /// Connects, and fails when the cluster does not answer.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let attempt = Error::backend("connect to etcd");
        let client = Client::connect(&config.endpoints, Some(options(&config))).await.map_err(attempt)?;
        let engine = Self {
            // A server limits what it takes in; what it holds already must always be readable.
            kv: client.kv_client().max_decoding_message_size(usize::MAX),
            watch: client.watch_client().max_decoding_message_size(usize::MAX),
            names: Names::under(&config.prefix),
            max_operations: config.max_operations,
        };
        // Connecting is lazy: a wrong address is to be seen here.
        let answer = engine.kv.clone().get(engine.names.mark(), None).await;
        answer.map_err(Error::backend("read from etcd"))?;
        Ok(engine)
    }

    /// Fails when the commits after `since` are no longer all there.
    async fn check_kept(&self, since: Version) -> Result<(), Error> {
        let revision = GetOptions::new().with_revision(revision(since).max(1)).with_keys_only();
        match self.kv.clone().get(self.names.mark(), Some(revision)).await {
            Ok(_) => Ok(()),
            Err(error) if is_forgotten(&error) => Err(Error::Compacted { since }),
            Err(error) => Err(Error::backend("read from etcd")(error)),
        }
    }

    /// The records of a prefix at one revision, page by page; `None` when it was forgotten meanwhile.
    async fn load_once(&self, prefix: &str) -> Result<Option<Loaded>, Error> {
        let mut from = self.names.record(prefix);
        let end = after_prefix(&from);
        let mut loaded = Loaded { version: Version(0), entries: Vec::new() };
        loop {
            let page = GetOptions::new()
                .with_range(end.clone())
                .with_limit(PAGE)
                .with_revision(revision(loaded.version));
            let mut answer = match self.kv.clone().get(from, Some(page)).await {
                Ok(answer) => answer,
                Err(error) if is_forgotten(&error) => return Ok(None),
                Err(error) => return Err(Error::backend("load from etcd")(error)),
            };
            if loaded.version == Version(0) {
                loaded.version = version(answer.header().map_or(0, |header| header.revision()));
            }
            let more = answer.more();
            let found = answer.take_kvs();
            let Some(last) = found.last().filter(|_| more).map(|kv| kv.key().to_vec()) else {
                loaded.entries.extend(found.into_iter().filter_map(|kv| self.names.entry(kv)));
                return Ok(Some(loaded));
            };
            loaded.entries.extend(found.into_iter().filter_map(|kv| self.names.entry(kv)));
            from = [last.as_slice(), &[0]].concat();
        }
    }
}

#[async_trait]
impl Engine for Etcd {
    async fn load(&self, prefix: &str) -> Result<Loaded, Error> {
        loop {
            if let Some(loaded) = self.load_once(prefix).await? {
                return Ok(loaded);
            }
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, Error> {
        crate::index::check_keys(&commit)?;
        let transaction = transaction::of(&self.names, &commit, self.max_operations)?;
        let answer = self.kv.clone().txn(transaction).await;
        let answer = answer.map_err(not_committed)?;
        Ok(transaction::outcome(&self.names, &commit, &answer))
    }

    async fn changes(&self, since: Version) -> Result<Changes, Error> {
        self.check_kept(since).await?;
        Ok(watch::follow(self.kv.clone(), self.watch.clone(), self.names.clone(), since))
    }

    async fn compact(&self, version: Version) -> Result<(), Error> {
        let physical = CompactionOptions::new().with_physical();
        match self.kv.clone().compact(revision(version), Some(physical)).await {
            Ok(_) => Ok(()),
            Err(error) if is_forgotten(&error) => Ok(()),
            Err(error) => Err(Error::backend("compact etcd")(error)),
        }
    }

    async fn reset(&self) -> Result<Version, Error> {
        let all = DeleteOptions::new().with_prefix();
        let transaction = Txn::new().and_then(vec![
            TxnOp::delete(self.names.record(""), Some(all)),
            // Makes a revision under our prefix also where there is nothing to delete.
            TxnOp::put(self.names.mark(), "", None),
        ]);
        let answer = self.kv.clone().txn(transaction).await.map_err(Error::backend("reset etcd"))?;
        Ok(version(answer.header().map_or(0, |header| header.revision())))
    }
}

/// How our keys are written in etcd.
#[derive(Clone)]
struct Names {
    all: Arc<str>,
    records: Arc<str>,
}

impl Names {
    fn under(prefix: &str) -> Self {
        Self { all: prefix.into(), records: format!("{prefix}records/").into() }
    }

    fn record(&self, key: &str) -> Vec<u8> {
        format!("{}{key}", self.records).into_bytes()
    }

    /// Written with every commit that deletes. A key that is gone says no more when it went; the mark does.
    fn mark(&self) -> Vec<u8> {
        format!("{}mark", self.all).into_bytes()
    }

    /// `None` for what is no record of ours.
    fn key(&self, name: &[u8]) -> Option<Key> {
        let name = std::str::from_utf8(name).ok()?;
        name.strip_prefix(&*self.records).map(Key::new)
    }

    fn entry(&self, kv: etcd_client::KeyValue) -> Option<(Key, Arc<[u8]>)> {
        Some((self.key(kv.key())?, kv.value().into()))
    }
}

fn options(config: &Config) -> ConnectOptions {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT)
        .with_timeout(REQUEST)
        .with_keep_alive(PING_EVERY, PING_ANSWER)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some(user) = &config.user {
        options = options.with_user(&user.name, &user.password);
    }
    let secure = config.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    match &config.tls {
        Some(tls) => options.with_tls(tls_options(tls)),
        None if secure => options.with_tls(tls_options(&Tls::default())),
        None => options,
    }
}

fn tls_options(tls: &Tls) -> TlsOptions {
    let mut options = TlsOptions::new();
    options = match &tls.authority {
        Some(authority) => options.ca_certificate(Certificate::from_pem(authority)),
        None => options.with_native_roots(),
    };
    if let Some(client) = &tls.client {
        options = options.identity(Identity::from_pem(&client.certificate, &client.key));
    }
    if let Some(name) = &tls.server_name {
        options = options.domain_name(name);
    }
    options
}

/// etcd says with these codes that it refused; anything else leaves open whether it took the transaction.
fn not_committed(error: etcd_client::Error) -> Error {
    use tonic::Code;
    let refused = match &error {
        etcd_client::Error::GRpcStatus(status) => matches!(
            status.code(),
            Code::InvalidArgument
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::ResourceExhausted
                | Code::FailedPrecondition
                | Code::OutOfRange
        ),
        _ => false,
    };
    if refused { Error::backend("commit to etcd")(error) } else { Error::Unsure(Box::new(error)) }
}

/// etcd has no code of its own for this: a compacted revision, or one that a restored backup never had.
fn is_forgotten(error: &etcd_client::Error) -> bool {
    let etcd_client::Error::GRpcStatus(status) = error else { return false };
    status.message().contains("revision has been compacted")
        || status.message().contains("revision is a future revision")
}

/// The end of the range of all keys that start with `prefix`, which ends in no byte 255: it is text.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

fn revision(version: Version) -> i64 {
    i64::try_from(version.0).unwrap_or(i64::MAX)
}

fn version(revision: i64) -> Version {
    Version(u64::try_from(revision).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_none_of_ours() {
        let names = Names::under("longshore/");
        assert_eq!(names.record("task/1"), b"longshore/records/task/1");
        assert_eq!(names.key(b"longshore/records/task/1"), Some(Key::new("task/1")));
        assert_eq!(names.key(&names.mark()), None);
        assert_eq!(names.key(b"others/records/task/1"), None);
        assert_eq!(names.key(b"longshore/records/\xff"), None);
    }

    #[test]
    fn a_range_ends_after_its_prefix() {
        let names = Names::under("longshore/");
        let within = |key: &str, prefix: &str| {
            let start = names.record(prefix);
            (start.clone()..after_prefix(&start)).contains(&names.record(key))
        };
        assert!(within("a/\u{10ffff}", "a/") && within("a", "") && within("a/", "a/"));
        assert!(!within("a0", "a/") && !within("a", "a/"));
        assert!(!(names.record("")..after_prefix(&names.record(""))).contains(&names.mark()));
    }
}
