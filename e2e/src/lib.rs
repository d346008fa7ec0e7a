//! The ground for tests: a real control plane without containers, simulated nodes, a stand-in for KubeVirt, and what
//! tests need to look at them.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use catamaran_e2e::control_plane::ControlPlane;
//!
//! let control_plane = ControlPlane::builder().kwok_nodes(3).start().await?;
//! let client = control_plane.client();
//! # drop(client);
//! # Ok(())
//! # }
//! ```

pub mod audit;
pub mod cluster;
pub mod control_plane;
pub mod counts;
pub mod fake_clock;
pub mod faults;
pub mod helm;
pub mod history;
pub mod hpa_cases;
pub mod installation;
pub mod kubevirt;
pub mod metrics_adapter;
pub mod node;
pub mod nodes;
pub mod plugin;
pub mod process;
pub mod prometheus;
pub mod tls;
pub mod tools;
pub mod usage;
pub mod wait;
pub mod webhook;
pub mod workloads;
