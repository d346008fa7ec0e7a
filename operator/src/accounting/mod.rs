//! Accounts of what workloads use and have reserved: the readings that agents stream, and the pods that exist, entered
//! into a [`Ledger`].
//!
//! Every replica keeps a ledger of its own, the standby too, since agents stream to all of them: a failover loses
//! nothing. It lives as long as the process (docs/metering.md, docs/adr/0014-accounts-in-memory.md).
//!
//! - [`directory`]: whose a pod is, as the stores know it
//! - [`answer`]: the hours of a period, for whoever asks

pub mod answer;
pub mod directory;

use std::{
    fmt, slice,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use catamaran_metering::{Account, Amounts, Keep, Ledger, Pod};
use catamaran_protocol::stream::{identity::PodIdentity, snapshot::PodReading};
use jiff::Timestamp;

use crate::intake::{hooks::Observer, store::Reading};
use directory::{Directory, Replica};

/// How often reservations are charged, and how long after its end a replica may still be charged for one.
const EVERY: Duration = Duration::from_secs(5);
/// For so many pods the ledger is locked at a time: every report of an agent waits for that.
const AT_ONCE: usize = 500;

/// The accounts of all workloads. Clones share one ledger.
#[derive(Clone)]
pub struct Accounts {
    ledger: Arc<Mutex<Ledger>>,
    directory: Arc<dyn Directory>,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

impl Accounts {
    /// Empty ones, that begin now.
    #[must_use]
    pub fn new(directory: Arc<dyn Directory>, now: Timestamp) -> Self {
        Self { ledger: Arc::new(Mutex::new(Ledger::new(now, Keep::default()))), directory }
    }

    /// Charges reservations, until the process ends.
    pub async fn run(&self) {
        loop {
            let accounts = self.clone();
            // 100,000 pods are some 100 ms of work, which must not keep a thread from others' tasks.
            if let Err(error) = tokio::task::spawn_blocking(move || accounts.advance(Timestamp::now())).await {
                tracing::error!(%error, "charging reservations failed");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Charges reservations up to now, and forgets what is gone.
    pub fn advance(&self, now: Timestamp) {
        let (replicas, open) = (self.directory.replicas(), self.directory.accounts());
        for some in replicas.chunks(AT_ONCE) {
            let mut ledger = self.ledger();
            for same in some.chunk_by(|a, b| Arc::ptr_eq(&a.owner, &b.owner) && a.hull == b.hull) {
                enter(&mut ledger, same, now);
            }
        }
        for some in open.chunks(AT_ONCE) {
            let mut ledger = self.ledger();
            for account in some {
                ledger.open(&Arc::new(account.clone()), now);
            }
        }
        self.ledger().forget(now);
    }

    /// The totals since the ledger began.
    #[must_use]
    pub fn totals(&self) -> Vec<(Account, Amounts)> {
        self.ledger().totals().map(|(account, amounts)| (account.clone(), *amounts)).collect()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters what an agent read.
    fn read(&self, reading: &Reading<'_>, pods: &[PodReading], now: Timestamp) {
        // Looked for while nothing is locked.
        let unknown: Vec<&PodReading> = {
            let ledger = self.ledger();
            pods.iter().filter(|pod| ledger.account_of(pod.pod().uid()).is_none()).collect()
        };
        let met: Vec<Replica> = unknown.iter().filter_map(|pod| self.directory.find(pod.pod())).collect();
        let mut ledger = self.ledger();
        for replica in &met {
            enter(&mut ledger, slice::from_ref(replica), now);
        }
        for pod in pods {
            // An agent that does not read the pod's own cgroup: what its containers used before a restart would be
            // lost.
            let Some(totals) = pod.totals() else { continue };
            let memory = pod.counters().iter().map(|counters| counters.memory_working_set_bytes);
            let reading = catamaran_metering::Reading {
                clock: reading.clock,
                taken: reading.taken,
                cpu_usage_usec: totals.cpu_usage_usec,
                memory_bytes: Some(memory.fold(0, u64::saturating_add)),
                io_read_bytes: totals.io_read_bytes,
                io_write_bytes: totals.io_write_bytes,
            };
            // Of a pod that nobody knows it is passed over.
            ledger.read(pod.pod().uid(), reading, now);
        }
    }
}

/// Enters pods of one owner and hull.
fn enter(ledger: &mut Ledger, replicas: &[Replica], now: Timestamp) {
    let Some(Replica { owner, hull, .. }) = replicas.first() else { return };
    let account = |class: Option<Box<str>>| {
        Arc::new(Account { namespace: owner.namespace.clone(), workload: owner.workload.clone(), class, hull: *hull })
    };
    if let Some(class) = &owner.class {
        let pods = replicas.iter().map(|replica| (&*replica.uid, replica.started, replica.request));
        ledger.meet_all(&account(class.clone()), pods, now);
        return;
    }
    for Replica { uid, started, request, .. } in replicas {
        // The workload is gone, or cannot be read: it stays what it was.
        let class = ledger.account_of(uid).and_then(|account| account.class.clone());
        ledger.meet(uid, Pod { account: account(class), started: *started, request: *request }, now);
    }
}

/// Enters readings, and tells another observer.
pub struct Metered {
    /// Where they are entered.
    pub accounts: Accounts,
    /// Who is told as well.
    pub next: Arc<dyn Observer>,
}

impl Observer for Metered {
    fn reported(&self, pods: &[Arc<PodIdentity>]) {
        self.next.reported(pods);
    }

    fn read(&self, reading: &Reading<'_>, pods: &[PodReading]) {
        self.accounts.read(reading, pods, Timestamp::now());
    }
}
