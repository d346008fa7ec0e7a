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
use catamaran_plan::{Invalid, Plan, plan, plan_invalid, status};
use jiff::Timestamp;
use kube::Resource;
use tracing::Instrument;

use crate::{
    apply::{Failure, Writer},
    autoscaler::Autoscaler,
    events::Announcer,
    findings::Findings,
    metrics::Metrics,
    observe::{Agents, add_pods, observe},
    orphans::let_go,
    stores::{Queue, StoredWorkload, Stores, WorkloadKey},
};

/// How soon a plan that met a conflict is made again: the other write is on its way by the watch.
const AFTER_CONFLICT: Duration = Duration::from_millis(50);

/// The longest pause that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// How soon it is tried again to let go of orphans, and how late at most: what waits for minutes would look like a wedge.
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
    /// Passes that failed since the last good one, of workloads that have any.
    failures: Mutex<HashMap<WorkloadKey, u32>>,
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
        Self { stores, writer, announcer, metrics, queue, autoscaler, findings, failures: Mutex::default() }
    }

    /// Forgets a workload that is gone, and lets go what it left behind.
    pub async fn gone(&self, key: &WorkloadKey) {
        self.stores.written.forget(key);
        self.autoscaler.forget(key);
        let Err(failure) = let_go(&self.stores, &self.writer, key).await else {
            self.succeeded(key);
            return;
        };
        self.metrics.failed(failure.class());
        let failures = self.failed_again(key);
        let [first, longest] = AFTER_ORPHANS;
        let pause = backoff(first, failures, longest);
        tracing::warn!(namespace = key.namespace, name = key.name, %failure, ?pause, "orphans are not let go yet");
        self.queue.wake_after(key.clone(), pause);
    }

    /// Counts a failed pass; how many there were since the last good one.
    fn failed_again(&self, key: &WorkloadKey) -> u32 {
        let mut failures = self.failures();
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// A pass went well.
    fn succeeded(&self, key: &WorkloadKey) {
        self.failures().remove(key);
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<WorkloadKey, u32>> {
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
    let outcome = pass(stored, context, key).instrument(span).await;
    context.metrics.reconciled(started.elapsed());
    outcome
}

async fn pass(stored: &StoredWorkload, context: &Context, key: &WorkloadKey) -> Result<Again, Failure> {
    if stored.meta().deletion_timestamp.is_some() {
        // The garbage collector takes the children, or leaves them, as whoever deleted it asked.
        let_go(&context.stores, &context.writer, key).await?;
        return Ok(Again::OnChange);
    }
    let workload = match &stored.0 {
        Ok(workload) => workload.clone(),
        // Enough of it can be read to say so in its status.
        Err(error) => ElasticWorkload { metadata: error.metadata.clone(), ..ElasticWorkload::default() },
    };
    let status = context.stores.written.newest_status(key, &workload);
    let desired = match &stored.0 {
        Ok(_) => context.stores.resolve(&workload),
        Err(error) => Err(Invalid::Unreadable(error.error.to_string())),
    };
    let now = Timestamp::now();
    let desired = match desired {
        Ok(desired) => desired,
        Err(invalid) => {
            let plan = plan_invalid(workload.metadata.generation.unwrap_or_default(), &invalid, &status, now);
            finish(context, key, &workload, &status, plan).await?;
            return Ok(Again::OnChange);
        }
    };
    let mut observed = observe(&context.stores, &workload, status.clone(), now);
    observed.scaling = context.autoscaler.decide(key, &workload, now);
    let desired = match &observed.scaling {
        Some(scaled) => desired.decided(&scaled.decision),
        None => desired,
    };
    let agents = Agents { autoscaler: &context.autoscaler, findings: &context.findings };
    add_pods(&mut observed, &context.stores, key, agents, desired.scaling.is_some());
    let mut plan = plan(&desired, &observed);
    let mut refused = None;
    for step in &plan.steps {
        tracing::info!(%step, "writing");
        match context.writer.carry_out(&desired, &step.action).await {
            Ok(()) => {}
            // The rest may still be right: a Service does not wait for a replica set.
            Err(Failure::Refused(problem)) => {
                context.metrics.failed("refused");
                refused.get_or_insert(problem);
            }
            Err(failure @ (Failure::Conflict { .. } | Failure::Transient { .. })) => return Err(failure),
        }
    }
    if let (Some(scaled), None) = (&observed.scaling, &refused) {
        context.autoscaler.written(key, scaled);
    }
    if let Some(problem) = &refused {
        plan.status = status::with_refusal(plan.status, &status, problem, now);
        plan.announcements = status::announcements(&status, &plan.status);
    }
    let requeue_at = plan.requeue_at;
    finish(context, key, &workload, &status, plan).await?;
    let again = requeue_at.map(|at| until(at, now));
    Ok(match (refused, again) {
        (Some(_), again) => {
            let pause = backoff(Duration::from_secs(5), context.failed_again(key), Duration::from_secs(300));
            context.autoscaler.refused(key, pause);
            Again::After(again.map_or(pause, |again| again.min(pause)))
        }
        (None, again) => {
            context.succeeded(key);
            again.map_or(Again::OnChange, Again::After)
        }
    })
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

/// When a failed reconcile is tried again: a conflict at once, other failures after a pause that doubles.
fn retry_after(context: &Context, key: &WorkloadKey, failure: &Failure) -> Again {
    context.metrics.failed(failure.class());
    let failures = context.failed_again(key);
    let pause = match failure {
        Failure::Conflict { .. } if failures <= 5 => AFTER_CONFLICT,
        Failure::Conflict { .. } => backoff(Duration::from_millis(500), failures, Duration::from_secs(30)),
        Failure::Transient { source, .. } => {
            let ours = backoff(Duration::from_millis(500), failures, Duration::from_secs(30));
            retry_after_answer(source).map_or(ours, |asked| asked.clamp(ours, LONGEST_ASKED))
        }
        Failure::Refused(_) => backoff(Duration::from_secs(5), failures, Duration::from_secs(300)),
    };
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
