//! The Service of a workload.

use catamaran_crds::State;

use crate::{
    draft::{Context, Draft},
    facts::{Selects, ServiceFacts},
    objects::normalized,
    plan::{Action, Problem, Reason},
};

/// Makes the Service, corrects it or deletes it. While the workload is frozen it selects nothing.
pub(crate) fn apply(context: &Context<'_>, draft: &mut Draft) {
    let wanted = &context.goal.service_ports;
    let apply = |uid: Option<String>| Action::ApplyService { uid, ports: wanted.clone() };
    match &context.facts.service {
        ServiceFacts::Absent if wanted.is_empty() => {}
        ServiceFacts::Absent => draft.step(apply(None), Reason::ServiceMissing),
        ServiceFacts::Foreign if wanted.is_empty() => {}
        ServiceFacts::Foreign => {
            draft.problems.push(Problem::NameTaken { kind: "Service", name: context.goal.name.clone() });
        }
        ServiceFacts::Owned { uid, .. } if wanted.is_empty() => {
            draft.step(Action::DeleteService { uid: uid.clone() }, Reason::ServiceUnwanted);
        }
        ServiceFacts::Owned { uid, ports, selects } => {
            let equal = ports.len() == wanted.len()
                && ports.iter().zip(wanted).all(|(is, wanted)| normalized(is) == normalized(wanted))
                && *selects == Some(Selects::for_state(context.goal.state));
            let why = if context.goal.state == State::Frozen { Reason::Freeze } else { Reason::ServiceDiffers };
            if !equal {
                draft.step(apply(Some(uid.clone())), why);
            }
        }
    }
}

/// Takes pods out of the Service that carry the workload's label and are none of its replicas. One that its replica set
/// may take over is left alone: that one counts it then.
pub(crate) fn expel(context: &Context<'_>, draft: &mut Draft) {
    if !matches!(context.facts.service, ServiceFacts::Owned { .. }) || context.goal.service_ports.is_empty() {
        return;
    }
    let is_ours = |revision: &String| {
        *revision == context.target.revision || context.sets.iter().any(|set| set.revision == *revision)
    };
    for stray in context.facts.strays.iter().filter(|stray| !stray.revision.as_ref().is_some_and(is_ours)) {
        let since = Some(context.now());
        let action = Action::LeaveService { pod: stray.pod.clone(), uid: stray.uid.clone(), since };
        draft.step(action, Reason::Stray);
    }
}
