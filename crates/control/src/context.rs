//! What every handler and reconciler works with. Invariant: the clock and chance are read here and passed on.

use crate::agents::Links;
use crate::log_store::LogStore;
use crate::metric_store::MetricStore;
use crate::vault::Vault;
use longshore_engine::{View, default_vpc, discovery, events};
use longshore_model::container_instance::CpuArchitecture;
use longshore_model::control_plane::ControlPlaneId;
use longshore_model::id::IdSource;
use longshore_model::vpc::{Cidr, OpenedRegion};
use longshore_model::{Scope, Timestamp, Transaction};
use longshore_store::{Outcome, Snapshot, Store};
use longshore_wire::Fault;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Mutex;

/// The settings of a control plane.
#[derive(Clone, Debug)]
pub struct Config {
    /// The block of every default VPC.
    pub vpc_cidr: Cidr,
    /// How long STOPPED tasks are described, in milliseconds.
    pub keep_stopped_tasks: i64,
    /// Whether other control planes may use the store.
    pub shared_store: bool,
    /// How long an instance may be away before its tasks are given up.
    pub instance_lost_after: Duration,
    /// How long a task without health checks has to run to count as healthy for its service.
    pub task_healthy_after: Duration,
    /// What the EC2 instances are that are launched on this machine; `None` where none can be.
    pub instances: Option<CpuArchitecture>,
    /// How long an Auto Scaling group must have more instances than its tasks need before ECS takes them away.
    pub scale_in_after: Duration,
    /// The URL at which the functions of lifecycle hooks are called.
    pub lambda_endpoint: Option<String>,
}

pub struct Context {
    pub store: Arc<Store<View>>,
    pub log_store: LogStore,
    pub metric_store: MetricStore,
    pub vault: Vault,
    pub config: Config,
    pub links: Links,
    /// Names this process among the control planes.
    pub id: ControlPlaneId,
    /// Whether it does what one control plane is enough for.
    pub leads: AtomicBool,
    /// Held by a writer whose first attempt conflicted, so that contenders in one process queue instead of racing.
    turn: Mutex<()>,
}

/// How often a commit is tried before the client is asked to try again.
const ATTEMPTS: usize = 64;

impl Context {
    pub fn new(
        store: Arc<Store<View>>,
        log_store: LogStore,
        metric_store: MetricStore,
        vault: Vault,
        config: Config,
    ) -> Self {
        let id = ControlPlaneId((RandomIds.next_u128() >> 64) as u64);
        let leads = AtomicBool::new(!config.shared_store);
        let links = Links::default();
        Self { store, log_store, metric_store, vault, config, links, id, leads, turn: Mutex::new(()) }
    }

    pub fn view(&self) -> View {
        self.store.snapshot().view
    }

    pub fn now(&self) -> Timestamp {
        now()
    }

    /// Decides on a snapshot and commits; decides again on a newer one when something it read has changed.
    /// A decision without writes commits nothing.
    pub async fn commit<T, E, D>(&self, mut decide: D) -> Result<T, E>
    where
        D: FnMut(&Snapshot<View>, &mut Transaction) -> Result<T, E>,
        E: From<CommitError>,
    {
        let mut turn = None;
        for _ in 0..ATTEMPTS {
            let snapshot = self.store.snapshot();
            let mut transaction = Transaction::at(snapshot.version);
            let decided = decide(&snapshot, &mut transaction)?;
            if transaction.is_empty() {
                return Ok(decided);
            }
            discovery::revise(&snapshot.view, &mut transaction);
            events::add(&snapshot.view, &mut transaction, self.now(), &mut RandomIds);
            match self.store.commit(transaction.into_commit()).await.map_err(CommitError::Store)? {
                Outcome::Committed(_) => return Ok(decided),
                Outcome::Conflict { .. } if turn.is_none() => turn = Some(self.turn.lock().await),
                Outcome::Conflict { .. } => {}
            }
        }
        Err(CommitError::Contended.into())
    }

    /// Gives an account's region its default VPC when it is used for the first time.
    pub async fn open_region(&self, scope: &Scope) -> Result<(), CommitError> {
        let opened = |view: &View| view.opened_regions.get(&OpenedRegion::key_of(scope)).is_some();
        if opened(&self.view()) {
            return Ok(());
        }
        self.commit(|snapshot, transaction| {
            if !opened(&snapshot.view) {
                default_vpc::open_region(
                    scope,
                    self.config.vpc_cidr,
                    self.now(),
                    &mut RandomIds,
                    transaction,
                );
            }
            Ok(())
        })
        .await
    }
}

/// The time by the system's clock.
#[allow(clippy::disallowed_methods, reason = "the shell's one reading of the clock")]
pub fn now() -> Timestamp {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// Why a decision could not be made durable.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("write to the store")]
    Store(#[source] longshore_store::Error),
    #[error("the records changed too often while the request was being decided")]
    Contended,
}

impl From<CommitError> for Fault {
    fn from(error: CommitError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a commit failed");
        Self::server("ServerException", format!("The request was not carried out: {error}. Try again."))
    }
}

/// Identifiers drawn from the system's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn next_u128(&mut self) -> u128 {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            // Without randomness identifiers would repeat, and records would overwrite one another.
            std::process::abort();
        }
        u128::from_ne_bytes(bytes)
    }
}
