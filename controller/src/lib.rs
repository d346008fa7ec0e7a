//! What the operator and the agent have in common as processes.
//!
//! - [`logs`]: how logs are written, as the command line says
//! - [`signals`]: when to stop
//! - [`openmetrics`]: how metrics are answered

pub mod logs;
pub mod openmetrics;
pub mod signals;
