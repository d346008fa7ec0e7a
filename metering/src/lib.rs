//! Accounting: from readings of cumulative counters to what each workload used and had reserved.
//!
//! ```text
//! readings of a pod -> Meter --+
//! pods that exist   -> Lease --+-> Amounts -> Ledger: totals since it began, and one bucket for each hour
//! ```
//!
//! - [`amounts`]: the figures, in integers that lose nothing
//! - [`meter`]: differences of one pod's counters
//! - [`lease`]: what one pod has reserved, over time
//! - [`ledger`]: both, for all pods, summed by workload
//!
//! The kernel's counters of a pod's own cgroup go on over restarts of its containers, and no agent has to be there for
//! them to do so. So a reading is worth all that was used up to it, whatever was missed before it. What a ledger cannot
//! know is what was used before it began, and after the last reading of a pod.

pub mod amounts;
pub mod lease;
pub mod ledger;
pub mod meter;

pub use amounts::Amounts;
pub use lease::{Lease, Request};
pub use ledger::{Account, Hour, Keep, Ledger, Pod};
pub use meter::{Meter, Reading, Used};
