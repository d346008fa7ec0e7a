//! The client and the watches against a server that does what it is told: hangs, resets, refuses, falls silent.

mod client;
mod server;
mod watch;
