//! What people may look at: the last decision, and what replicas use now. Nothing here changes anything.

use std::{sync::atomic::Ordering, time::Duration};

use catamaran_autoscale::{Decision, policy::Resource, samples::Samples};
use catamaran_crds::ElasticWorkload;
use catamaran_plan::{Scaled, goal::quota::Quota};
use catamaran_protocol::stream::rates::{Rates, Share};
use catamaran_protocol::usage::{ReplicaUsage, Usage, UsageSource};
use jiff::Timestamp;

use super::{
    Autoscaler, lock,
    memory::{Spec, with_quota},
    samples,
};
use crate::{
    intake::store::PodUsage,
    sources::{Answer, Metric},
    stores::{PodEntry, WorkloadKey},
};

/// The last decision for a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct LastDecision {
    /// How long ago it was made.
    pub age: Duration,
    /// The decision as it was made.
    pub decision: Decision,
    /// The same for the count that there is by now, for a plan.
    pub scaled: Scaled,
}

impl Autoscaler {
    /// Whether this process writes.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.shared.leads.load(Ordering::Acquire)
    }

    /// The last decision on the present spec of a workload, if there was one. Unlike [`Self::decide`] it makes none.
    #[must_use]
    pub fn last_decision(&self, key: &WorkloadKey, workload: &ElasticWorkload) -> Option<LastDecision> {
        let class = self.shared.stores.class_of(workload);
        let memory = self.shared.memories().get(key).cloned()?;
        let memory = lock(&memory);
        let (age, decision) = memory.last_decision(&Spec::new(workload, class))?;
        let mut scaled = Scaled { decision: decision.clone(), history: memory.history.clone() };
        if memory.count == Some(decision.to) {
            scaled.decision.from = decision.to;
        }
        Some(LastDecision { age, decision, scaled })
    }

    /// What each replica of a workload uses now, by name: as its agent reports it, else as metrics.k8s.io has it, where
    /// that is asked for scaling. Replicas that end or have ended are left out.
    #[must_use]
    pub fn usage(&self, key: &WorkloadKey, workload: &ElasticWorkload, now: Timestamp) -> Vec<ReplicaUsage> {
        let stores = &self.shared.stores;
        let class = stores.class_of(workload);
        let quota = Quota::resolve(workload.spec.quota.as_ref(), class.as_ref().map(|class| &class.spec));
        let quota = quota.unwrap_or_default();
        let mut entries = stores.own_pods(key, workload.metadata.uid.as_deref());
        entries.retain(|entry| entry.is_live());
        let asked = self.shared.memories().get(key).and_then(|memory| lock(memory).asked).unwrap_or(false);
        let answers: Vec<(Metric, Answer)> = match asked {
            true => samples::queries(workload, true).into_iter().zip(self.shared.sources.answers(key)).collect(),
            false => Vec::new(),
        };
        let mut replicas: Vec<ReplicaUsage> = entries
            .iter_mut()
            .map(|entry| {
                with_quota(entry, &quota);
                self.usage_of(key, entry, &answers, now)
            })
            .collect();
        replicas.sort_by(|a, b| a.name.cmp(&b.name));
        replicas
    }

    fn usage_of(
        &self,
        key: &WorkloadKey,
        entry: &PodEntry,
        answers: &[(Metric, Answer)],
        now: Timestamp,
    ) -> ReplicaUsage {
        let last = self.shared.usage.last(&key.namespace, &entry.pod.name);
        let last = last.filter(|usage| usage.pod.uid() == entry.uid);
        let late = last.as_ref().is_some_and(|usage| self.shared.usage.is_late(usage));
        let from_agent = last.map(|reported| from_agent(entry, &reported));
        // What an agent said a while ago is better than nothing, with its age.
        let told = match from_agent {
            Some(last) if late => by_metrics_api(entry, answers, now).or(Some(last)),
            Some(last) => Some(last),
            None => by_metrics_api(entry, answers, now),
        };
        let (source, age_seconds, mut usage) = match told {
            Some((source, age, usage)) => (Some(source), Some(age), usage),
            None => (None, None, Usage::default()),
        };
        let pod = &entry.pod;
        usage.cpu_request_millicores = usage.cpu_millicores.and_then(|_| pod.requested(&Resource::Cpu));
        usage.memory_request_bytes =
            usage.memory_bytes.and_then(|_| pod.requested(&Resource::Memory)).map(|milli| milli / 1000);
        usage.memory_limit_bytes =
            usage.memory_bytes.and(entry.memory_limit).and_then(|limit| i64::try_from(limit).ok());
        ReplicaUsage {
            name: entry.instance.as_ref().unwrap_or(&pod.name).clone(),
            ready: pod.is_running_and_ready(),
            source,
            age_seconds,
            usage,
        }
    }
}

/// What an agent reported last.
fn from_agent(entry: &PodEntry, reported: &PodUsage) -> (UsageSource, f64, Usage) {
    let counted = || reported.containers().filter(|(name, _)| counts(entry, name)).map(|(_, container)| container);
    let cpu = counted().map(|container| Some(samples::saturate(container.rates?.cpu_millicores)));
    let memory = counted().map(|container| samples::saturate(container.memory_working_set_bytes));
    let busiest = |share: fn(&Rates) -> Option<Share>| {
        let shares = counted().filter_map(|container| share(&container.rates?));
        shares.max().map(|share| f64::from(share.millionths()) / 10_000.0)
    };
    let usage = Usage {
        cpu_millicores: cpu.reduce(|sum, next| Some(sum?.saturating_add(next?))).unwrap_or(Some(0)),
        memory_bytes: Some(memory.fold(0, i64::saturating_add)),
        throttled_percent: busiest(|rates| rates.throttled),
        cpu_pressure_percent: busiest(|rates| rates.pressure.map(|pressure| pressure.cpu_some)),
        memory_pressure_percent: busiest(|rates| rates.pressure.map(|pressure| pressure.memory_some)),
        io_pressure_percent: busiest(|rates| rates.pressure.map(|pressure| pressure.io_some)),
        ..Usage::default()
    };
    (UsageSource::Agent, reported.age.as_secs_f64(), usage)
}

/// Whether a container's usage is the replica's: of a launcher pod only the guest's is.
fn counts(entry: &PodEntry, name: &str) -> bool {
    entry.pod.containers.iter().any(|container| container.name == name)
}

/// What metrics.k8s.io answered for scaling: those resources that a metric follows.
fn by_metrics_api(entry: &PodEntry, answers: &[(Metric, Answer)], now: Timestamp) -> Option<(UsageSource, f64, Usage)> {
    let (mut usage, mut taken) = (Usage::default(), None);
    for (metric, answer) in answers {
        let (Metric::Resource { name, .. }, Ok(Samples::Resource(samples))) = (metric, &answer.result) else {
            continue;
        };
        let Some(sample) = samples.get(&entry.pod.name) else { continue };
        let mut values = sample.containers.iter().filter(|(name, _)| counts(entry, name)).map(|(_, value)| *value);
        let Some(sum) = values.try_fold(0_i64, |sum, value| Some(sum.saturating_add(value?))) else { continue };
        match name.as_str() {
            "cpu" => usage.cpu_millicores = Some(sum),
            "memory" => usage.memory_bytes = Some(sum / 1000),
            _ => continue,
        }
        taken = Some(sample.taken);
    }
    let age = now.duration_since(taken?).as_secs_f64().max(0.0);
    Some((UsageSource::MetricsApi, age, usage))
}
