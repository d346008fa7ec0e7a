//! Accounts of what workloads use and have reserved: the readings that agents stream, and the pods that exist, entered into a
//! [`Ledger`].
//!
//! Every replica keeps a ledger of its own, the standby too, since agents stream to all of them: a failover loses nothing. It lives
//! as long as the process (docs/metering.md, docs/adr/0014-accounts-in-memory.md).
//!
//! - [`directory`]: whose a pod is, as the stores know it
//! - [`answer`]: the hours of a period, for whoever asks

pub mod answer;
pub mod directory;

use std::{
    collections::HashSet,
    fmt,
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
            self.advance(Timestamp::now());
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Charges reservations up to now, and forgets what is gone.
    pub fn advance(&self, now: Timestamp) {
        let (replicas, open) = (self.directory.replicas(), self.directory.accounts());
        let mut ledger = self.ledger();
        for replica in &replicas {
            enter(&mut ledger, replica, now);
        }
        for account in open {
            ledger.open(&Arc::new(account), now);
        }
        ledger.keep(&replicas.into_iter().map(|replica| replica.uid).collect::<HashSet<_>>(), now);
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
        let mut ledger = self.ledger();
        for pod in pods {
            // An agent that does not read the pod's own cgroup: what its containers used before a restart would be lost.
            let Some(totals) = pod.totals() else { continue };
            let uid = pod.pod().uid();
            if ledger.account_of(uid).is_none() {
                match self.directory.find(pod.pod()) {
                    Some(replica) => enter(&mut ledger, &replica, now),
                    None => continue,
                }
            }
            let memory = pod.counters().iter().map(|counters| counters.memory_working_set_bytes);
            let reading = catamaran_metering::Reading {
                clock: reading.clock,
                taken: reading.taken,
                cpu_usage_usec: totals.cpu_usage_usec,
                memory_bytes: Some(memory.fold(0, u64::saturating_add)),
                io_read_bytes: totals.io_read_bytes,
                io_write_bytes: totals.io_write_bytes,
            };
            ledger.read(uid, reading, now);
        }
    }
}

fn enter(ledger: &mut Ledger, replica: &Replica, now: Timestamp) {
    let class = match &replica.class {
        Some(class) => class.clone(),
        // The workload is gone, or cannot be read: it stays what it was.
        None => ledger.account_of(&replica.uid).and_then(|account| account.class.clone()),
    };
    let Replica { uid, namespace, workload, class: _, hull, started, request } = replica;
    let account = Account { namespace: namespace.clone(), workload: workload.clone(), class, hull: *hull };
    ledger.meet(uid, Pod { account: Arc::new(account), started: *started, request: *request }, now);
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
