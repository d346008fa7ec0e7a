//! All pods of all workloads, summed by workload: since the ledger began, and for each hour.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use catamaran_crds::Hull;
use jiff::{SignedDuration, Timestamp};

use super::{Amounts, Lease, Meter, Reading, Request, Used};

/// Seconds of an hour.
const HOUR: i64 = 3600;

/// Whose figures these are. A workload that changes its class or its hull has one for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// The namespace.
    pub namespace: Box<str>,
    /// The ElasticWorkload.
    pub workload: Box<str>,
    /// Its WorkloadClass.
    pub class: Option<Box<str>>,
    /// What the replica is.
    pub hull: Hull,
}

/// A pod, as the ledger needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// To whom it is charged.
    pub account: Arc<Account>,
    /// When the kubelet began with it.
    pub started: Timestamp,
    /// What it has reserved.
    pub request: Request,
}

/// An hour of the world's clock: so many since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hour(i64);

/// What bounds a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// For how many hours buckets are kept.
    pub hours: u32,
    /// How many buckets there are at most; the oldest hours go first.
    pub buckets: usize,
    /// For how long a total stays after the account's last pod, so that whoever reads it has read the end; and for how
    /// long a pod that is gone is remembered, in case it only seemed to be.
    pub totals: Duration,
}

impl Default for Keep {
    fn default() -> Self {
        // 31 days and a bit; 200,000 buckets take some 40 MB.
        Self { hours: 32 * 24, buckets: 200_000, totals: Duration::from_secs(3600) }
    }
}

/// A kubelet tells whole seconds, by its node's clock. A pod that started so little before the ledger began is counted
/// whole.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// What all workloads used, since it began.
#[derive(Clone, Debug)]
pub struct Ledger {
    keep: Keep,
    since: Timestamp,
    /// By uid.
    pods: HashMap<Box<str>, Entry>,
    totals: BTreeMap<Arc<Account>, Total>,
    hours: BTreeMap<Hour, HashMap<Arc<Account>, Amounts>>,
    buckets: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    pod: Pod,
    meter: Meter,
    lease: Lease,
    /// When it was last met.
    seen: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Total {
    amounts: Amounts,
    /// When one of its pods was last there.
    seen: Timestamp,
}

impl Hour {
    /// The hour of a moment.
    #[must_use]
    pub fn containing(moment: Timestamp) -> Self {
        Self(moment.as_second().div_euclid(HOUR))
    }

    /// Its first moment.
    #[must_use]
    pub fn start(self) -> Timestamp {
        Timestamp::from_second(self.0.saturating_mul(HOUR)).unwrap_or(Timestamp::MAX)
    }

    /// The first moment after it.
    #[must_use]
    pub fn end(self) -> Timestamp {
        Self(self.0.saturating_add(1)).start()
    }
}

impl Ledger {
    /// An empty one that begins now.
    #[must_use]
    pub fn new(since: Timestamp, keep: Keep) -> Self {
        Self { keep, since, pods: HashMap::new(), totals: BTreeMap::new(), hours: BTreeMap::new(), buckets: 0 }
    }

    /// When it began.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// To whom a pod is charged, if it is known; if not, [`Self::meet`] introduces it.
    #[must_use]
    pub fn account_of(&self, uid: &str) -> Option<&Arc<Account>> {
        self.pods.get(uid).map(|entry| &entry.pod.account)
    }

    /// A pod that exists. What it has reserved since it began, or since the ledger did, is charged.
    pub fn meet(&mut self, uid: &str, pod: Pod, now: Timestamp) {
        let account = pod.account.clone();
        let (charged, used) = self.step(uid, pod, now);
        self.charge(&charged, &used, now);
        if charged != account {
            self.charge(&account, &Used::default(), now);
        }
    }

    /// Pods that exist, all of one account: as [`Self::meet`] of each, and looks for the account once.
    pub fn meet_all<'a>(
        &mut self,
        account: &Arc<Account>,
        pods: impl IntoIterator<Item = (&'a str, Timestamp, Request)>,
        now: Timestamp,
    ) {
        // Most of them were met last at the same time.
        let mut sums: Vec<Used> = vec![Used::default()];
        for (uid, started, request) in pods {
            let (charged, used) = self.step(uid, Pod { account: account.clone(), started, request }, now);
            match sums.iter_mut().find(|sum| sum.within == used.within) {
                _ if charged != *account => self.charge(&charged, &used, now),
                Some(sum) => sum.amounts.add(&used.amounts),
                None => sums.push(used),
            }
        }
        for used in sums {
            self.charge(account, &used, now);
        }
    }

    /// Enters a pod. Gives what it has reserved since the last time, and who is charged for that.
    fn step(&mut self, uid: &str, pod: Pod, now: Timestamp) -> (Arc<Account>, Used) {
        let entry = match self.pods.get_mut(uid) {
            Some(entry) => entry,
            None => {
                let (meter, start) = match self.since.duration_since(pod.started) <= CLOCK_TOLERANCE {
                    true => (Meter::from_zero(), pod.started),
                    false => (Meter::from_now(), self.since),
                };
                let lease = Lease::from(start, pod.request);
                let entry = Entry { lease, meter, pod: pod.clone(), seen: now };
                self.pods.entry(uid.into()).or_insert(entry)
            }
        };
        entry.seen = now;
        // A step that began with the old class is the old class's.
        let charged = std::mem::replace(&mut entry.pod, pod).account;
        let used = entry.lease.step(now, entry.pod.request);
        (charged, used)
    }

    /// Forgets pods that were not met for a while, and accounts that are in no use.
    pub fn forget(&mut self, now: Timestamp) {
        let keep = self.keep.totals;
        let lately = |seen: Timestamp| Duration::try_from(now.duration_since(seen)).unwrap_or_default() <= keep;
        self.pods.retain(|_, entry| lately(entry.seen));
        self.totals.retain(|_, total| lately(total.seen));
        let oldest = Hour(Hour::containing(now).0.saturating_sub(i64::from(self.keep.hours)));
        while let Some(first) = self.hours.first_entry()
            && (*first.key() < oldest || self.buckets > self.keep.buckets)
        {
            // The ledger begins later from now on.
            self.since = self.since.max(first.key().end());
            self.buckets = self.buckets.saturating_sub(first.remove().len());
        }
    }

    /// An account that exists, used or not: its total is there from the start.
    pub fn open(&mut self, account: &Arc<Account>, now: Timestamp) {
        self.charge(account, &Used::default(), now);
    }

    /// A reading of a pod that is known; of others it is passed over.
    pub fn read(&mut self, uid: &str, reading: Reading, now: Timestamp) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let age = Duration::try_from(now.duration_since(entry.pod.started)).unwrap_or_default();
        let used = entry.meter.read(reading, age);
        let account = entry.pod.account.clone();
        self.charge(&account, &used, now);
    }

    /// The totals since the ledger began, or since the account is known.
    pub fn totals(&self) -> impl Iterator<Item = (&Account, &Amounts)> {
        self.totals.iter().map(|(account, total)| (account.as_ref(), &total.amounts))
    }

    /// The buckets of hours, from the one of `from` to the one before `to`, in order of time and account.
    #[must_use]
    pub fn hours(&self, from: Timestamp, to: Timestamp) -> Vec<(Hour, Arc<Account>, Amounts)> {
        if from >= to {
            return Vec::new();
        }
        let range = self.hours.range(Hour::containing(from)..).take_while(|(hour, _)| hour.start() < to);
        let mut found: Vec<_> = range
            .flat_map(|(hour, accounts)| accounts.iter().map(|(account, amounts)| (*hour, account.clone(), *amounts)))
            .collect();
        found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        found
    }

    /// How many pods and buckets it holds.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.pods.len(), self.buckets)
    }

    fn charge(&mut self, account: &Arc<Account>, used: &Used, now: Timestamp) {
        let total = self.totals.entry(account.clone()).or_insert(Total { amounts: Amounts::NONE, seen: now });
        total.amounts.add(&used.amounts);
        total.seen = total.seen.max(now);
        if used.amounts == Amounts::NONE {
            return;
        }
        let oldest = Hour(Hour::containing(now).0.saturating_sub(i64::from(self.keep.hours))).start();
        for (hour, amounts) in spread(used, self.since.max(oldest), now) {
            let bucket = self.hours.entry(hour).or_default();
            let before = bucket.len();
            bucket.entry(account.clone()).or_insert(Amounts::NONE).add(&amounts);
            self.buckets = self.buckets.saturating_add(bucket.len().saturating_sub(before));
        }
    }
}

/// What was used up to `now`, in even parts over the hours in which it was: the parts are as much as the whole. Nothing
/// is entered before `since`.
fn spread(used: &Used, since: Timestamp, now: Timestamp) -> Vec<(Hour, Amounts)> {
    let start = now.checked_sub(used.within).unwrap_or(since).max(since).min(now);
    let whole = Duration::try_from(now.duration_since(start)).unwrap_or_default();
    let (mut parts, mut done) = (Vec::new(), Amounts::NONE);
    let (mut hour, last) = (Hour::containing(start), Hour::containing(now));
    while hour < last {
        let until = Duration::try_from(hour.end().duration_since(start)).unwrap_or_default();
        let so_far = used.amounts.share(until, whole);
        parts.push((hour, so_far.less(&done)));
        done = so_far;
        hour = Hour(hour.0.saturating_add(1));
    }
    parts.push((last, used.amounts.less(&done)));
    parts.retain(|(_, amounts)| *amounts != Amounts::NONE);
    parts
}
