//! Where each metric of a workload gets its values: from the demand, or from a column of the trace.

use catamaran_autoscale::{
    Metric, Policy,
    pods::Requests,
    policy::{Resource, ResourceTarget},
};
use thiserror::Error;

use super::{
    trace::{Clock, Trace},
    workload::{Control, Replica, Workload},
};

/// Where a metric gets its values. Columns are indexes of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// CPU that the demand makes each ready replica use.
    Demand,
    /// Memory of each ready replica, in bytes.
    Memory(usize),
    /// A value of all replicas in sum, of which each ready one has an equal share.
    Shared(usize),
    /// A share of time in percent, the same for each ready replica.
    Percent(usize),
    /// The value of an object, or the answer to a query.
    Value(usize),
    /// The value of an External metric.
    Series(usize),
}

impl Feed {
    /// The column that it reads.
    pub fn column(self) -> Option<usize> {
        match self {
            Self::Demand => None,
            Self::Memory(column)
            | Self::Shared(column)
            | Self::Percent(column)
            | Self::Value(column)
            | Self::Series(column) => Some(column),
        }
    }
}

/// Why a workload cannot be simulated with a trace. Each message says what to do.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Unfed {
    /// The trace lacks a column.
    #[error("spec.scaling.metrics[{index}] ({metric}): the trace has no values for it; add a column {column}: {what}")]
    Column {
        /// Which metric.
        index: usize,
        /// What it is called.
        metric: String,
        /// The column's name.
        column: String,
        /// What is in it.
        what: &'static str,
    },
    /// The model knows nothing of a container.
    #[error(
        "spec.scaling.metrics[{index}] ({metric}): a trace tells what container {main} uses, and nothing of others; name that one, or use type Resource"
    )]
    Container {
        /// Which metric.
        index: usize,
        /// What it is called.
        metric: String,
        /// The container that is simulated.
        main: String,
    },
    /// There is no request to hold usage against.
    #[error(
        "spec.scaling.metrics[{index}] ({metric}): a target of type Utilization needs a {resource} request of every container it counts; set spec.quota.{resource}.request, or use AverageValue"
    )]
    Request {
        /// Which metric.
        index: usize,
        /// What it is called.
        metric: String,
        /// Which resource.
        resource: &'static str,
    },
    /// A metric cannot be computed as written.
    #[error("spec.scaling.metrics[{index}]: {message}")]
    Invalid {
        /// Which metric.
        index: usize,
        /// What is wrong.
        message: String,
    },
    /// Schedules need dates.
    #[error(
        "spec.scaling.schedules: they need to know the date, and the trace has seconds; say with --start when it begins"
    )]
    Dates,
}

/// Finds the values for all metrics of a workload.
///
/// # Errors
/// When a metric has none.
pub fn feeds(workload: &Workload, trace: &Trace) -> Result<Vec<Feed>, Unfed> {
    let policy: &Policy = match &workload.control {
        Control::Fixed => return Ok(Vec::new()),
        Control::Decided(policy) => policy,
    };
    if !policy.schedules.is_empty() && trace.clock == Clock::Seconds {
        return Err(Unfed::Dates);
    }
    let metrics = policy.metrics.iter().enumerate();
    metrics.map(|(index, metric)| Search { index, metric, trace, replica: &workload.replica }.feed()).collect()
}

/// One metric, and where to look.
#[derive(Clone, Copy)]
struct Search<'a> {
    index: usize,
    metric: &'a Metric,
    trace: &'a Trace,
    replica: &'a Replica,
}

impl Search<'_> {
    fn feed(self) -> Result<Feed, Unfed> {
        match self.metric {
            Metric::Resource { resource, target } => self.resource(resource, None, *target),
            Metric::ContainerResource { resource, container, target } => {
                self.resource(resource, Some(container), *target)
            }
            Metric::Pods { name, .. } => {
                self.column(&format!("metric:{name}"), "the sum over all replicas").map(Feed::Shared)
            }
            Metric::Object { name, .. } | Metric::Prometheus { name, .. } => {
                self.column(&format!("metric:{name}"), "the value").map(Feed::Value)
            }
            Metric::External { name, .. } => self.column(&format!("metric:{name}"), "the value").map(Feed::Series),
            Metric::Pressure { resource, stall, .. } => {
                let column = format!("pressure:{resource}:{stall}");
                self.column(&column, "percent of the time, averaged over the replicas").map(Feed::Percent)
            }
            Metric::Throttling { .. } => {
                self.column("throttling", "percent of the periods, averaged over the replicas").map(Feed::Percent)
            }
            Metric::Invalid { message, .. } => Err(Unfed::Invalid { index: self.index, message: message.clone() }),
        }
    }

    /// The column for this very metric, else the one of its name.
    fn column(self, name: &str, what: &'static str) -> Result<usize, Unfed> {
        let own = format!("metrics[{}]", self.index);
        self.trace.column(&own).or_else(|| self.trace.column(name)).ok_or_else(|| Unfed::Column {
            index: self.index,
            metric: self.metric.label(),
            column: name.to_owned(),
            what,
        })
    }

    fn resource(self, resource: &Resource, container: Option<&str>, target: ResourceTarget) -> Result<Feed, Unfed> {
        let (index, metric, main) = (self.index, self.metric.label(), &self.replica.main);
        if container.is_some_and(|container| container != main) {
            return Err(Unfed::Container { index, metric, main: main.clone() });
        }
        let (name, of): (_, fn(Requests) -> Option<i64>) = match resource {
            Resource::Cpu => ("cpu", |requests| requests.cpu),
            Resource::Memory => ("memory", |requests| requests.memory),
            Resource::Other(_) => {
                return Err(Unfed::Invalid { index, message: format!("{metric}: a resource is cpu or memory") });
            }
        };
        let asked = match container {
            None => of(self.replica.requests),
            Some(name) => {
                let found = self.replica.containers.iter().find(|container| container.name == name);
                found.and_then(|container| of(container.requests))
            }
        };
        match target {
            ResourceTarget::Utilization(_) if asked.is_none_or(|asked| asked == 0) => {
                return Err(Unfed::Request { index, metric, resource: name });
            }
            ResourceTarget::Utilization(_) | ResourceTarget::AverageValue(_) => {}
        }
        match resource {
            Resource::Memory => self.column("memory", "what each replica uses, for example 300Mi").map(Feed::Memory),
            Resource::Cpu | Resource::Other(_) => Ok(Feed::Demand),
        }
    }
}
