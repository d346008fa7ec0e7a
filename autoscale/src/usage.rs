//! Proposals from metrics of pods: Resource, ContainerResource, Pods, Pressure, Throttling.
//!
//! Pods without a sample and pods that are not yet at work are first left out. If that asks for a change, they are put
//! back in with the usage that speaks against the change; the change is made only as far as it stands up to that.
//!
//! Source: `GetResourceReplicas` and `calcPlainMetricReplicas` in `replica_calculator.go`, `metrics/utilization.go`,
//! and `metrics/client.go` for how the usage of containers becomes that of a pod.

use std::collections::BTreeMap;

use super::{
    arithmetic::{ceil_i32, fit_i32, fit_i64, quotient, ratio},
    context::Context,
    pods::{Group, Pod, Taken},
    policy::{Resource, ResourceTarget},
    proposal::{Current, MetricError, Proposal},
    samples::{PodSample, ResourceSample},
};

/// The usage of one resource by pods, or by one container of each.
#[derive(Clone, Copy)]
pub(super) struct Usage<'a> {
    pub samples: &'a BTreeMap<String, ResourceSample>,
    pub resource: &'a Resource,
    pub container: Option<&'a str>,
}

/// One sample of a pod.
#[derive(Clone, Copy)]
struct Sample {
    value: i64,
    taken: Taken,
}

impl From<&PodSample> for Sample {
    fn from(sample: &PodSample) -> Self {
        Self { value: sample.value, taken: Taken { at: sample.taken, window: sample.window } }
    }
}

impl Usage<'_> {
    /// The usage of a pod, unless a container that counts was not measured.
    fn of(&self, sample: &ResourceSample) -> Option<Sample> {
        let value = match self.container {
            Some(name) => (*sample.containers.get(name)?)?,
            None if sample.containers.is_empty() => return None,
            None => fit_i64(sample.containers.values().try_fold(0, |sum, value| Some(sum + i128::from((*value)?)))?),
        };
        Some(Sample { value, taken: Taken { at: sample.taken, window: sample.window } })
    }
}

/// The pods, sorted, with exact sums over each group: as many values as there could be pods fit.
#[derive(Default)]
struct Tally {
    /// Samples that count: those of ready pods, and those of pods that nobody knows.
    entries: i64,
    /// Their sum.
    sum: i128,
    ready: Share,
    missing: Share,
    unready: Share,
    /// What the missing pods are taken to use when the others would have fewer replicas.
    assumed: i128,
}

/// What one group of pods has in sum.
#[derive(Default)]
struct Share {
    pods: i64,
    usage: i128,
    requests: i128,
}

impl Share {
    fn add(&mut self, usage: i64, request: i64) {
        self.pods += 1;
        self.usage += i128::from(usage);
        self.requests += i128::from(request);
    }
}

/// Which of the pods left out at first are put back in, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PutBack {
    missing: Option<Assume>,
    /// With no usage at all.
    unready: bool,
}

/// What a pod without a sample is taken to use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Assume {
    Nothing,
    Much,
}

impl Context<'_> {
    pub(super) fn of_resource(&self, usage: &Usage<'_>, target: ResourceTarget) -> Result<Proposal, MetricError> {
        let cpu = *usage.resource == Resource::Cpu;
        let all = || usage.samples.values().filter_map(|sample| usage.of(sample));
        let of = |pod: &Pod| usage.samples.get(&pod.name).and_then(|sample| usage.of(sample));
        match target {
            ResourceTarget::AverageValue(target) => {
                let tally = self.tally(all(), of, cpu, |_| Ok(Request { asked: 0, assumed: i128::from(target) }))?;
                self.against_average(&tally, target, Current::Average)
            }
            ResourceTarget::Utilization(target) => {
                // A pod without a sample is taken to use what it asks for, or the target where that is more.
                let percent = i128::from(target.max(100));
                let tally = self.tally(all(), of, cpu, |pod| {
                    let asked = pod.request(usage.resource, usage.container)?;
                    Ok(Request { asked, assumed: i128::from(asked) * percent / 100 })
                })?;
                self.against_requests(&tally, target)
            }
        }
    }

    pub(super) fn of_pods(
        &self,
        samples: &BTreeMap<String, PodSample>,
        target: i64,
        current: fn(i64) -> Current,
    ) -> Result<Proposal, MetricError> {
        let of = |pod: &Pod| samples.get(&pod.name).map(Sample::from);
        let all = samples.values().map(Sample::from);
        let tally = self.tally(all, of, false, |_| Ok(Request { asked: 0, assumed: i128::from(target) }))?;
        self.against_average(&tally, target, current)
    }

    /// Sorts the pods. An error when nothing is left to decide with.
    fn tally(
        &self,
        all: impl Iterator<Item = Sample>,
        of: impl Fn(&Pod) -> Option<Sample>,
        cpu: bool,
        request: impl Fn(&Pod) -> Result<Request, MetricError>,
    ) -> Result<Tally, MetricError> {
        if self.pods.is_empty() {
            return Err(MetricError::NoPods);
        }
        let mut tally = Tally::default();
        for sample in all {
            tally.entries += 1;
            tally.sum += i128::from(sample.value);
        }
        for pod in self.pods {
            let sample = of(pod);
            let value = sample.map_or(0, |sample| sample.value);
            // Even of a pod that does not count: one without a request fails the metric.
            let Request { asked, assumed } = request(pod)?;
            let group = pod.group(sample.map(|sample| sample.taken), cpu, self.settings, self.now);
            match group {
                Group::Ready => tally.ready.add(value, asked),
                Group::Missing => {
                    tally.missing.add(0, asked);
                    tally.assumed += assumed;
                }
                Group::Unready => tally.unready.add(0, asked),
                Group::Ignored => {}
            }
            if matches!(group, Group::Unready | Group::Ignored) && sample.is_some() {
                tally.entries -= 1;
                tally.sum -= i128::from(value);
            }
        }
        if tally.entries == 0 { Err(MetricError::NoneUsable) } else { Ok(tally) }
    }

    fn against_average(
        &self,
        tally: &Tally,
        target: i64,
        current: fn(i64) -> Current,
    ) -> Result<Proposal, MetricError> {
        let target = i128::from(target);
        let average = quotient(tally.sum, i128::from(tally.entries));
        let replicas = self.replicas_for(tally, ratio(average, target), |back| {
            let much = if back.missing == Some(Assume::Much) { tally.assumed } else { 0 };
            Ok(ratio(quotient(tally.sum + much, i128::from(tally.entries_with(back))), target))
        })?;
        Ok(Proposal { replicas, current: current(fit_i64(average)) })
    }

    fn against_requests(&self, tally: &Tally, target: i32) -> Result<Proposal, MetricError> {
        let target = i128::from(target);
        let percent = |usage: i128, requests: i128| match requests {
            0 => Err(MetricError::NoRequests),
            requests => Ok(quotient(usage * 100, requests)),
        };
        let utilization = percent(tally.ready.usage, tally.ready.requests)?;
        let replicas = self.replicas_for(tally, ratio(utilization, target), |back| {
            let (mut usage, mut requests) = (tally.ready.usage, tally.ready.requests);
            if let Some(assume) = back.missing {
                requests += tally.missing.requests;
                usage += if assume == Assume::Much { tally.assumed } else { 0 };
            }
            if back.unready {
                requests += tally.unready.requests;
            }
            percent(usage, requests).map(|percent| ratio(percent, target))
        })?;
        // There is a ready pod, for otherwise the requests were none.
        let average = fit_i64(tally.ready.usage.checked_div(i128::from(tally.ready.pods)).unwrap_or(0));
        Ok(Proposal { replicas, current: Current::Utilization { percent: fit_i32(utilization), average } })
    }

    /// The count for a ratio of usage to target; `again` computes the ratio with the pods put back in.
    fn replicas_for(
        &self,
        tally: &Tally,
        ratio: f64,
        again: impl FnOnce(PutBack) -> Result<f64, MetricError>,
    ) -> Result<i32, MetricError> {
        let unready = tally.unready.pods > 0 && ratio > 1.0;
        if !unready && tally.missing.pods == 0 {
            let holds = self.tolerance.holds(ratio);
            return Ok(if holds { self.replicas } else { ceil_i32(ratio * tally.ready.pods as f64) });
        }
        let missing = match ratio {
            _ if tally.missing.pods == 0 => None,
            below if below < 1.0 => Some(Assume::Much),
            above if above > 1.0 => Some(Assume::Nothing),
            _ => None,
        };
        let back = PutBack { missing, unready };
        let second = again(back)?;
        let turns = (ratio < 1.0 && second > 1.0) || (ratio > 1.0 && second < 1.0);
        if self.tolerance.holds(second) || turns {
            return Ok(self.replicas);
        }
        let wanted = ceil_i32(second * tally.entries_with(back) as f64);
        // More pods are counted than the target has replicas, or fewer: that alone is no reason to move against the
        // usage.
        let against = (second < 1.0 && wanted > self.replicas) || (second > 1.0 && wanted < self.replicas);
        Ok(if against { self.replicas } else { wanted })
    }
}

/// What a pod asks for, and what it is taken to use while it has no sample.
struct Request {
    asked: i64,
    assumed: i128,
}

impl Tally {
    fn entries_with(&self, back: PutBack) -> i64 {
        self.entries
            + if back.missing.is_some() { self.missing.pods } else { 0 }
            + if back.unready { self.unready.pods } else { 0 }
    }
}
