//! The names that Catamaran writes into the cluster: labels, annotations, condition types, the field manager.

/// The API group of our kinds.
pub const GROUP: &str = "catamaran.dev";

/// The field manager of every write of the operator.
pub const FIELD_MANAGER: &str = "catamaran-operator";

/// Label on every child and every replica: the name of its ElasticWorkload. The Service selects by it, over both hulls.
pub const WORKLOAD_LABEL: &str = "catamaran.dev/workload";

/// The value of [`WORKLOAD_LABEL`] on a launcher pod whose guest is about to go, since a time in seconds of Unix: no
/// Service selects it. No workload has that name, as names have no underscore. It fits a label: [`MAX_NAME_LENGTH`] and
/// eleven characters more.
#[must_use]
pub fn leaving_label(workload: &str, since: i64) -> String {
    format!("{workload}_{since}")
}

/// The workload that a value of [`WORKLOAD_LABEL`] names, and since when the replica is about to go, if it is.
#[must_use]
pub fn workload_of_label(value: &str) -> (&str, Option<i64>) {
    match value.split_once('_') {
        Some((workload, since)) => (workload, since.parse().ok()),
        None => (value, None),
    }
}

/// Label on every replica set and every replica: the revision, a hash over the rendered template.
pub const REVISION_LABEL: &str = "catamaran.dev/revision";

/// `app.kubernetes.io/managed-by` on every child.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "catamaran";

/// Annotation on a replica set: its place in the history, a counter that grows with each rollout (as
/// `deployment.kubernetes.io/revision` does on a ReplicaSet).
pub const REVISION_NUMBER_ANNOTATION: &str = "catamaran.dev/revision-number";

/// Annotation on a replica set: the workload's replica count when the set was last scaled. A difference to the count
/// wanted now is how a change of scale in mid-rollout is seen (as `deployment.kubernetes.io/desired-replicas`).
pub const DESIRED_REPLICAS_ANNOTATION: &str = "catamaran.dev/desired-replicas";

/// The value of [`REVISION_LABEL`] that a Service selects while its workload is frozen. No revision has that name: the
/// letters of one are drawn from others.
pub const NO_REVISION: &str = "frozen";

/// Annotation on a VirtualMachineInstanceReplicaSet: that its instances are to be paused (`true`), or since when they
/// are unpaused (RFC 3339). Without it a paused instance was paused by somebody else.
pub const FROZEN_ANNOTATION: &str = "catamaran.dev/frozen";

/// Annotation on a VirtualMachineInstanceReplicaSet: the state of its crash-loop backoff, as JSON.
pub const CRASH_LOOP_ANNOTATION: &str = "catamaran.dev/crash-loop";

/// Annotation on a pod that tells the ReplicaSet controller which ones to remove first (KEP-2255).
pub const POD_DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The value of [`POD_DELETION_COST_ANNOTATION`] by which victims of a scale-in are marked.
pub const VICTIM_COST: &str = "-2147483647";

/// Annotation on a pod: the part of its quota that only the node agent can write, as JSON
/// (`NodeQuota` of the protocol crate).
pub const NODE_QUOTA_ANNOTATION: &str = "catamaran.dev/node-quota";

/// Annotation on a pod: CPU and memory of the template that it was made from, as text. A pod that has others, and was
/// not changed since, was changed when it was created: by a policy or a webhook.
pub const TEMPLATE_QUOTA_ANNOTATION: &str = "catamaran.dev/template-quota";

/// Annotation on a replica set: a hash over what of its template cannot change in place. A template with the same hash
/// differs in the quota only, so the set is kept and its replicas are changed where they run.
pub const TEMPLATE_HASH_ANNOTATION: &str = "catamaran.dev/template-hash";

/// Annotation on an ElasticWorkload: when a restart of all its replicas was asked for (RFC 3339). Replicas that it made
/// have it, too, as with `kubectl.kubernetes.io/restartedAt` of `kubectl rollout restart`.
pub const RESTARTED_AT_ANNOTATION: &str = "catamaran.dev/restarted-at";

/// The longest name of an ElasticWorkload: the names of its replicas add 17 characters (revision and suffix), and have
/// to fit the 63 characters of a DNS label (RFC 1123).
pub const MAX_NAME_LENGTH: usize = 46;

/// Annotation of the leader lease: where the process that holds it is seen to live, as ADDRESS:PORT (docs/adr/0020).
pub const LIFELINE_ANNOTATION: &str = "catamaran.dev/lifeline";
