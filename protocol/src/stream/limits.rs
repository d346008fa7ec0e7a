//! What a server accepts from one node. Senders keep to it; a stream that breaks it ends.

use std::time::Duration;

/// Bytes of one message.
pub const MESSAGE_BYTES: usize = 256 * 1024;
/// Pods of one node. The kubelet's default is 110, and 500 are the most that are run in practice.
pub const PODS: usize = 1024;
/// Containers of one pod.
pub const CONTAINERS_PER_POD: usize = 64;
/// Containers of all pods of one node.
pub const CONTAINERS: usize = 2048;
/// Reports without an acknowledgement.
pub const UNACKNOWLEDGED: u64 = 2;
/// A server takes a report of a node at most once in this time. Those that come in between are read, and the newest
/// counts.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(400);

/// Characters of a namespace (a DNS label).
pub const NAMESPACE_CHARS: usize = 63;
/// Characters of the name of a pod or node (a DNS subdomain).
pub const NAME_CHARS: usize = 253;
/// Characters of the name of a container (a DNS label).
pub const CONTAINER_NAME_CHARS: usize = 63;
/// Characters of a uid, boot id or container id.
pub const ID_CHARS: usize = 128;

/// Parts of a pod's quota that are told not to be held.
pub const UNENFORCED_PER_POD: usize = 64;
/// Bytes of the reason for it.
pub const REASON_BYTES: usize = 256;
