//! What the user wants, resolved from the spec and its class.

pub mod alike;
pub(crate) mod freezing;
mod in_place;
mod invalid;
pub mod node_settings;
pub mod quota;
pub mod render;
mod resolve;
mod restart;
pub mod revision;
mod rollout;
pub mod scaling;

pub use freezing::killing_probe;
pub use in_place::{GUEST_CONTAINER, InPlace};
pub use invalid::Invalid;
pub use resolve::{Goal, resolve};
pub use rollout::{Bounds, RolloutPolicy};
