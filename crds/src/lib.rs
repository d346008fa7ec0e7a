//! The API of Catamaran: the kinds `ElasticWorkload` and `WorkloadClass`, and the KubeVirt kinds that it writes.
//!
//! Types here hold what a user wrote, checked by schema and CEL rules alone; what it *means* is decided in the `plan`
//! crate. The YAML under `crds/yaml` is generated from these types (`cargo xtask crds`).

// Each printer column is an attribute of the same name; clippy takes their fields for repetitions.
#![allow(clippy::duplicated_attributes)]

pub mod class;
pub mod container;
pub mod history;
#[cfg(feature = "kubevirt")]
pub mod kubevirt;
pub mod names;
pub mod placement;
pub mod quota;
pub mod rollout;
pub mod scaling;
mod schema;
pub mod service;
pub mod status;
pub mod virtual_machine;
pub mod workload;

pub use class::{Price, WorkloadClass, WorkloadClassSpec};
pub use container::ContainerHull;
pub use history::StoredHistory;
pub use placement::Placement;
pub use quota::{CpuQuota, IoQuota, MemoryQuota, Quota};
pub use rollout::{OnFailure, Rollout};
pub use scaling::{Fallback, FallbackBehavior, MetricType, Scaling, ScalingMetric, ScalingMode, Schedule, Victims};
pub use schema::definitions;
pub use service::{Service, ServicePort};
pub use status::{
    DecisionStatus, ElasticWorkloadStatus, HeldReplicas, Hull, MetricStatus, MovingReplicas, ScalingStatus,
};
pub use virtual_machine::{CloudInit, SecretReference, VirtualMachineHull, VirtualMachineTemplate};
pub use workload::{ElasticWorkload, ElasticWorkloadSpec, State};
