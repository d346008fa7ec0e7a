//! What workloads use now, in the form of [`UsageList`](catamaran_protocol::usage::UsageList).

use std::sync::Arc;

use catamaran_crds::ElasticWorkload;
use catamaran_protocol::usage::{ReplicaUsage, Usage, UsageSource, WorkloadUsage};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    autoscaler::Autoscaler,
    stores::{StoredWorkload, Stores, WorkloadKey},
};

/// The workloads of a namespace, or all.
#[must_use]
pub fn all(stores: &Stores, namespace: Option<&str>) -> Vec<(WorkloadKey, Arc<StoredWorkload>)> {
    let wanted = stores
        .workloads
        .state_filter(|stored| namespace.is_none_or(|wanted| stored.namespace().as_deref() == Some(wanted)));
    wanted.into_iter().map(|stored| (WorkloadKey::of_workload(stored.as_ref()), stored)).collect()
}

/// What a workload uses; `each` replica as well when asked for.
#[must_use]
pub fn report(
    autoscaler: &Autoscaler,
    key: &WorkloadKey,
    workload: &ElasticWorkload,
    each: bool,
    now: Timestamp,
) -> WorkloadUsage {
    let replicas = autoscaler.usage(key, workload, now);
    let status = workload.status.as_ref();
    let by_agents = replicas.iter().filter(|replica| replica.source == Some(UsageSource::Agent));
    let by = |source| count(replicas.iter().filter(|replica| replica.source == Some(source)).count());
    WorkloadUsage {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        hull: status.and_then(|status| status.hull),
        desired_replicas: status.map_or(0, |status| status.desired_replicas),
        ready_replicas: status.map_or(0, |status| status.ready_replicas),
        replicas: count(replicas.len()),
        by_agent: by(UsageSource::Agent),
        by_metrics_api: by(UsageSource::MetricsApi),
        agents_age_seconds: by_agents.filter_map(|replica| replica.age_seconds).reduce(f64::max),
        usage: together(&replicas),
        each: if each { replicas } else { Vec::new() },
    }
}

/// Sums of amounts and means of shares. A request or limit is the sum over the replicas that use the resource, so that
/// a percentage of it makes sense; where one of them has none, there is none.
fn together(replicas: &[ReplicaUsage]) -> Usage {
    let sum = |pick: fn(&Usage) -> Option<i64>| {
        replicas.iter().filter_map(|replica| pick(&replica.usage)).reduce(i64::saturating_add)
    };
    let all = |used: fn(&Usage) -> Option<i64>, pick: fn(&Usage) -> Option<i64>| {
        let mut using = replicas.iter().map(|replica| &replica.usage).filter(|usage| used(usage).is_some()).peekable();
        using.peek()?;
        using.try_fold(0_i64, |sum, usage| Some(sum.saturating_add(pick(usage)?)))
    };
    let mean = |pick: fn(&Usage) -> Option<f64>| {
        let (sum, count) = replicas
            .iter()
            .filter_map(|replica| pick(&replica.usage))
            .fold((0.0, 0.0), |(sum, count), share| (sum + share, count + 1.0));
        (count > 0.0).then(|| sum / count)
    };
    let (cpu, memory) = (|usage: &Usage| usage.cpu_millicores, |usage: &Usage| usage.memory_bytes);
    Usage {
        cpu_millicores: sum(cpu),
        cpu_request_millicores: all(cpu, |usage| usage.cpu_request_millicores),
        memory_bytes: sum(memory),
        memory_request_bytes: all(memory, |usage| usage.memory_request_bytes),
        memory_limit_bytes: all(memory, |usage| usage.memory_limit_bytes),
        throttled_percent: mean(|usage| usage.throttled_percent),
        cpu_pressure_percent: mean(|usage| usage.cpu_pressure_percent),
        memory_pressure_percent: mean(|usage| usage.memory_pressure_percent),
        io_pressure_percent: mean(|usage| usage.io_pressure_percent),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(usage: Usage) -> ReplicaUsage {
        ReplicaUsage { name: "web-1".to_owned(), ready: true, source: None, age_seconds: None, usage }
    }

    #[test]
    fn amounts_are_summed_and_shares_averaged() {
        let one = Usage {
            cpu_millicores: Some(30),
            cpu_request_millicores: Some(50),
            memory_bytes: Some(10),
            memory_limit_bytes: Some(64),
            throttled_percent: Some(10.0),
            ..Usage::default()
        };
        let two = Usage { cpu_millicores: Some(0), memory_bytes: Some(5), throttled_percent: Some(20.0), ..one };
        // A replica that nobody reports counts nowhere.
        let sum = together(&[replica(one), replica(two), replica(Usage::default())]);
        assert_eq!(
            sum,
            Usage {
                cpu_millicores: Some(30),
                cpu_request_millicores: Some(100),
                memory_bytes: Some(15),
                memory_limit_bytes: Some(128),
                throttled_percent: Some(15.0),
                ..Usage::default()
            }
        );
        // Without a request of one there is no percentage of all.
        let without = Usage { cpu_request_millicores: None, ..one };
        assert_eq!(together(&[replica(one), replica(without)]).cpu_request_millicores, None);
        assert_eq!(together(&[]), Usage::default());
    }
}
