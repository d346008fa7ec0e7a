//! The shell of a controller as a process. It knows no kind of its own.
//!
//! - [`client`]: what talks to the API server; every request has a deadline
//! - [`lease`]: who may write at all
//! - [`uptime`]: the clock by which that is judged
//! - [`workers`]: passes over objects, by turns of tenants
//! - [`supervise`]: the tasks of the process; one that ends ends it
//! - [`liveness`]: named checks, for /healthz and /readyz
//! - [`logs`]: how logs are written, as the command line says
//! - [`signals`]: when to stop
//! - [`openmetrics`]: how metrics are answered
//! - [`watch`]: what the API server has, as it changes, and how old that is

pub mod client;
pub mod lease;
pub mod liveness;
pub mod logs;
pub mod openmetrics;
pub mod signals;
pub mod supervise;
pub mod uptime;
pub mod watch;
pub mod workers;
