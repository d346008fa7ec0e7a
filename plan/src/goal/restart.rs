//! A restart of all replicas, by a rollout: asked for by an annotation of the workload.
//!
//! GitOps tools may take off an annotation that is not in their source. So the status remembers the last one, and the
//! later of the two counts: a restart is never asked for twice, nor taken back.

use catamaran_crds::{ElasticWorkload, names::RESTARTED_AT_ANNOTATION};
use jiff::Timestamp;

use crate::goal::Invalid;

/// When a restart was last asked for.
///
/// # Errors
/// When the annotation is no time.
pub(crate) fn restarted_at(workload: &ElasticWorkload) -> Result<Option<Timestamp>, Invalid> {
    let annotation = workload.metadata.annotations.as_ref().and_then(|all| all.get(RESTARTED_AT_ANNOTATION));
    let asked = annotation.map(|text| text.parse::<Timestamp>()).transpose().map_err(|error| {
        let field = format!("metadata.annotations[{RESTARTED_AT_ANNOTATION}]");
        Invalid::field(&field, format!("is no time as 2026-01-31T10:00:00Z (RFC 3339): {error}"))
    })?;
    let known = workload.status.as_ref().and_then(|status| status.restarted_at.as_ref()).map(|time| time.0);
    // As the status holds it.
    let whole = |time: Timestamp| Timestamp::from_second(time.as_second()).unwrap_or(time);
    Ok(asked.map(whole).max(known))
}
