//! What is asked of the autoscaling of one workload: bounds, metrics, behaviour and what goes beyond them, ready to
//! decide with.

use std::fmt;

use jiff::SignedDuration;

use super::{behavior::Behavior, fallback::Fallback, schedule::Schedule};

/// How one workload is scaled. Made once from its spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether decisions are made, and written.
    pub mode: Mode,
    /// `minReplicas`, where no schedule moves it.
    pub min: i32,
    /// `maxReplicas`, where no schedule moves it.
    pub max: i32,
    /// The metrics; the highest proposal counts.
    pub metrics: Vec<Metric>,
    /// How far a metric may be off its target before the count changes.
    pub tolerance: Tolerance,
    /// Stabilization and rates. `None` are the rules from before there was `behavior`: the downscale stabilization of
    /// the settings, and up to double the count or 4 at a time.
    pub behavior: Option<Behavior>,
    /// Times at which the bounds are others.
    pub schedules: Vec<Schedule>,
    /// What to do when no metric has answered for long.
    pub fallback: Option<Fallback>,
    /// What is the same for all workloads.
    pub settings: Settings,
}

/// Whether a decision is made, and whether it is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Decide and write.
    #[default]
    Auto,
    /// Decide and show, but write nothing.
    Recommend,
    /// The same, while the count stays as it is.
    Hold,
    /// Decide nothing.
    Off,
}

/// What kube-controller-manager has as flags and feature gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--horizontal-pod-autoscaler-cpu-initialization-period`: how long after its start the cpu of a pod may be that
    /// of the start.
    pub cpu_initialization_period: SignedDuration,
    /// `--horizontal-pod-autoscaler-initial-readiness-delay`: a pod that turned unready later than this after its start
    /// was ready.
    pub initial_readiness_delay: SignedDuration,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`, in seconds, where no `behavior` says otherwise.
    pub downscale_stabilization: u32,
    /// What no replicas at all mean.
    pub from_zero: FromZero,
}

/// The tolerance of the HPA where none is written: a tenth.
pub const DEFAULT_TOLERANCE: f64 = 0.1;

impl Default for Settings {
    /// The defaults of kube-controller-manager, except that a workload without replicas is scaled as well.
    fn default() -> Self {
        Self {
            cpu_initialization_period: SignedDuration::from_mins(5),
            initial_readiness_delay: SignedDuration::from_secs(30),
            downscale_stabilization: 300,
            from_zero: FromZero::Always,
        }
    }
}

/// What a decision does for a workload that has no replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromZero {
    /// Nothing: somebody has switched it off (the HPA without the feature gate HPAScaleToZero).
    Never,
    /// It goes on if it was the autoscaler that removed the last replica, as the condition ScaledToZero says (the HPA
    /// with the gate).
    IfScaledThere,
    /// It goes on. A workload of Catamaran is switched off by `state: Stopped`, not by its count.
    Always,
}

/// How far off its target a metric may be, as a share of the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Above it.
    pub up: f64,
    /// Below it.
    pub down: f64,
}

impl Tolerance {
    /// The same in both directions.
    #[must_use]
    pub fn both(tolerance: f64) -> Self {
        Self { up: tolerance, down: tolerance }
    }

    /// Whether usage at this ratio of the target leaves the count alone. Both ends belong to it.
    #[must_use]
    pub(super) fn holds(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self::both(DEFAULT_TOLERANCE)
    }
}

/// One metric and its target. Values are in thousandths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// What the pods use of a resource.
    Resource {
        /// Which one.
        resource: Resource,
        /// What a pod should use.
        target: ResourceTarget,
    },
    /// What one container of each pod uses of a resource.
    ContainerResource {
        /// Which one.
        resource: Resource,
        /// The container's name.
        container: String,
        /// What it should use.
        target: ResourceTarget,
    },
    /// A value of each pod.
    Pods {
        /// The metric's name.
        name: String,
        /// What the mean over the pods should be.
        target: i64,
    },
    /// A value of one object.
    Object {
        /// The metric's name.
        name: String,
        /// Which object: kind and name.
        object: String,
        /// What it should be.
        target: ValueTarget,
        /// Up to which value nothing runs; see [`super::activation`].
        activation: Option<i64>,
    },
    /// A value from outside the cluster, summed over its series.
    External {
        /// The metric's name.
        name: String,
        /// What it should be.
        target: ValueTarget,
        /// Up to which value nothing runs; see [`super::activation`].
        activation: Option<i64>,
    },
    /// The answer to a query of Prometheus; decided like the value of an object.
    Prometheus {
        /// What it is called here; the query itself is known to the source alone.
        name: String,
        /// What it should be.
        target: ValueTarget,
        /// Up to which value nothing runs; see [`super::activation`].
        activation: Option<i64>,
    },
    /// How long the tasks of a pod stall waiting for a resource: the kernel's pressure stall information (PSI).
    Pressure {
        /// What they want for.
        resource: PressureResource,
        /// Whether some or all of them stall.
        stall: Stall,
        /// Which percentage of the time the pods should stall on average.
        target: i32,
    },
    /// In which share of the periods of its CPU quota a pod is throttled.
    Throttling {
        /// Which percentage it should be on average.
        target: i32,
    },
    /// A metric that cannot be computed as written. It fails at every decision, with this message.
    Invalid {
        /// What it says it is.
        kind: Kind,
        /// What is wrong with it.
        message: String,
    },
}

/// A resource of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `cpu`.
    Cpu,
    /// `memory`.
    Memory,
    /// Another. What pods ask of it is not known here, so it has no utilization.
    Other(String),
}

impl From<&str> for Resource {
    fn from(name: &str) -> Self {
        match name {
            "cpu" => Self::Cpu,
            "memory" => Self::Memory,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Other(name) => name,
        })
    }
}

/// What the use of a resource is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceTarget {
    /// Percent of what the pods ask for.
    Utilization(i32),
    /// The mean over the pods, in thousandths.
    AverageValue(i64),
}

/// What a value that is not of a pod is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueTarget {
    /// The value itself, in thousandths.
    Value(i64),
    /// The value divided by the number of replicas, in thousandths.
    AverageValue(i64),
}

/// What the kernel accounts stalls of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PressureResource {
    /// `cpu.pressure`.
    Cpu,
    /// `memory.pressure`.
    Memory,
    /// `io.pressure`.
    Io,
}

impl fmt::Display for PressureResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Io => "io",
        })
    }
}

/// Which of the tasks of a cgroup stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// At least one.
    Some,
    /// All that are not idle.
    Full,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Some => "some",
            Self::Full => "full",
        })
    }
}

/// The types of metrics: those of autoscaling/v2, and ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Metric::Resource`].
    Resource,
    /// [`Metric::ContainerResource`].
    ContainerResource,
    /// [`Metric::Pods`].
    Pods,
    /// [`Metric::Object`].
    Object,
    /// [`Metric::External`].
    External,
    /// [`Metric::Prometheus`].
    Prometheus,
    /// [`Metric::Pressure`].
    Pressure,
    /// [`Metric::Throttling`].
    Throttling,
    /// None of them.
    Unknown,
}

impl Kind {
    /// The type as written in a spec.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Resource => "Resource",
            Self::ContainerResource => "ContainerResource",
            Self::Pods => "Pods",
            Self::Object => "Object",
            Self::External => "External",
            Self::Prometheus => "Prometheus",
            Self::Pressure => "Pressure",
            Self::Throttling => "Throttling",
            Self::Unknown => "",
        }
    }

    /// The reason of condition ScalingActive when this metric has no value.
    #[must_use]
    pub fn failure(self) -> &'static str {
        match self {
            Self::Resource => "FailedGetResourceMetric",
            Self::ContainerResource => "FailedGetContainerResourceMetric",
            Self::Pods => "FailedGetPodsMetric",
            Self::Object => "FailedGetObjectMetric",
            Self::External => "FailedGetExternalMetric",
            Self::Prometheus => "FailedGetPrometheusMetric",
            Self::Pressure => "FailedGetPressureMetric",
            Self::Throttling => "FailedGetThrottlingMetric",
            Self::Unknown => "InvalidMetricSourceType",
        }
    }

    /// The API by which an adapter that somebody installs serves such a metric.
    #[must_use]
    pub fn adapter_api(self) -> Option<&'static str> {
        match self {
            Self::Pods | Self::Object => Some("custom.metrics.k8s.io"),
            Self::External => Some("external.metrics.k8s.io"),
            Self::Resource
            | Self::ContainerResource
            | Self::Prometheus
            | Self::Pressure
            | Self::Throttling
            | Self::Unknown => None,
        }
    }

    /// Whether such a metric has a value while there are no replicas.
    #[must_use]
    pub fn sees_demand_at_zero(self) -> bool {
        match self {
            Self::Object | Self::External | Self::Prometheus => true,
            Self::Resource
            | Self::ContainerResource
            | Self::Pods
            | Self::Pressure
            | Self::Throttling
            | Self::Unknown => false,
        }
    }
}

impl Metric {
    /// Its type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Resource { .. } => Kind::Resource,
            Self::ContainerResource { .. } => Kind::ContainerResource,
            Self::Pods { .. } => Kind::Pods,
            Self::Object { .. } => Kind::Object,
            Self::External { .. } => Kind::External,
            Self::Prometheus { .. } => Kind::Prometheus,
            Self::Pressure { .. } => Kind::Pressure,
            Self::Throttling { .. } => Kind::Throttling,
            Self::Invalid { kind, .. } => *kind,
        }
    }

    /// Up to which value nothing runs, if it says.
    #[must_use]
    pub fn activation(&self) -> Option<i64> {
        match self {
            Self::Object { activation, .. }
            | Self::External { activation, .. }
            | Self::Prometheus { activation, .. } => *activation,
            Self::Resource { .. }
            | Self::ContainerResource { .. }
            | Self::Pods { .. }
            | Self::Pressure { .. }
            | Self::Throttling { .. }
            | Self::Invalid { .. } => None,
        }
    }
}

impl Policy {
    /// Whether a metric tells of demand while there are no replicas.
    #[must_use]
    pub fn sees_demand_at_zero(&self) -> bool {
        self.metrics.iter().any(|metric| metric.kind().sees_demand_at_zero())
    }

    /// Whether a schedule asks for at least one replica while it is active.
    #[must_use]
    pub fn has_waking_schedule(&self) -> bool {
        self.schedules.iter().any(Schedule::wakes)
    }
}
