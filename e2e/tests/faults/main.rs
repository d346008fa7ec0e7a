//! Operators whose way to the API server is disturbed, who are killed, or who meet what they do not know.
//!
//! Every operator has a proxy of its own ([`catamaran_e2e::faults`]). What holds at every watch event is checked as in
//! the tests of the product, and the tests end with the check that nothing is written any more. With `CATAMARAN_LONG`
//! in the environment (`cargo xtask test --long`) faults last as long as in an incident.

mod large;
mod overload;
mod panics;
mod proxy;
mod silent;
mod stale;
mod strange;
mod support;
mod takeover;
