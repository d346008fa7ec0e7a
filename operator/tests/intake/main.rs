//! The usage intake over loopback: real TLS, real HTTP/2, the real client, and clients that break the rules.

mod accounts;
mod admission;
mod bounds;
mod connections;
mod decoder;
mod raw;
mod support;
mod usage;
