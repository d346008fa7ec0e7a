//! The quota of one replica, resolved from workload and class, and what it means for either hull.

use std::{collections::BTreeMap, fmt};

use catamaran_crds as crds;
use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};
use serde_json::{Map, Value, json};

use crate::{
    goal::Invalid,
    quantity::{bytes, from_bytes, from_millicores, millicores},
};

/// A resolved quota as far as Kubernetes holds it: CPU in millicores, memory in bytes, each request at most its limit.
/// The rest is [`NodeSettings`](crate::goal::node_settings::NodeSettings).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Quota {
    /// What the scheduler reserves, in millicores.
    pub cpu_request: Option<u64>,
    /// What the kernel allows, in millicores.
    pub cpu_limit: Option<u64>,
    /// What the scheduler reserves, in bytes.
    pub memory_request: Option<u64>,
    /// Where the kernel stops it, in bytes.
    pub memory_limit: Option<u64>,
}

impl Quota {
    /// Takes each field from the workload's own quota, else from its class.
    ///
    /// # Errors
    /// When a quantity is wrong, or a request ends up above its limit: each may be right where it stands and wrong
    /// together.
    pub fn resolve(own: Option<&crds::Quota>, class: Option<&crds::WorkloadClassSpec>) -> Result<Self, Invalid> {
        let empty = crds::Quota::default();
        let (own, class) = (own.unwrap_or(&empty), class.map_or(&empty, |class| &class.quota));
        let cpu = |pick: fn(&crds::CpuQuota) -> Option<&Quantity>, field: &str| {
            let value = own.cpu.as_ref().and_then(pick).or_else(|| class.cpu.as_ref().and_then(pick));
            value
                .map(millicores)
                .transpose()
                .map_err(|error| Invalid::field(&format!("spec.quota.cpu.{field}"), error.to_string()))
        };
        let memory = |pick: fn(&crds::MemoryQuota) -> Option<&Quantity>, field: &str| {
            let value = own.memory.as_ref().and_then(pick).or_else(|| class.memory.as_ref().and_then(pick));
            value
                .map(bytes)
                .transpose()
                .map_err(|error| Invalid::field(&format!("spec.quota.memory.{field}"), error.to_string()))
        };
        let quota = Self {
            cpu_request: cpu(|c| c.request.as_ref(), "request")?,
            cpu_limit: cpu(|c| c.limit.as_ref(), "limit")?,
            memory_request: memory(|m| m.request.as_ref(), "request")?,
            memory_limit: memory(|m| m.limit.as_ref(), "limit")?,
        };
        quota.check_order("cpu", quota.cpu_request, quota.cpu_limit, |value| from_millicores(value).0)?;
        quota.check_order("memory", quota.memory_request, quota.memory_limit, |value| from_bytes(value).0)?;
        Ok(quota)
    }

    fn check_order(
        self,
        resource: &str,
        request: Option<u64>,
        limit: Option<u64>,
        show: fn(u64) -> String,
    ) -> Result<(), Invalid> {
        match (request, limit) {
            (Some(request), Some(limit)) if request > limit => Err(Invalid::field(
                &format!("spec.quota.{resource}.request"),
                format!(
                    "{} is above the limit {} once workload and class are put together; lower the request or raise the limit",
                    show(request),
                    show(limit)
                ),
            )),
            _ => Ok(()),
        }
    }

    /// What the API server makes of it in a pod: a missing request is the limit.
    #[must_use]
    pub fn with_defaults(self) -> Self {
        Self {
            cpu_request: self.cpu_request.or(self.cpu_limit),
            memory_request: self.memory_request.or(self.memory_limit),
            ..self
        }
    }

    /// Whether `there` has everything that this asks for, as it asks for it. What it does not ask for may be of others
    /// (a LimitRange).
    #[must_use]
    pub fn is_met_by(self, there: Self) -> bool {
        self.pairs(there).into_iter().all(|(wanted, there)| wanted.is_none() || wanted == there)
    }

    /// Whether this can take the place of `before` in a pod that runs: requests and limits can be changed and added
    /// there, not taken away (KEP-1287).
    #[must_use]
    pub fn keeps_all_of(self, before: Self) -> bool {
        self.pairs(before).into_iter().all(|(wanted, before)| wanted.is_some() || before.is_none())
    }

    fn pairs(self, other: Self) -> [(Option<u64>, Option<u64>); 4] {
        [
            (self.cpu_request, other.cpu_request),
            (self.cpu_limit, other.cpu_limit),
            (self.memory_request, other.memory_request),
            (self.memory_limit, other.memory_limit),
        ]
    }

    /// CPU and memory of a container that exists; what cannot be read is taken for absent.
    #[must_use]
    pub fn of_container(resources: &ResourceRequirements) -> Self {
        let of =
            |map: &Option<BTreeMap<String, Quantity>>, name: &str| map.as_ref().and_then(|map| map.get(name)).cloned();
        let cpu = |map| of(map, "cpu").and_then(|quantity| millicores(&quantity).ok());
        let memory = |map| of(map, "memory").and_then(|quantity| bytes(&quantity).ok());
        Self {
            cpu_request: cpu(&resources.requests),
            cpu_limit: cpu(&resources.limits),
            memory_request: memory(&resources.requests),
            memory_limit: memory(&resources.limits),
        }
    }

    /// True when nothing is limited or requested.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The resources of the container. Kubernetes itself takes a missing request from the limit.
    #[must_use]
    pub fn container_resources(self) -> Option<ResourceRequirements> {
        let requests = resource_map(self.cpu_request, self.memory_request);
        let limits = resource_map(self.cpu_limit, self.memory_limit);
        (!self.is_empty()).then(|| ResourceRequirements {
            requests: (!requests.is_empty()).then_some(requests),
            limits: (!limits.is_empty()).then_some(limits),
            ..ResourceRequirements::default()
        })
    }

    /// How many vCPUs (sockets of one core) the guest sees: the limit rounded up, else the request rounded up, at least
    /// 1.
    #[must_use]
    pub fn sockets(self) -> u64 {
        self.cpu_limit.or(self.cpu_request).map_or(1, |millicores| millicores.div_ceil(1000)).max(1)
    }

    /// The guest's memory in bytes: the request, else the limit.
    #[must_use]
    pub fn guest_memory(self) -> Option<u64> {
        self.memory_request.or(self.memory_limit)
    }

    /// `domain.cpu`, `domain.memory` and `domain.resources` of a VMI.
    ///
    /// The memory request is always written: left out, KubeVirt takes it from the limit, and the scheduler would
    /// reserve more than was asked. KubeVirt adds its overhead to the memory request and limit of the launcher pod by
    /// itself.
    #[must_use]
    pub fn domain(self) -> Map<String, Value> {
        let mut domain = Map::new();
        domain.insert("cpu".into(), json!({ "sockets": self.sockets(), "cores": 1, "threads": 1 }));
        if let Some(guest) = self.guest_memory() {
            domain.insert("memory".into(), json!({ "guest": from_bytes(guest) }));
        }
        let requests = resource_map(self.cpu_request.or(self.cpu_limit), self.guest_memory());
        let limits = resource_map(self.cpu_limit, self.memory_limit);
        let mut resources = Map::new();
        for (name, map) in [("requests", requests), ("limits", limits)] {
            if !map.is_empty() {
                resources.insert(name.into(), json!(map));
            }
        }
        if !resources.is_empty() {
            domain.insert("resources".into(), Value::Object(resources));
        }
        domain
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |name: &str, request: Option<Quantity>, limit: Option<Quantity>| match (request, limit) {
            (None, None) => None,
            (Some(request), None) => Some(format!("{name} request {}", request.0)),
            (None, Some(limit)) => Some(format!("{name} limit {}", limit.0)),
            (Some(request), Some(limit)) => Some(format!("{name} request {} limit {}", request.0, limit.0)),
        };
        let cpu = part("cpu", self.cpu_request.map(from_millicores), self.cpu_limit.map(from_millicores));
        let memory = part("memory", self.memory_request.map(from_bytes), self.memory_limit.map(from_bytes));
        let parts: Vec<String> = cpu.into_iter().chain(memory).collect();
        f.write_str(if parts.is_empty() { "no limit".to_owned() } else { parts.join(", ") }.as_str())
    }
}

fn resource_map(cpu: Option<u64>, memory: Option<u64>) -> BTreeMap<String, Quantity> {
    let cpu = cpu.map(|millicores| ("cpu".to_owned(), from_millicores(millicores)));
    let memory = memory.map(|bytes| ("memory".to_owned(), from_bytes(bytes)));
    cpu.into_iter().chain(memory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(yaml: &str) -> crds::Quota {
        serde_saphyr::from_str(yaml).expect("a quota")
    }

    #[test]
    fn the_workload_goes_before_the_class_field_by_field() {
        let own = quota("{cpu: {limit: 2}}");
        let class = crds::WorkloadClassSpec {
            quota: quota("{cpu: {request: 250m, limit: 1}, memory: {limit: 512Mi}}"),
            price: None,
        };
        let resolved = Quota::resolve(Some(&own), Some(&class)).expect("resolves");
        assert_eq!(
            resolved,
            Quota {
                cpu_request: Some(250),
                cpu_limit: Some(2000),
                memory_request: None,
                memory_limit: Some(512 << 20)
            }
        );
    }

    #[test]
    fn a_request_above_the_limit_of_the_class_names_the_field() {
        let own = quota("{cpu: {request: 2}}");
        let class = crds::WorkloadClassSpec { quota: quota("{cpu: {limit: 1}}"), price: None };
        let error = Quota::resolve(Some(&own), Some(&class)).expect_err("is refused");
        assert_eq!(
            error.to_string(),
            "spec.quota.cpu.request: 2 is above the limit 1 once workload and class are put together; lower the request or raise the limit"
        );
    }

    #[test]
    fn a_virtual_machine_gets_sockets_guest_memory_requests_and_limits() {
        for (yaml, domain) in [
            ("{}", r#"{"cpu":{"cores":1,"sockets":1,"threads":1}}"#),
            (
                "{cpu: {limit: 1500m}, memory: {request: 1Gi, limit: 2Gi}}",
                r#"{"cpu":{"cores":1,"sockets":2,"threads":1},"memory":{"guest":"1Gi"},"resources":{"limits":{"cpu":"1500m","memory":"2Gi"},"requests":{"cpu":"1500m","memory":"1Gi"}}}"#,
            ),
            (
                "{cpu: {request: 100m}, memory: {limit: 256Mi}}",
                r#"{"cpu":{"cores":1,"sockets":1,"threads":1},"memory":{"guest":"256Mi"},"resources":{"limits":{"memory":"256Mi"},"requests":{"cpu":"100m","memory":"256Mi"}}}"#,
            ),
        ] {
            let resolved = Quota::resolve(Some(&quota(yaml)), None).expect("resolves");
            let expected: Value = serde_json::from_str(domain).expect("JSON");
            assert_eq!(Value::Object(resolved.domain()), expected, "{yaml}");
        }
    }
}
