//! One pass for one workload: observe, plan, apply, and say in the status how it went.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use catamaran_controller::{
    client::retry_after as retry_after_answer,
    workers::{Again, Broken, Passes},
};
use catamaran_crds::{ElasticWorkload, ElasticWorkloadStatus};
use catamaran_plan::{
    Facts, Invalid, Plan, Problem,
    check::debug_check,
    plan, plan_invalid,
    status::{self, Progress},
};
use jiff::Timestamp;
use kube::Resource;
use tracing::Instrument;

use crate::{
    apply::{Applied, Failure, Writer},
    autoscaler::Autoscaler,
    events::Announcer,
    findings::Findings,
    metrics::Metrics,
    observe::{Agents, observe},
    orphans::release,
    pace::Pace,
    stores::{Queue, StoredWorkload, Stores, WorkloadKey},
};

/// How soon a plan that met a conflict is made again: the other write is on its way by the watch.
const AFTER_CONFLICT: Duration = Duration::from_millis(50);

/// How often in a row that is done, before a conflict is taken for a failure like others.
const CONFLICTS: u32 = 5;

/// Writes that fail for so long are reported in the status: what is over sooner is nobody's concern.
const REPORTED_AFTER: Duration = Duration::from_secs(1);

/// Those that fail for so long are reported as a workload that does not go on by itself.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// How soon it is looked again whether what is known is fresh.
const UNTIL_FRESH: Duration = Duration::from_secs(1);

/// The longest pause that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// How soon it is tried again to release orphans, and how late at most: what waits for minutes would look like a
/// wedge.
const AFTER_ORPHANS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// What a reconcile works with.
pub struct Context {
    /// What is known.
    pub stores: Stores,
    /// What writes.
    pub writer: Writer,
    /// What tells.
    pub announcer: Announcer,
    /// What counts.
    pub metrics: Metrics,
    /// What wakes.
    pub queue: Queue,
    /// What keeps the counts.
    pub autoscaler: Autoscaler,
    /// What agents found at pods.
    pub findings: Findings,
    /// What was written lately.
    pace: Pace,
    /// Of workloads whose last pass failed.
    failures: Mutex<HashMap<WorkloadKey, Failing>>,
}

/// Passes of a workload that failed since the last good one.
#[derive(Clone, Copy, Debug)]
struct Failing {
    passes: u32,
    since: Instant,
}

impl Failing {
    fn pause_after(self, failure: &Failure) -> Duration {
        match failure {
            Failure::Conflict { .. } if self.passes <= CONFLICTS => AFTER_CONFLICT,
            Failure::Conflict { .. } => backoff(Duration::from_millis(500), self.passes, Duration::from_secs(30)),
            Failure::Transient { source, .. } => {
                let ours = backoff(Duration::from_millis(500), self.passes, Duration::from_secs(30));
                retry_after_answer(source).map_or(ours, |asked| asked.clamp(ours, LONGEST_ASKED))
            }
            Failure::Refused(_) => backoff(Duration::from_secs(5), self.passes, Duration::from_secs(300)),
        }
    }
}

impl Context {
    /// A context in which nothing has failed yet.
    #[must_use]
    pub fn new(
        stores: Stores,
        writer: Writer,
        announcer: Announcer,
        metrics: Metrics,
        queue: Queue,
        autoscaler: Autoscaler,
        findings: Findings,
    ) -> Self {
        let (pace, failures) = (Pace::default(), Mutex::default());
        Self { stores, writer, announcer, metrics, queue, autoscaler, findings, pace, failures }
    }

    /// Forgets a workload that is gone, and releases what it left behind.
    pub async fn gone(&self, key: &WorkloadKey) {
        if self.stores.stale().is_some() {
            self.queue.wake_after(key.clone(), UNTIL_FRESH);
            return;
        }
        self.stores.written.forget(key);
        self.stores.last_good.forget(key);
        self.autoscaler.forget(key);
        let Err(failure) = release(&self.stores, &self.writer, key).await else {
            self.succeeded(key);
            return;
        };
        self.metrics.failed(failure.class());
        let failing = self.failed_again(key, Instant::now());
        let [first, longest] = AFTER_ORPHANS;
        let pause = backoff(first, failing.passes, longest);
        tracing::warn!(namespace = key.namespace, name = key.name, %failure, ?pause, "orphans are not released yet");
        self.queue.wake_after(key.clone(), pause);
    }

    /// Counts a failed pass, which began then.
    fn failed_again(&self, key: &WorkloadKey, began: Instant) -> Failing {
        let mut failures = self.failures();
        let failing = failures.entry(key.clone()).or_insert(Failing { passes: 0, since: began });
        failing.passes = failing.passes.saturating_add(1);
        *failing
    }

    /// A pass went well.
    fn succeeded(&self, key: &WorkloadKey) {
        self.failures().remove(key);
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<WorkloadKey, Failing>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passes<WorkloadKey> for Context {
    async fn pass(self: Arc<Self>, key: WorkloadKey) -> Again {
        match self.stores.workloads.get(&key.reference()) {
            None => {
                self.gone(&key).await;
                Again::OnChange
            }
            Some(stored) => {
                reconcile(&stored, &self, &key).await.unwrap_or_else(|failure| retry_after(&self, &key, &failure))
            }
        }
    }

    fn broken(&self, key: &WorkloadKey, how: &Broken, pause: Duration) {
        self.metrics.failed(match how {
            Broken::Panicked(_) => "panic",
            Broken::TooLong(_) => "timeout",
        });
        tracing::error!(namespace = key.namespace, name = key.name, %how, ?pause, "a reconcile broke off");
    }
}

/// Reconciles one workload.
async fn reconcile(stored: &StoredWorkload, context: &Context, key: &WorkloadKey) -> Result<Again, Failure> {
    let started = Instant::now();
    let span = tracing::info_span!("reconcile", namespace = key.namespace, name = key.name);
    let outcome = pass(stored, context, key, started).instrument(span).await;
    context.metrics.reconciled(started.elapsed());
    outcome
}

async fn pass(
    stored: &StoredWorkload,
    context: &Context,
    key: &WorkloadKey,
    started: Instant,
) -> Result<Again, Failure> {
    if context.stores.stale().is_some() {
        return Ok(Again::After(UNTIL_FRESH));
    }
    if stored.meta().deletion_timestamp.is_some() {
        // The garbage collector takes the children, or leaves them, as whoever deleted it asked.
        release(&context.stores, &context.writer, key).await?;
        return Ok(Again::OnChange);
    }
    let workload = match &stored.0 {
        Ok(workload) => workload.clone(),
        // Enough of it can be read to say so in its status.
        Err(error) => ElasticWorkload { metadata: error.metadata.clone(), ..ElasticWorkload::default() },
    };
    let status = context.stores.written.newest_status(key, &workload);
    let resolved = match &stored.0 {
        Ok(_) => context.stores.resolve(&workload),
        Err(error) => Err(Invalid::Unreadable(error.error.to_string())),
    };
    // A view of before what the status is about would undo what was done since. Unless it is the truth: a status may be
    // restored together with its object, from a backup of another one.
    if status.observed_generation > workload.metadata.generation && context.writer.is_behind(&workload).await? {
        return Ok(Again::After(UNTIL_FRESH));
    }
    let now = Timestamp::now();
    let stand_in = match &resolved {
        Ok(_) => None,
        Err(_) => context.stores.last_good.makes_none(key, &workload, &status),
    };
    let agents = Agents { autoscaler: &context.autoscaler, findings: &context.findings };
    let (workload, desired, invalid) = match (resolved, &stand_in) {
        (Ok(desired), _) => {
            context.stores.last_good.makes_sense(key, &workload, context.stores.class_of(&workload).as_deref());
            (workload, desired, None)
        }
        // What ran goes on, and the condition says that it is not what the spec says.
        (Err(invalid), Some(instead)) => (instead.workload.clone(), instead.goal.clone(), Some(invalid)),
        (Err(invalid), None) => {
            let facts = observe(&context.stores, agents, &workload, status, false, now);
            let plan = plan_invalid(workload.metadata.generation.unwrap_or_default(), &invalid, &facts);
            finish(context, key, &workload, &facts.status, plan).await?;
            return Ok(Again::OnChange);
        }
    };
    let scaled = context.autoscaler.decide(key, &workload, now);
    let facts = observe(&context.stores, agents, &workload, status, desired.scaling.is_some(), now);
    let mut plan = plan(&desired, &facts, scaled.as_ref());
    debug_check(&desired, &facts, &plan);
    if (!plan.steps.is_empty() || plan.status != facts.status)
        && let Err(wait) = context.pace.take(key)
    {
        tracing::info!(?wait, "it is written too often; it waits");
        context.metrics.held();
        return Ok(Again::After(wait));
    }
    let applied = context.writer.apply(&desired, &plan, scaled.as_ref()).await;
    context.autoscaler.written(key, &applied);
    if let (Some(invalid), Some(instead)) = (invalid, &stand_in) {
        plan.status = status::with_invalid(plan.status, &facts.status, &invalid, now);
        plan.status.last_good_spec = instead.text.clone();
    }
    record(context, key, &workload, &facts, plan, applied, started).await
}

/// Puts into the status what a plan came to; when to look again.
async fn record(
    context: &Context,
    key: &WorkloadKey,
    workload: &ElasticWorkload,
    observed: &Facts,
    mut plan: Plan,
    applied: Applied,
    started: Instant,
) -> Result<Again, Failure> {
    let (previous, now) = (&observed.status, observed.now);
    let failing = (!applied.failures().is_empty()).then(|| context.failed_again(key, started));
    let verdict = failing.map_or(Verdict::Done, |failing| Verdict::from_failures(applied.failures(), failing));
    if let Verdict::Again = verdict {
        return Ok(Again::After(AFTER_CONFLICT));
    }
    if applied.missed_count() {
        plan.status = status::undecided(plan.status, previous);
    }
    if let Verdict::Report { problem, stopped, pause: _ } = &verdict {
        let progress = if *stopped { Progress::Stopped { problem } } else { Progress::Retrying { problem } };
        plan.status = status::with_problem(plan.status, previous, &progress, now);
    }
    plan.announcements = status::announcements(previous, &plan.status);
    let requeue_at = plan.requeue_at;
    finish(context, key, workload, previous, plan).await?;
    let again = requeue_at.map(|at| until(at, now));
    let soonest = |pause: Duration| Again::After(again.map_or(pause, |again| again.min(pause)));
    Ok(match verdict {
        Verdict::Again => Again::After(AFTER_CONFLICT),
        Verdict::Report { pause, .. } | Verdict::Retry { pause } => {
            context.autoscaler.refused(key, pause);
            soonest(pause)
        }
        Verdict::Done if applied.left() > 0 => {
            context.succeeded(key);
            Again::After(Duration::ZERO)
        }
        Verdict::Done => {
            context.succeeded(key);
            again.map_or(Again::OnChange, Again::After)
        }
    })
}

/// What failed writes of a pass mean.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// There were none.
    Done,
    /// The view is out of date; what is newer is on its way.
    Again,
    /// It may be over in a moment.
    Retry {
        /// When it is tried again.
        pause: Duration,
    },
    /// The user has to know.
    Report {
        /// What is wrong.
        problem: Problem,
        /// Whether it is over by itself hardly.
        stopped: bool,
        /// When it is tried again.
        pause: Duration,
    },
}

impl Verdict {
    fn from_failures(failures: &[Failure], failing: Failing) -> Self {
        let refused = failures.iter().find(|failure| matches!(failure, Failure::Refused(_)));
        let transient = failures.iter().find(|failure| matches!(failure, Failure::Transient { .. }));
        match (refused, transient.or(failures.first())) {
            (Some(failure), _) => {
                Self::Report { problem: failure.problem(), stopped: true, pause: failing.pause_after(failure) }
            }
            (None, None) => Self::Done,
            (None, Some(Failure::Conflict { .. })) if failing.passes <= CONFLICTS => Self::Again,
            (None, Some(failure)) if failing.since.elapsed() < REPORTED_AFTER => {
                Self::Retry { pause: failing.pause_after(failure) }
            }
            (None, Some(failure)) => Self::Report {
                problem: failure.problem(),
                stopped: failing.since.elapsed() >= STALLED_AFTER,
                pause: failing.pause_after(failure),
            },
        }
    }
}

/// Writes the status if it differs from what is there, and tells what is new.
async fn finish(
    context: &Context,
    key: &WorkloadKey,
    workload: &ElasticWorkload,
    before: &ElasticWorkloadStatus,
    plan: Plan,
) -> Result<(), Failure> {
    if plan.status == *before {
        return Ok(());
    }
    let version = context.writer.write_status(workload, &plan.status).await?;
    if let Some(version) = version.and_then(|version| version.parse().ok()) {
        context.stores.written.wrote(key, version, plan.status);
    }
    context.announcer.publish(workload, &plan.announcements);
    Ok(())
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    // A little later than asked, so that the time has surely come.
    Duration::try_from(at.duration_since(now)).unwrap_or_default() + Duration::from_millis(20)
}

/// When a reconcile whose status could not be written is tried again: a conflict at once, other failures after a pause
/// that doubles.
fn retry_after(context: &Context, key: &WorkloadKey, failure: &Failure) -> Again {
    context.metrics.failed(failure.class());
    let pause = context.failed_again(key, Instant::now()).pause_after(failure);
    match failure {
        Failure::Conflict { .. } => {
            tracing::debug!(namespace = key.namespace, name = key.name, %failure, "planning again")
        }
        Failure::Transient { .. } | Failure::Refused(_) => {
            tracing::warn!(namespace = key.namespace, name = key.name, %failure, ?pause, "a reconcile failed");
        }
    }
    Again::After(pause)
}

fn backoff(first: Duration, failures: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transient() -> Failure {
        let status = kube::core::Status::failure("failed calling webhook", "InternalError").with_code(500);
        Failure::Transient { object: "ReplicaSet web-1".to_owned(), source: kube::Error::Api(status.boxed()) }
    }

    fn refused() -> Failure {
        Failure::Refused(Problem::Refused { object: "Service web".to_owned(), message: "no".to_owned() })
    }

    fn conflict() -> Failure {
        Failure::Conflict { object: "ReplicaSet web-1".to_owned() }
    }

    fn failing(passes: u32, seconds: u64) -> Failing {
        Failing { passes, since: Instant::now().checked_sub(Duration::from_secs(seconds)).expect("the machine is up") }
    }

    #[test]
    fn what_goes_on_failing_is_reported_within_seconds() {
        let reported = |failures: &[Failure], failing| match Verdict::from_failures(failures, failing) {
            Verdict::Report { problem, stopped, .. } => Some((problem.reason(), stopped)),
            Verdict::Done | Verdict::Again | Verdict::Retry { .. } => None,
        };
        assert_eq!(reported(&[], failing(1, 0)), None);
        assert_eq!(reported(&[transient()], failing(1, 0)), None, "it may be over in a moment");
        assert_eq!(reported(&[transient()], failing(3, 2)), Some(("WriteFailing", false)));
        assert_eq!(reported(&[transient()], failing(1, 31)), Some(("WriteFailing", true)), "one that hung");
        assert_eq!(reported(&[refused()], failing(1, 0)), Some(("Refused", true)));
        assert_eq!(reported(&[conflict(), transient(), refused()], failing(1, 0)), Some(("Refused", true)));
        assert_eq!(Verdict::from_failures(&[conflict()], failing(5, 9)), Verdict::Again);
        assert_eq!(reported(&[conflict()], failing(6, 9)), Some(("WriteFailing", false)));
    }
}
