//! Which old revisions are kept.

use crate::{
    draft::{Context, Draft},
    plan::{Action, Reason, SetReference},
};

/// Deletes the oldest revisions beyond the limit, once the workload is complete; the wanted one and the one to return
/// to stay.
pub(crate) fn delete(context: &Context<'_>, draft: &mut Draft) {
    if !context.is_complete() || !draft.steps.is_empty() {
        return;
    }
    let limit = context.goal.rollout.revision_history_limit;
    let target = &context.target;
    let current = context.facts.status.current_revision.as_ref();
    let keep = [Some(&target.revision), Some(&target.wanted), current];
    let old: Vec<SetReference> = context
        .sets
        .iter()
        .zip(&context.counts)
        .filter(|(set, counts)| {
            set.replicas == 0 && counts.live == 0 && !set.deleting && !keep.contains(&Some(&set.revision))
        })
        .map(|(set, _)| SetReference::new(set))
        .collect();
    let beyond = old.len().saturating_sub(limit);
    for set in old.into_iter().take(beyond) {
        draft.step(Action::DeleteSet(set), Reason::History { limit });
    }
}
