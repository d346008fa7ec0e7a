//! The changes of the replica sets that exist, from the oldest to the newest.

use crate::{
    draft::{Context, Draft},
    facts::{Members, SetFacts},
    plan::{NoteChange, SetReference, SetUpdate, SpecChange, Step},
    steps::{freeze, in_place, machine_sets, replica_sets},
};

/// Brings each set to its size, its notes and its quota.
pub(crate) fn change(context: &Context<'_>, draft: &mut Draft) {
    for (index, set) in context.sets.iter().enumerate() {
        draft.look_again(set.next_available(context.now(), context.min_ready_seconds()));
        let is_target = context.target.existing == Some(index) && !context.is_blocked();
        // A set that the workload returned to stays as it was.
        let has_quota = is_target && context.is_wanted();
        // Replicas are changed where they are, whatever their count.
        let of_replicas = if has_quota { in_place::replicas(context, draft, set) } else { freeze::thaw_pods(set) };
        if set.deleting {
            continue;
        }
        let quota = if has_quota {
            in_place::change_of(&context.goal.in_place, &set.quota)
        } else {
            freeze::thaw_template(set)
        };
        if context.uncounted().is_some() {
            // Not before the template: a pod may never have a limit that its set's template lacks, as no resize takes
            // it away.
            if quota.is_none() {
                draft.steps.extend(of_replicas);
            }
            continue;
        }
        let mut update = notes(context, set, is_target, draft.sizes[index].asked);
        update.quota = quota;
        if has_quota {
            let hash = &context.goal.in_place.hash;
            update.notes.template_hash = (set.template_hash.as_ref() != Some(hash)).then(|| hash.clone());
        }
        scale(context, draft, index, update, of_replicas);
    }
}

fn scale(context: &Context<'_>, draft: &mut Draft, index: usize, update: SetUpdate, of_replicas: Vec<Step>) {
    let (set, next) = (context.sets[index], draft.sizes[index]);
    match &set.members {
        Members::Pods(pods) => {
            // While victims are being marked the set stays as it is, and so do its pods.
            if !replica_sets::scale(context, draft, pods, update, set.replicas, next) {
                return;
            }
        }
        Members::Instances(instances) => machine_sets::scale(context, draft, set, instances, update, next),
    }
    draft.steps.extend(of_replicas);
}

/// What is to be noted on a set; its scale comes later.
fn notes(context: &Context<'_>, set: &SetFacts, is_target: bool, asked: u32) -> SetUpdate {
    let active = asked > 0 || set.replicas > 0;
    let next = context.next_number();
    let min_ready = context.min_ready_seconds();
    let min_ready_seconds = match &set.members {
        Members::Pods(pods) => (active && pods.min_ready_seconds != min_ready).then_some(min_ready),
        Members::Instances(_) => None,
    };
    SetUpdate {
        spec: SpecChange { min_ready_seconds, ..SpecChange::default() },
        notes: NoteChange {
            desired_replicas: (active && set.desired_replicas != Some(context.replicas)).then_some(context.replicas),
            number: (is_target && active && set.number.saturating_add(1) != next).then_some(next),
            ..NoteChange::default()
        },
        ..SetUpdate::none(SetReference::new(set))
    }
}
