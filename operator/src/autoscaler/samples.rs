//! What metrics of a workload are answered with: from the agents' usage, else from the sources.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use catamaran_autoscale::{
    Metric, Policy,
    policy::{PressureResource, Resource, Stall},
    samples::{NoSamples, PodSample, ResourceSample, Samples},
};
use catamaran_crds::{ElasticWorkload, MetricType, ScalingMetric, names::WORKLOAD_LABEL};
use catamaran_protocol::stream::rates::{Rates, Share};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;

use crate::{
    intake::store::{PodUsage, UsageStore},
    sources::{self, Answer, KeyOf, PrometheusMetric},
    stores::PodEntry,
};

/// What a workload asks of the sources, in the order of its metrics. Usage is asked for only while an agent is missing.
pub(super) fn queries(workload: &ElasticWorkload, without_agent: bool) -> Vec<sources::Metric> {
    let selector = LabelSelector {
        match_labels: Some(BTreeMap::from([(WORKLOAD_LABEL.to_owned(), workload.name_any())])),
        ..LabelSelector::default()
    };
    let metrics = workload.spec.scaling.iter().flat_map(|scaling| &scaling.metrics);
    metrics.filter_map(|metric| query(metric, &selector, without_agent)).collect()
}

fn query(metric: &ScalingMetric, selector: &LabelSelector, without_agent: bool) -> Option<sources::Metric> {
    let usage = |name: &str| {
        without_agent.then(|| sources::Metric::Resource { selector: selector.clone(), name: name.to_owned() })
    };
    match metric.type_ {
        MetricType::Resource => usage(&metric.resource.as_ref()?.name),
        MetricType::ContainerResource => usage(&metric.container_resource.as_ref()?.name),
        MetricType::Pods => metric
            .pods
            .as_ref()
            .map(|pods| sources::Metric::Pods { selector: selector.clone(), metric: pods.metric.clone() }),
        MetricType::Object => metric.object.as_ref().map(|object| sources::Metric::Object {
            described_object: object.described_object.clone(),
            metric: object.metric.clone(),
        }),
        MetricType::External => {
            metric.external.as_ref().map(|external| sources::Metric::External { metric: external.metric.clone() })
        }
        MetricType::Prometheus => metric.prometheus.as_ref().map(|prometheus| {
            let key = |reference: &catamaran_crds::scaling::SecretKeyReference| KeyOf {
                name: reference.name.clone(),
                key: reference.key.clone(),
            };
            sources::Metric::Prometheus(PrometheusMetric {
                url: prometheus.server_address.clone(),
                query: prometheus.query.clone(),
                ca: prometheus.ca_secret_ref.as_ref().map(key),
                bearer_token: prometheus.bearer_token_secret_ref.as_ref().map(key),
            })
        }),
        MetricType::Pressure | MetricType::Throttling => None,
    }
}

/// Whether a policy may have to ask sources at all.
pub(super) fn needs_sources(policy: &Policy) -> bool {
    !policy.metrics.iter().all(|metric| matches!(metric, Metric::Pressure { .. } | Metric::Throttling { .. }))
}

/// What agents report of the pods of one workload.
pub(super) struct Usage<'a> {
    pods: &'a [Arc<PodEntry>],
    known: Vec<(&'a PodEntry, PodUsage)>,
}

impl<'a> Usage<'a> {
    pub(super) fn collect(store: &UsageStore, namespace: &str, pods: &'a [Arc<PodEntry>]) -> Self {
        let usage =
            |entry: &PodEntry| store.pod(namespace, &entry.pod.name).filter(|usage| usage.pod.uid() == entry.uid);
        Self { pods, known: pods.iter().filter_map(|entry| Some((&**entry, usage(entry)?))).collect() }
    }

    /// Whether agents report all pods that live. Then nobody else has to be asked for usage.
    pub(super) fn is_complete(&self) -> bool {
        let live = self.pods.iter().filter(|entry| entry.is_live()).count();
        let known = self.known.iter().filter(|(entry, _)| entry.is_live()).count();
        live > 0 && known == live
    }

    /// The samples of each metric, in the order of the policy's metrics, and when the source answered with them, where
    /// one did. `answers` are those to [`queries`].
    pub(super) fn answer(
        &self,
        policy: &Policy,
        answers: &[Answer],
        now: Timestamp,
    ) -> (Vec<Result<Samples, NoSamples>>, Vec<Option<Timestamp>>) {
        let mut answers = answers.iter().map(|answer| (self.of_own(answer.result.clone()), answer.arrived));
        let (usage, asked) = (&self.known, !self.is_complete());
        let answer = |metric: &Metric| match metric {
            Metric::Resource { resource, .. } | Metric::ContainerResource { resource, .. } => {
                let answer = if asked { answers.next().map(|(result, _)| result) } else { None };
                (resource_samples(resource, usage, self.pods, answer, now), None)
            }
            Metric::Pods { .. } | Metric::Object { .. } | Metric::External { .. } | Metric::Prometheus { .. } => {
                answers.next().unwrap_or_else(|| (Err(NoSamples("not asked for yet".to_owned())), None))
            }
            Metric::Pressure { resource, stall, .. } => {
                (share_samples(usage, |rates| pressure(rates, *resource, *stall), now), None)
            }
            Metric::Throttling { .. } => (share_samples(usage, |rates| rates.throttled, now), None),
            Metric::Invalid { message, .. } => (Err(NoSamples(message.clone())), None),
        };
        policy.metrics.iter().map(answer).unzip()
    }

    /// Sources answer for all pods with the workload's label; those that are not its own do not count.
    fn of_own(&self, mut answer: Result<Samples, NoSamples>) -> Result<Samples, NoSamples> {
        let own = || self.pods.iter().map(|entry| entry.pod.name.as_str()).collect::<HashSet<_>>();
        match &mut answer {
            Ok(Samples::Resource(samples)) => {
                let own = own();
                samples.retain(|name, _| own.contains(name.as_str()));
            }
            Ok(Samples::Pods(samples)) => {
                let own = own();
                samples.retain(|name, _| own.contains(name.as_str()));
            }
            Ok(Samples::Value(_) | Samples::Series(_)) | Err(_) => {}
        }
        answer
    }
}

fn pressure(rates: &Rates, resource: PressureResource, stall: Stall) -> Option<Share> {
    rates.pressure.map(|pressure| match (resource, stall) {
        (PressureResource::Cpu, Stall::Some) => pressure.cpu_some,
        (PressureResource::Cpu, Stall::Full) => pressure.cpu_full,
        (PressureResource::Memory, Stall::Some) => pressure.memory_some,
        (PressureResource::Memory, Stall::Full) => pressure.memory_full,
        (PressureResource::Io, Stall::Some) => pressure.io_some,
        (PressureResource::Io, Stall::Full) => pressure.io_full,
    })
}

/// Usage as agents report it; of pods without an agent, as metrics.k8s.io has it.
fn resource_samples(
    resource: &Resource,
    usage: &[(&PodEntry, PodUsage)],
    pods: &[Arc<PodEntry>],
    answer: Option<Result<Samples, NoSamples>>,
    now: Timestamp,
) -> Result<Samples, NoSamples> {
    let (mut samples, problem) = match answer {
        Some(Ok(Samples::Resource(mut samples))) => {
            // Of a launcher pod only the guest's container counts.
            for entry in pods.iter().filter(|entry| entry.instance.is_some()) {
                if let Some(sample) = samples.get_mut(&entry.pod.name) {
                    sample.containers.retain(|name, _| entry.pod.containers.iter().any(|c| c.name == *name));
                }
            }
            (samples, None)
        }
        Some(Ok(Samples::Pods(_) | Samples::Value(_) | Samples::Series(_))) => {
            (BTreeMap::new(), Some(NoSamples("the answer is of another kind".to_owned())))
        }
        Some(Err(problem)) => (BTreeMap::new(), Some(problem)),
        None => (BTreeMap::new(), None),
    };
    for (entry, usage) in usage {
        let window = usage.containers().filter_map(|(_, container)| container.rates).map(|rates| rates.window).max();
        let containers = usage.containers().filter(|(name, _)| entry.pod.containers.iter().any(|c| c.name == *name));
        let values = containers.map(|(name, container)| {
            let value = match resource {
                Resource::Cpu => container.rates.map(|rates| saturate(rates.cpu_millicores)),
                Resource::Memory => Some(saturate(container.memory_working_set_bytes.saturating_mul(1000))),
                Resource::Other(_) => None,
            };
            (name.to_owned(), value)
        });
        let sample = ResourceSample {
            containers: values.collect(),
            taken: before(now, usage.age),
            window: signed(window.unwrap_or_default()),
        };
        samples.insert(entry.pod.name.clone(), sample);
    }
    match problem {
        Some(problem) if samples.is_empty() => Err(problem),
        None if samples.is_empty() => Err(NoSamples(format!(
            "unable to get metrics for resource {resource}: no agent reports, and metrics.k8s.io has not answered yet"
        ))),
        Some(_) | None => Ok(Samples::Resource(samples)),
    }
}

/// Shares of time, in thousandths of a percent, of the pod's busiest container.
fn share_samples(
    usage: &[(&PodEntry, PodUsage)],
    share: impl Fn(&Rates) -> Option<Share>,
    now: Timestamp,
) -> Result<Samples, NoSamples> {
    let sample = |entry: &PodEntry, usage: &PodUsage| {
        let counted = usage.containers().filter(|(name, _)| entry.pod.containers.iter().any(|c| c.name == *name));
        let rates = counted.filter_map(|(_, container)| container.rates);
        let (value, window) = rates
            .filter_map(|rates| Some((share(&rates)?.millionths(), rates.window)))
            .max_by_key(|(value, _)| *value)?;
        Some(PodSample { value: i64::from(value / 10), taken: before(now, usage.age), window: signed(window) })
    };
    let samples: BTreeMap<String, PodSample> =
        usage.iter().filter_map(|(entry, usage)| Some((entry.pod.name.clone(), sample(entry, usage)?))).collect();
    if samples.is_empty() { Err(NoSamples("no node agent reports it".to_owned())) } else { Ok(Samples::Pods(samples)) }
}

/// The CPU that the containers of a pod use, in thousandths of a core.
pub(super) fn cpu(store: &UsageStore, namespace: &str, entry: &PodEntry) -> Option<i64> {
    let usage = store.pod(namespace, &entry.pod.name).filter(|usage| usage.pod.uid() == entry.uid)?;
    let mut counted = usage.containers().filter(|(name, _)| entry.pod.containers.iter().any(|c| c.name == *name));
    counted.try_fold(0_i64, |sum, (_, container)| Some(sum.saturating_add(saturate(container.rates?.cpu_millicores))))
}

pub(super) fn saturate(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn signed(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn before(now: Timestamp, age: std::time::Duration) -> Timestamp {
    now.checked_sub(signed(age)).unwrap_or(Timestamp::MIN)
}
