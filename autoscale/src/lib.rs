//! How many replicas a workload should have: the rules of the HorizontalPodAutoscaler, and what goes beyond them.
//!
//! ```text
//! Policy (what is asked for) ------+
//! Observed (count, pods, samples) -+-> decide(.., now) -> Decision {from, to, metrics, steps, conditions}
//! History (what was recommended) --+                          |
//!    ^---------------- decided(), written() ------------------+
//! ```
//!
//! "The HPA" is Kubernetes v1.37.2, `pkg/controller/podautoscaler`. Where this module knows its rules, it follows them
//! to the last digit, but for numbers that are too large, which saturate here and wrap around there; each file names
//! the functions it follows. Beyond it are schedules ([`schedule`]), a fallback for lost metrics ([`fallback`]),
//! thresholds for zero ([`activation`]), metrics of pressure, throttling and Prometheus ([`policy::Metric`]), modes
//! ([`policy::Mode`]), and the choice of what goes on a scale-in ([`victims`]).
//!
//! One rule stands above those: data that is missing or stale is no reason to remove a replica. A metric without a
//! value holds the count, or lets the others raise it; a pod without a sample counts, as for the HPA, with the usage
//! that speaks against the change. A source that has only stale data says that it has none.

pub mod activation;
mod arithmetic;
pub mod behavior;
pub mod check;
pub mod condition;
mod context;
pub mod decide;
pub mod decision;
pub mod fallback;
pub mod history;
mod limits;
mod normalize;
pub mod pods;
pub mod policy;
pub mod proposal;
mod propose;
pub mod quantity;
mod report;
pub mod samples;
pub mod schedule;
mod summary;
pub mod toward;
mod usage;
pub mod v2;
mod value;
pub mod victims;

pub use behavior::Behavior;
pub use decide::{Observed, decide};
pub use decision::Decision;
pub use history::History;
pub use pods::Pod;
pub use policy::{Metric, Policy};
pub use schedule::{Bounds, Schedule};
