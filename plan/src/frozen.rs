//! `spec.state: Frozen`: replicas stay where they are and do nothing; scaling, rollouts and quota edits wait.
//!
//! Pods are frozen by the node agent, which their annotation tells. Guests are paused by KubeVirt. A guest may also be paused by its
//! users, so the replica set notes that we did it, and only then are guests let go on.

use std::fmt;

use catamaran_crds::ElasticWorkloadStatus;
use catamaran_protocol::node_quota::NodeQuota;
use jiff::{SignedDuration, Timestamp};

use crate::{
    action::{Action, SetQuota, SetReference, SetUpdate},
    decided,
    desired::{Desired, Invalid},
    in_place::{Resizing, annotate},
    observed::{InstanceSet, Members, Observed, ObservedSet, Pause, Pod, PodQuota},
    planner::{self, Plan, Step},
    report::{Reason, Wait},
    revision::Template,
    status::{self, Progress},
};

/// For how long a guest is let go on that shows itself paused only after the end of the frozen state.
const THAW_FOR: SignedDuration = SignedDuration::from_secs(30);

/// What is noted on a set of virtual machines; the text is the annotation's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrozenNote {
    /// Its instances are to be paused.
    Frozen,
    /// They are let go on, since then.
    Thawing(Timestamp),
}

impl fmt::Display for FrozenNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen => f.write_str("true"),
            Self::Thawing(since) => write!(f, "{since}"),
        }
    }
}

impl FrozenNote {
    /// Reads the annotation. A text that nobody here wrote counts as frozen: then guests are let go on at least.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.parse().map_or(Self::Frozen, Self::Thawing)
    }
}

/// The probe by which the kubelet would kill frozen replicas: its path in the template.
#[must_use]
pub fn killing_probe(template: &Template) -> Option<String> {
    match template {
        Template::Container(pod) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten();
            let containers = spec.containers.iter().chain(sidecars);
            containers.into_iter().find_map(|container| {
                let probe = match (&container.liveness_probe, &container.startup_probe) {
                    (Some(_), _) => "livenessProbe",
                    (None, Some(_)) => "startupProbe",
                    (None, None) => return None,
                };
                Some(format!("the {probe} of container {}", container.name))
            })
        }
        Template::VirtualMachine(machine) => {
            machine.spec.contains_key("livenessProbe").then(|| "the livenessProbe".to_owned())
        }
    }
}

/// Refuses a template that cannot be frozen.
///
/// # Errors
/// When it has a liveness or startup probe.
pub(crate) fn check(template: &Template) -> Result<(), Invalid> {
    match killing_probe(template) {
        None => Ok(()),
        Some(probe) => Err(Invalid::field(
            "spec.state",
            format!(
                "Frozen is not possible with {probe}: it would fail, and what is found frozen be killed; take the probe out, or use Stopped"
            ),
        )),
    }
}

/// How a frozen workload is planned for.
pub(crate) enum Hold {
    /// Everything stays as it is.
    Now(Box<Plan>),
    /// Replicas of an earlier revision have probes, so the rollout to the one without goes on first.
    After(Box<Desired>),
}

/// Plans for a workload whose state is Frozen.
pub(crate) fn hold(desired: &Desired, observed: &Observed) -> Hold {
    let sets = observed.in_order();
    let desired = Desired { replicas: held_count(&sets), ..desired.clone() };
    let min_ready = desired.rollout.min_ready_seconds;
    let probed = |set: &&&ObservedSet| set.probed && (set.replicas > 0 || set.counts(observed.now, min_ready).live > 0);
    if sets.iter().any(|set| probed(&set)) {
        Hold::After(Box::new(desired))
    } else {
        Hold::Now(Box::new(plan(&desired, observed, &sets)))
    }
}

/// The count that is held: what the sets were last scaled for.
fn held_count(sets: &[&ObservedSet]) -> u32 {
    let active = || sets.iter().filter(|set| set.replicas > 0 && !set.deleting);
    let noted = active().filter_map(|set| set.desired_replicas).max();
    noted.unwrap_or_else(|| active().map(|set| set.replicas).fold(0, u32::saturating_add))
}

fn plan(desired: &Desired, observed: &Observed, sets: &[&ObservedSet]) -> Plan {
    let mut problems = Vec::new();
    // Traffic ends first.
    let mut steps: Vec<Step> = planner::service_step(desired, observed, &mut problems).into_iter().collect();
    let mut left = 0_u32;
    for set in sets {
        let mut update = SetUpdate::none(SetReference::of(set));
        let mut of_replicas = Vec::new();
        match &set.members {
            Members::Pods(pods) => {
                let container = &desired.in_place.container;
                let text = |quota: &PodQuota| frozen_text(quota.annotation.as_deref(), container);
                update.quota = text(&set.quota).map(|text| of_template(container, Some(text)));
                let told = |pod: &Pod| Some(annotate(&pod.name, &pod.uid, Some(text(&pod.quota)?), Reason::Freeze));
                of_replicas.extend(pods.pods.iter().filter_map(told));
                left = left.saturating_add(crate::observed::count(of_replicas.iter()));
            }
            Members::Instances(instances) => {
                update.frozen = (instances.frozen != Some(FrozenNote::Frozen)).then_some(Some(FrozenNote::Frozen));
                for instance in instances.live() {
                    left = left.saturating_add(u32::from(instance.pause != Pause::Paused));
                    match instance.pause {
                        Pause::Running => of_replicas.push(pause(&instance.name, true)),
                        Pause::NotRunning | Pause::Paused => {}
                    }
                }
            }
        }
        let used = set.replicas > 0 || !of_replicas.is_empty();
        if !update.is_empty() && !set.deleting && used {
            // Replicas to come are frozen as well, and it is noted before it is done.
            steps.push(Step { action: Action::UpdateSet(Box::new(update)), why: Reason::Freeze });
        }
        steps.extend(of_replicas);
    }
    let mut status = status_of(desired, observed, sets, left, problems.first());
    let requeue_at = planner::add_quota_conditions(&mut status, desired, observed, &Resizing::default());
    let waits = (left > 0).then_some(Wait::Frozen { replicas: left });
    let plan = Plan {
        announcements: status::announcements(&observed.status, &status),
        steps,
        waits: waits.into_iter().collect(),
        bounds: Some(desired.rollout.bounds(desired.replicas)),
        status,
        requeue_at,
    };
    crate::invariants::debug_check(desired, observed, &plan);
    plan
}

fn status_of(
    desired: &Desired,
    observed: &Observed,
    sets: &[&ObservedSet],
    left: u32,
    problem: Option<&status::Problem>,
) -> ElasticWorkloadStatus {
    let (now, previous) = (observed.now, &observed.status);
    let counts: Vec<_> = sets.iter().map(|set| set.counts(now, desired.rollout.min_ready_seconds)).collect();
    let live = counts.iter().map(|counts| counts.live).fold(0, u32::saturating_add);
    let (scaling, of_scaling) = decided::status(previous, None, desired.scaling.is_some(), desired.generation, now);
    // The deadline of a rollout that is held starts anew.
    let mut status = ElasticWorkloadStatus { scaling, ..status::from_counts(desired, previous, sets, &counts) };
    let wanted = &desired.in_place;
    let differs = |set: &ObservedSet| {
        let there = set.quota.annotation.as_deref();
        let there = thawed_text(there).unwrap_or_else(|| there.map(ToOwned::to_owned));
        there != wanted.annotation() || wanted.change_of(&set.quota).is_some_and(|change| change.resources.is_some())
    };
    let change_waits = sets.iter().any(|set| set.replicas > 0 && (set.revision != desired.revision || differs(set)));
    let progress = match problem {
        Some(problem) => Progress::Stopped { problem },
        None => Progress::Frozen { replicas: live, left, change_waits },
    };
    status.conditions = status::conditions(previous, desired.generation, now, progress.with(&status));
    status.conditions.extend(of_scaling);
    status
}

/// The annotation that freezes as well, where the one that is there does not. One that cannot be read is replaced.
fn frozen_text(annotation: Option<&str>, container: &str) -> Option<String> {
    match annotation.and_then(|text| NodeQuota::parse(text).ok()) {
        Some(quota) if quota.frozen => None,
        Some(quota) => Some(NodeQuota { frozen: true, ..quota }.to_annotation()),
        None => Some(only_frozen(container).to_annotation()),
    }
}

/// The annotation that freezes no more, where the one that is there does: none when nothing else is in it.
fn thawed_text(annotation: Option<&str>) -> Option<Option<String>> {
    let quota = NodeQuota::parse(annotation?).ok().filter(|quota| quota.frozen)?;
    let alone = quota == only_frozen(&quota.container);
    Some((!alone).then(|| NodeQuota { frozen: false, ..quota }.to_annotation()))
}

fn only_frozen(container: &str) -> NodeQuota {
    NodeQuota { container: container.to_owned(), frozen: true, ..NodeQuota::default() }
}

fn of_template(container: &str, annotation: Option<String>) -> SetQuota {
    // Of virtual machines' templates it takes nothing off.
    SetQuota { container: container.to_owned(), resources: None, annotation: Some(annotation), lone: false }
}

fn pause(name: &str, paused: bool) -> Step {
    let why = if paused { Reason::Freeze } else { Reason::Thaw };
    Step { action: Action::PauseInstance { name: name.to_owned(), paused }, why }
}

/// Lets the pods of a set go on that is not the wanted one; those of the wanted one get its quota, which is not frozen.
pub(crate) fn thaw_pods(set: &ObservedSet) -> Vec<Step> {
    let told = |pod: &Pod| {
        let text = thawed_text(pod.quota.annotation.as_deref())?;
        Some(annotate(&pod.name, &pod.uid, text, Reason::Thaw))
    };
    match &set.members {
        Members::Pods(pods) => pods.pods.iter().filter_map(told).collect(),
        Members::Instances(_) => Vec::new(),
    }
}

/// The same for the template of such a set.
pub(crate) fn thaw_template(set: &ObservedSet) -> Option<SetQuota> {
    match &set.members {
        Members::Pods(_) => Some(of_template("", thawed_text(set.quota.annotation.as_deref())?)),
        Members::Instances(_) => None,
    }
}

/// What is to be done for the guests of a set to go on.
#[derive(Default)]
pub(crate) struct Thaw {
    pub(crate) steps: Vec<Step>,
    pub(crate) note: Option<Option<FrozenNote>>,
    pub(crate) look_again: Option<Timestamp>,
}

/// Lets guests go on that were paused by us. KubeVirt's condition Paused comes a moment after the pause, so the note stays for a
/// while.
pub(crate) fn thaw_instances(instances: &InstanceSet, now: Timestamp) -> Thaw {
    let Some(note) = instances.frozen else { return Thaw::default() };
    let paused = instances.live().filter(|instance| instance.pause == Pause::Paused);
    let steps: Vec<Step> = paused.map(|instance| pause(&instance.name, false)).collect();
    match note {
        FrozenNote::Frozen => {
            let since = Timestamp::from_second(now.as_second()).unwrap_or(now);
            Thaw { steps, note: Some(Some(FrozenNote::Thawing(since))), look_again: None }
        }
        FrozenNote::Thawing(since) => {
            let until = since.checked_add(THAW_FOR).unwrap_or(now);
            let over = steps.is_empty() && now >= until;
            Thaw { steps, note: over.then_some(None), look_again: (now < until).then_some(until) }
        }
    }
}
