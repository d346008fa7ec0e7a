//! The usage stream: what node agents stream to the operator about once a second, and what both ends compute with it.
//!
//! - [`proto`]: the messages, client and server, generated from `usage.proto`
//! - [`limits`]: what a server accepts
//! - [`identity`]: which pods and containers readings are of
//! - [`snapshot`]: everything that an agent read at one moment
//! - [`encode`]: from snapshots to the messages of one stream
//! - [`session`]: back again, with everything checked
//! - [`rates`]: from cumulative counters to rates
//! - [`reporter`]: the client, which streams snapshots to every replica of the operator

pub mod encode;
pub mod identity;
pub mod limits;
pub mod rates;
pub mod reporter;
pub mod session;
pub mod snapshot;

/// Messages, client and server of `catamaran.usage.v1alpha1`.
pub mod proto {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("catamaran.usage.v1alpha1");
}

/// The cumulative counters of one container, and the bytes of memory that it uses: the message, as it has no wrong
/// state.
pub use proto::ContainerSample as Counters;
