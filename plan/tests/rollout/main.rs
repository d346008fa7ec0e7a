//! What the plan decides, played through against simulated controllers, with faults.

mod children;
mod crash_loop;
mod deadline;
mod enforced;
mod held;
mod history;
mod in_place;
mod model;
mod oracle;
mod properties;
mod regressions;
mod rendered;
mod restart;
mod settle;
mod simulator;
mod stories;
mod story;
mod strays;
mod tables;
mod unseen;
