//! What the operator and the agent have in common as processes.
//!
//! - [`client`]: what talks to the API server; every request has a deadline
//! - [`logs`]: how logs are written, as the command line says
//! - [`signals`]: when to stop
//! - [`openmetrics`]: how metrics are answered

pub mod client;
pub mod logs;
pub mod openmetrics;
pub mod signals;
