//! The part of a quota that the node agent holds, from workload and class to the annotation of a pod.

use std::num::NonZeroU64;

use catamaran_crds as crds;
use catamaran_protocol::node_quota::NodeQuota;
use catamaran_protocol::node_quota::{IoDevice, IoLimits};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::{
    goal::{Invalid, quota::Quota},
    quantity::{bytes, from_bytes, from_millicores, millicores},
};

/// Microseconds of one millicore over a period of 100 ms, the one that the kubelet uses.
const USEC_PER_MILLICORE: u64 = 100;

/// A resolved quota as far as the node agent holds it; for no container yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSettings(NodeQuota);

impl NodeSettings {
    /// Takes each field from the workload's own quota, else from its class; `quota` is the rest of it, resolved.
    ///
    /// # Errors
    /// When a value is wrong, a burst is above the limit or without one, or memory.high is above the limit.
    pub fn resolve(
        own: Option<&crds::Quota>,
        class: Option<&crds::WorkloadClassSpec>,
        quota: Quota,
    ) -> Result<Self, Invalid> {
        let empty = crds::Quota::default();
        let (own, class) = (own.unwrap_or(&empty), class.map_or(&empty, |class| &class.quota));
        let cpu = [own.cpu.as_ref(), class.cpu.as_ref()];
        let memory = [own.memory.as_ref(), class.memory.as_ref()];
        let burst = cpu.iter().flatten().find_map(|cpu| cpu.burst.as_ref());
        let burst = burst.map(millicores).transpose().map_err(|error| wrong("cpu.burst", error))?;
        let size = |pick: fn(&crds::MemoryQuota) -> Option<&Quantity>, field| {
            let value = memory.iter().flatten().find_map(|memory| pick(memory));
            value.map(bytes).transpose().map_err(|error| wrong(field, error))
        };
        let high = size(|memory| memory.high.as_ref(), "memory.high")?;
        let swap = size(|memory| memory.swap.as_ref(), "memory.swap")?;
        check_burst(burst, quota)?;
        check_high(high, quota)?;
        let weight = cpu.iter().flatten().find_map(|cpu| cpu.weight);
        let io = own.io.as_ref().or(class.io.as_ref());
        Ok(Self(NodeQuota {
            container: String::new(),
            cpu_burst_usec: burst.map(|millicores| millicores.saturating_mul(USEC_PER_MILLICORE)),
            cpu_weight: weight.map(|weight| count("cpu.weight", weight.into())).transpose()?,
            memory_high_bytes: high,
            memory_swap_max_bytes: swap,
            pids_max: own.pids.or(class.pids).map(|pids| count("pids", pids)).transpose()?,
            io: io.into_iter().flatten().enumerate().map(io_limits).collect::<Result<_, _>>()?,
            frozen: false,
        }))
    }

    /// Without any limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == NodeQuota::default()
    }

    /// memory.high, in bytes.
    #[must_use]
    pub fn memory_high(&self) -> Option<u64> {
        self.0.memory_high_bytes
    }

    /// What the annotation says for a container; nothing when there is nothing to hold.
    ///
    /// # Errors
    /// When a number is out of the kernel's range.
    pub fn for_container(&self, container: &str) -> Result<Option<NodeQuota>, Invalid> {
        if self.is_empty() {
            return Ok(None);
        }
        let quota = NodeQuota { container: container.to_owned(), ..self.0.clone() };
        // By the same code as the agent's, so that nothing is asked of it that it refuses.
        quota.check().map_err(|refused| Invalid::field("spec.quota", refused.to_string()))?;
        Ok(Some(quota))
    }
}

fn check_burst(burst: Option<u64>, quota: Quota) -> Result<(), Invalid> {
    match (burst, quota.cpu_limit) {
        (None | Some(0), _) => Ok(()),
        (Some(_), None) => Err(Invalid::field(
            "spec.quota.cpu.burst",
            "needs spec.quota.cpu.limit, since it is saved up below the limit; set it, here or in the class",
        )),
        (Some(burst), Some(limit)) if burst > limit => Err(Invalid::field(
            "spec.quota.cpu.burst",
            format!(
                "{} is above the limit {} once workload and class are put together; lower the burst or raise the limit",
                from_millicores(burst).0,
                from_millicores(limit).0
            ),
        )),
        (Some(_), Some(_)) => Ok(()),
    }
}

fn check_high(high: Option<u64>, quota: Quota) -> Result<(), Invalid> {
    match (high, quota.memory_limit) {
        (Some(high), Some(limit)) if high > limit => Err(Invalid::field(
            "spec.quota.memory.high",
            format!(
                "{} is above the limit {} once workload and class are put together; lower it or raise the limit",
                from_bytes(high).0,
                from_bytes(limit).0
            ),
        )),
        (Some(_) | None, _) => Ok(()),
    }
}

fn io_limits((index, quota): (usize, &crds::IoQuota)) -> Result<IoLimits, Invalid> {
    let crds::IoQuota {
        device,
        read_bytes_per_second,
        write_bytes_per_second,
        read_operations_per_second,
        write_operations_per_second,
    } = quota;
    let path = |field: &str| format!("io[{index}].{field}");
    let rate = |value: &Option<Quantity>, field: &str| {
        let value = value.as_ref().map(bytes).transpose().map_err(|error| wrong(&path(field), error))?;
        value.map(|value| positive(&path(field), value)).transpose()
    };
    let operations = |value: Option<i64>, field: &str| {
        let value = value.map(|value| count(&path(field), value)).transpose()?;
        value.map(|value| positive(&path(field), value)).transpose()
    };
    let device: IoDevice = device.parse().map_err(|error| wrong(&path("device"), error))?;
    Ok(IoLimits {
        device,
        rbps: rate(read_bytes_per_second, "readBytesPerSecond")?,
        wbps: rate(write_bytes_per_second, "writeBytesPerSecond")?,
        riops: operations(*read_operations_per_second, "readOperationsPerSecond")?,
        wiops: operations(*write_operations_per_second, "writeOperationsPerSecond")?,
    })
}

fn wrong(field: &str, error: impl std::fmt::Display) -> Invalid {
    Invalid::field(&format!("spec.quota.{field}"), error.to_string())
}

fn count(field: &str, value: i64) -> Result<u64, Invalid> {
    u64::try_from(value).map_err(|_| wrong(field, "must not be negative"))
}

fn positive(field: &str, value: u64) -> Result<NonZeroU64, Invalid> {
    NonZeroU64::new(value).ok_or_else(|| wrong(field, "must be above 0; leave it out for no limit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(yaml: &str) -> crds::Quota {
        serde_saphyr::from_str(yaml).expect("a quota")
    }

    fn resolved(own: &str, class: &str) -> Result<String, String> {
        let (own, class) = (quota(own), crds::WorkloadClassSpec { quota: quota(class), price: None });
        let amounts = Quota::resolve(Some(&own), Some(&class)).map_err(|error| error.to_string())?;
        let knobs = NodeSettings::resolve(Some(&own), Some(&class), amounts).map_err(|error| error.to_string())?;
        let quota = knobs.for_container("main").map_err(|error| error.to_string())?;
        Ok(quota.map_or_else(String::new, |quota| quota.to_annotation()))
    }

    #[test]
    fn a_quota_becomes_what_the_agent_holds() {
        for (own, class, expected) in [
            ("{}", "{}", ""),
            ("{cpu: {request: 1}, memory: {limit: 1Gi}}", "{}", ""),
            (
                "{cpu: {limit: 1, burst: 500m, weight: 300}, memory: {limit: 2Gi, high: 1Gi, swap: 0}, pids: 9}",
                "{}",
                r#"{"container":"main","cpuBurstUsec":50000,"cpuWeight":300,"memoryHighBytes":1073741824,"memorySwapMaxBytes":0,"pidsMax":9}"#,
            ),
            // Field by field.
            (
                "{cpu: {burst: 100m}}",
                "{cpu: {limit: 1, burst: 1, weight: 5}, pids: 7}",
                r#"{"container":"main","cpuBurstUsec":10000,"cpuWeight":5,"pidsMax":7}"#,
            ),
            (
                "{io: [{device: '8:0', readBytesPerSecond: 1Ki, writeOperationsPerSecond: 3}]}",
                "{io: [{device: '*', writeBytesPerSecond: 1}]}",
                r#"{"container":"main","io":[{"device":"8:0","rbps":1024,"wiops":3}]}"#,
            ),
            ("{io: []}", "{io: [{device: '*', writeBytesPerSecond: 1}]}", ""),
            (
                "{}",
                "{io: [{device: '*', writeBytesPerSecond: 1}]}",
                r#"{"container":"main","io":[{"device":"*","wbps":1}]}"#,
            ),
        ] {
            assert_eq!(resolved(own, class).as_deref(), Ok(expected), "{own} {class}");
        }
    }

    #[test]
    fn what_is_right_where_it_stands_and_wrong_together_is_refused() {
        for (own, class, words) in [
            ("{cpu: {burst: 2}}", "{cpu: {limit: 1}}", "spec.quota.cpu.burst: 2 is above the limit 1"),
            ("{cpu: {burst: 1}}", "{}", "spec.quota.cpu.burst: needs spec.quota.cpu.limit"),
            ("{memory: {limit: 1Gi}}", "{memory: {high: 2Gi}}", "spec.quota.memory.high: 2Gi is above the limit 1Gi"),
            ("{io: [{device: /dev/vda, readBytesPerSecond: 1}]}", "{}", "spec.quota.io[0].device: a device is"),
            (
                "{io: [{device: vda, readBytesPerSecond: 0}]}",
                "{}",
                "spec.quota.io[0].readBytesPerSecond: must be above 0",
            ),
            ("{io: [{device: vda}]}", "{}", "io[0]: needs one of"),
            ("{pids: -1}", "{}", "spec.quota.pids: must not be negative"),
            ("{pids: 0}", "{}", "pidsMax: 0 is not between"),
        ] {
            let error = resolved(own, class).expect_err(own);
            assert!(error.contains(words), "{own} {class}: {error}");
        }
    }
}
