//! The operator on a real control plane, installed by its chart and run as the chart's account.
//!
//! Rollouts are checked at every watch event, and every test ends with the check that nothing is written any more.

mod children;
mod cli;
mod examples;
mod faults;
mod frozen;
mod gitops;
mod machines;
mod namespaced;
mod quiet;
mod quota;
mod refusals;
mod rollout;
mod scaling;
mod support;
mod wrong_input;
