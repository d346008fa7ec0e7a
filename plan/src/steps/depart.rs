//! How guests leave their Service before they go.
//!
//! A guest that is deleted powers off a second before the kube-proxies have dropped it, so each would cost requests
//! (seen with KubeVirt 1.9: 1.0 to 1.4 s). So the launcher pod of a victim leaves the Service first: its workload label
//! gets another value, with the time. The guest goes once no EndpointSlice has the pod and the kube-proxies had time to
//! follow; an EndpointSlice controller that does nothing holds nobody up for ever.
//!
//! A VirtualMachineInstance's own labels are of no use: KubeVirt copies them to the pod when it makes it, and never
//! again. Nor is its pause, which closes the pod's readiness gate: requests in flight would hang, and a paused guest
//! powers off for nobody.

use catamaran_autoscale::victims::Victims;
use jiff::Timestamp;

use crate::{
    facts::{Instance, InstanceSet, Launcher, Stage, after},
    plan::{Action, Reason, Step},
};

/// What kube-proxies have to follow the EndpointSlices (their minSyncPeriod is 1 s), in seconds. One of these is lost
/// on labels, that have whole seconds.
const FOLLOW: u32 = 2;
/// The longest that a guest is kept for EndpointSlices that do not change, in seconds.
const PATIENCE: u32 = 10;

/// What to do with the victims of one set.
pub(crate) struct Departure {
    /// Deletions, and what takes others out of the Service, or puts them back.
    pub(crate) steps: Vec<Step>,
    /// Until when the next of them is waited for.
    pub(crate) until: Option<Timestamp>,
}

/// Lets victims go, out of the Service first where there is one. What left it and is no victim any more comes back.
pub(crate) fn depart(
    set: &InstanceSet,
    chosen: &[&Instance],
    victims: Victims,
    has_service: bool,
    now: Timestamp,
) -> Departure {
    let mut departure = Departure { steps: stay(set, chosen), until: None };
    for victim in chosen {
        // Without readiness it gets no traffic.
        let serves = has_service && matches!(victim.stage, Stage::Ready(_));
        let mut until = None;
        for launcher in victim.launchers.iter().filter(|_| serves) {
            if launcher.leaving.is_none() {
                departure.steps.push(leave(launcher, Some(now), Reason::Leaves));
            }
            let due = after(launcher.leaving.unwrap_or(now), if launcher.served { PATIENCE } else { FOLLOW });
            until = until.max((due > now).then_some(due));
        }
        match until {
            Some(until) => departure.until = Some(departure.until.map_or(until, |soonest| soonest.min(until))),
            None => departure.steps.push(Step {
                action: Action::DeleteInstance { name: victim.name.clone(), uid: victim.uid.clone() },
                why: Reason::Victim { stage: victim.stage, victims },
            }),
        }
    }
    departure
}

/// Puts guests back into the Service that are not to go any more: all but the chosen.
pub(crate) fn stay(set: &InstanceSet, chosen: &[&Instance]) -> Vec<Step> {
    let spared = set.live().filter(|instance| is_leaving(instance));
    let spared = spared.filter(|instance| chosen.iter().all(|victim| victim.uid != instance.uid));
    let launchers = spared.flat_map(|instance| &instance.launchers).filter(|launcher| launcher.leaving.is_some());
    launchers.map(|launcher| leave(launcher, None, Reason::Spared)).collect()
}

/// Whether a guest is on its way out already: a choice that moved among guests that are ready would never end.
pub(crate) fn is_leaving(instance: &Instance) -> bool {
    instance.launchers.iter().any(|launcher| launcher.leaving.is_some())
}

fn leave(launcher: &Launcher, since: Option<Timestamp>, why: Reason) -> Step {
    let action = Action::LeaveService { pod: launcher.name.clone(), uid: launcher.uid.clone(), since };
    Step { action, why }
}
