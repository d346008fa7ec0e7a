//! What is worth an Event.

use catamaran_crds::ElasticWorkloadStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    draft::{Context, Draft},
    plan::{Announcement, REPLICA_FAILURE, WRITE_FAILING},
    status::conditions::{FOREIGN_CHANGE, OF_THE_QUOTA},
};

/// Announces what the draft's status changes.
pub(crate) fn announce(context: &Context<'_>, draft: &mut Draft) {
    draft.announcements = announcements(&context.facts.status, &draft.status);
}

/// What changed between two statuses that is worth an Event: a new reason of Ready, not every count; each change of the
/// count that scaling made; a quota that is not held any more; and what was killed by the OOM killer.
#[must_use]
pub fn announcements(previous: &ElasticWorkloadStatus, status: &ElasticWorkloadStatus) -> Vec<Announcement> {
    let ready =
        |status: &ElasticWorkloadStatus| status.conditions.iter().find(|condition| condition.type_ == "Ready").cloned();
    let stalled = status.conditions.iter().any(|condition| condition.type_ == "Stalled");
    let told = |condition: &Condition| (condition.reason.clone(), stalled.then(|| condition.message.clone()));
    let scaled = |status: &ElasticWorkloadStatus| status.scaling.as_ref().and_then(|s| s.last_scale_time.clone());
    let rescale =
        status.scaling.as_ref().and_then(|scaling| scaling.last_decision.as_ref()).map(|decision| Announcement {
            warning: false,
            reason: "SuccessfulRescale".to_owned(),
            note: format!("{} ({})", decision.message, decision.reason),
        });
    let rescale = rescale.filter(|_| scaled(status).is_some() && scaled(previous) != scaled(status));
    let of_ready = match (ready(previous), ready(status)) {
        (before, Some(after))
            if before.as_ref().map(told) != Some(told(&after))
                || previous.update_revision != status.update_revision =>
        {
            let warning = stalled || [WRITE_FAILING, REPLICA_FAILURE].contains(&after.reason.as_str());
            Some(Announcement { warning, reason: after.reason, note: after.message })
        }
        _ => None,
    };
    let of_others = OF_THE_QUOTA.into_iter().chain([FOREIGN_CHANGE]).filter_map(|type_| {
        let find = |status: &ElasticWorkloadStatus| status.conditions.iter().find(|c| c.type_ == type_).cloned();
        // A resize that is held up is told with Ready.
        let trouble = |condition: &Condition| {
            ["NotEnforced", "OOMKilled", "TemplateChanged"].contains(&condition.reason.as_str())
        };
        let after = find(status).filter(trouble)?;
        let news = find(previous).filter(trouble).is_none_or(|before| before.message != after.message);
        news.then_some(Announcement { warning: true, reason: after.reason, note: after.message })
    });
    let held = status.held.as_ref().filter(|_| previous.held.is_none() && previous.observed_generation.is_some());
    let held = held.map(|held| Announcement {
        warning: false,
        reason: "CountHeld".to_owned(),
        note: format!(
            "nothing decides the count, so {} replicas stay; set spec.replicas for another count, or spec.scaling.mode Auto",
            held.replicas
        ),
    });
    let moving = status.moving.as_ref().filter(|_| previous.moving.is_none());
    let moving = moving.map(|moving| Announcement {
        warning: false,
        reason: "CountMoves".to_owned(),
        note: format!(
            "scaling is off, so the count goes to spec.replicas by the rates of spec.scaling.behavior: {} replicas now",
            moving.replicas
        ),
    });
    rescale.into_iter().chain(held).chain(moving).chain(of_ready).chain(of_others).collect()
}
