//! The numbers of a rollout against the Deployment controller's own rules, written down here a second time from
//! upstream's source (Kubernetes 1.36): `pkg/controller/deployment/rolling.go`, `sync.go` and
//! `util/deployment_util.go`.
//!
//! Compared are sets whose replicas all exist: there, what is stricter here (room that is given up is free only once it
//! is seen to be gone) makes no difference. Upstream does one thing a pass, ours does in one plan what may be done at
//! once; so upstream's passes are put one after the other. And in one point ours is wiser on purpose: where the wanted
//! count falls and yet replicas are to be added (or the other way round), upstream moves some sets against the change
//! and makes up for it in the largest.

use catamaran_crds::Rollout;
use catamaran_plan::{
    goal::{Bounds, RolloutPolicy},
    steps::counts::{Noted, Share, next},
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

/// A ReplicaSet as the Deployment controller looks at it.
#[derive(Clone, Copy, Debug)]
struct ReplicaSet {
    replicas: i32,
    available: i32,
    /// Stands for the creation time: the order of the history.
    age: usize,
    max_replicas_before: i32,
}

/// The Deployment: its count and resolved bounds.
#[derive(Clone, Copy, Debug)]
struct Deployment {
    replicas: i32,
    max_surge: i32,
    max_unavailable: i32,
}

/// `reconcileNewReplicaSet` with `NewRSNewReplicas`.
fn reconcile_new(deployment: Deployment, sets: &[ReplicaSet], new: usize) -> i32 {
    let current = sets[new].replicas;
    if current >= deployment.replicas {
        return deployment.replicas;
    }
    let pods: i32 = sets.iter().map(|set| set.replicas).sum();
    let max_total = deployment.replicas + deployment.max_surge;
    if pods >= max_total {
        return current;
    }
    current + (max_total - pods).min(deployment.replicas - current)
}

/// `reconcileOldReplicaSets`: `cleanupUnhealthyReplicas`, then `scaleDownOldReplicaSetsForRollingUpdate`.
fn reconcile_old(deployment: Deployment, sets: &mut [ReplicaSet], new: usize) {
    let all: i32 = sets.iter().map(|set| set.replicas).sum();
    let min_available = deployment.replicas - deployment.max_unavailable;
    let new_unavailable = sets[new].replicas - sets[new].available;
    let max_cleanup = all - min_available - new_unavailable;
    if all == sets[new].replicas || max_cleanup <= 0 {
        return;
    }
    let mut old: Vec<usize> = (0..sets.len()).filter(|index| *index != new).collect();
    old.sort_by_key(|index| sets[*index].age);
    let mut cleaned = 0;
    for index in old.iter().copied() {
        let set = &mut sets[index];
        if cleaned >= max_cleanup {
            break;
        }
        let by = (max_cleanup - cleaned).min(set.replicas - set.available);
        set.replicas -= by;
        cleaned += by;
    }
    let available: i32 = sets.iter().map(|set| set.available).sum();
    let mut left = (available - min_available).max(0);
    for index in old {
        let by = sets[index].replicas.min(left);
        sets[index].replicas -= by;
        left -= by;
    }
}

/// `scale` of sync.go with `GetReplicaSetProportion` and `getReplicaSetFraction`, for a rolling update with several
/// active sets.
fn proportional(deployment: Deployment, sets: &mut [ReplicaSet]) {
    let allowed = if deployment.replicas > 0 { deployment.replicas + deployment.max_surge } else { 0 };
    let to_add = allowed - sets.iter().map(|set| set.replicas).sum::<i32>();
    let mut order: Vec<usize> = (0..sets.len()).filter(|index| sets[*index].replicas > 0).collect();
    // ReplicaSetsBySizeNewer, ReplicaSetsBySizeOlder.
    order.sort_by(|a, b| {
        let by_size = sets[*b].replicas.cmp(&sets[*a].replicas);
        by_size.then(if to_add > 0 { sets[*b].age.cmp(&sets[*a].age) } else { sets[*a].age.cmp(&sets[*b].age) })
    });
    if to_add == 0 {
        return;
    }
    let mut added = 0;
    let mut sizes = Vec::new();
    for index in order.iter().copied() {
        let set = sets[index];
        let proportion = if to_add == added {
            0
        } else {
            let size = f64::from(set.replicas * allowed) / f64::from(set.max_replicas_before);
            // RoundToInt32 rounds halves away from zero; sizes are never negative.
            #[allow(clippy::cast_possible_truncation)]
            let fraction = size.round() as i32 - set.replicas;
            let rest = to_add - added;
            if to_add > 0 { fraction.min(rest) } else { fraction.max(rest) }
        };
        sizes.push((index, set.replicas + proportion));
        added += proportion;
    }
    sizes[0].1 = (sizes[0].1 + to_add - added).max(0);
    for (index, size) in sizes {
        sets[index].replicas = size;
    }
}

/// `ResolveFenceposts`.
fn fenceposts(surge: &IntOrString, unavailable: &IntOrString, replicas: i32) -> (i32, i32) {
    let resolve = |value: &IntOrString, up: bool| match value {
        IntOrString::Int(count) => *count,
        IntOrString::String(text) => {
            let percent: f64 = text.trim_end_matches('%').parse().expect("a percentage");
            let scaled = percent * f64::from(replicas) / 100.0;
            #[allow(clippy::cast_possible_truncation)]
            if up { scaled.ceil() as i32 } else { scaled.floor() as i32 }
        }
    };
    let (surge, unavailable) = (resolve(surge, true), resolve(unavailable, false));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

fn unsigned(value: i32) -> u32 {
    u32::try_from(value).expect("not negative")
}

fn bounds(deployment: Deployment) -> Bounds {
    Bounds {
        min_available: unsigned((deployment.replicas - deployment.max_unavailable).max(0)),
        max_total: unsigned(deployment.replicas + deployment.max_surge),
    }
}

/// As our rules see it: all replicas exist. `noted` is the count that the sets were last scaled for.
fn shares(sets: &[ReplicaSet], noted: i32) -> Vec<Share> {
    let share = |set: &ReplicaSet| Share {
        asked: unsigned(set.replicas),
        live: unsigned(set.replicas),
        available: unsigned(set.available),
        number: u64::try_from(set.age).expect("small") + 1,
        noted: Some(Noted { desired: unsigned(noted), max_total: unsigned(set.max_replicas_before) }),
        fixed: false,
    };
    sets.iter().map(share).collect()
}

fn ours(sets: &[ReplicaSet], noted: i32, deployment: Deployment) -> Vec<i32> {
    let new = sets.len() - 1;
    next(&shares(sets, noted), Some(new), unsigned(deployment.replicas), bounds(deployment), false)
        .into_iter()
        .map(|next| i32::try_from(next.asked).expect("small"))
        .collect()
}

fn theirs(sets: &[ReplicaSet]) -> Vec<i32> {
    sets.iter().map(|set| set.replicas).collect()
}

fn total(sizes: &[i32]) -> i32 {
    sizes.iter().sum()
}

/// Whether replicas are added when the wanted count rises, and removed when it falls.
fn one_direction(sets: &[ReplicaSet], before: i32, deployment: Deployment) -> bool {
    let to_add = deployment.replicas + deployment.max_surge - total(&theirs(sets));
    to_add.signum() * (deployment.replicas - before).signum() >= 0
}

/// Up to four sets, the last one the new one; of each, its size and how many of them are unavailable.
fn sizes() -> impl Strategy<Value = Vec<(i32, i32)>> {
    prop::collection::vec((0..9i32, 0..9i32), 1..5)
}

fn deployments() -> impl Strategy<Value = Deployment> {
    (1..13i32, 0..5i32, 0..5i32).prop_map(|(replicas, max_surge, max_unavailable)| Deployment {
        replicas,
        max_surge,
        max_unavailable: if max_surge == 0 { max_unavailable.max(1) } else { max_unavailable },
    })
}

fn replica_sets(sizes: &[(i32, i32)], max_replicas_before: i32) -> Vec<ReplicaSet> {
    sizes
        .iter()
        .enumerate()
        .map(|(age, (replicas, unavailable))| ReplicaSet {
            replicas: *replicas,
            available: (replicas - unavailable).max(0),
            age,
            max_replicas_before,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 40,
        max_global_rejects: 100_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_rollout_moves_as_a_deployment_does(sizes in sizes(), deployment in deployments()) {
        let sets = replica_sets(&sizes, deployment.replicas + deployment.max_surge);
        let new = sets.len() - 1;
        let mut theirs_after = sets.clone();
        theirs_after[new].replicas = reconcile_new(deployment, &sets, new);
        theirs_after[new].available = theirs_after[new].available.min(theirs_after[new].replicas);
        reconcile_old(deployment, &mut theirs_after, new);
        let ours_after = ours(&sets, deployment.replicas, deployment);
        prop_assert_eq!(ours_after, theirs(&theirs_after), "{:?} {:?}", sets, deployment);
    }

    #[test]
    fn a_change_of_the_count_in_mid_rollout_is_spread_as_a_deployment_does(
        sizes in prop::collection::vec(1..6i32, 2..4),
        spare in 0..6i32,
        surge in 0..5i32,
        unavailable in 0..5i32,
        after in 1..13i32,
    ) {
        // What is there was within the bounds before.
        let before = (sizes.iter().sum::<i32>() - surge).max(1) + spare;
        prop_assume!(before != after);
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        let deployment = Deployment { replicas: after, max_surge: surge, max_unavailable: unavailable };
        let available: Vec<(i32, i32)> = sizes.iter().map(|size| (*size, 0)).collect();
        let sets = replica_sets(&available, before + surge);
        // A new set that is complete is another rule: the old ones go.
        prop_assume!(sets[sets.len() - 1].replicas != after);
        let mut theirs_after = sets.clone();
        proportional(deployment, &mut theirs_after);
        let ours_after = ours(&sets, before, deployment);
        if one_direction(&sets, before, deployment) {
            prop_assert_eq!(ours_after, theirs(&theirs_after), "{:?} {:?}", sets, deployment);
        } else {
            prop_assert_eq!(total(&ours_after), total(&theirs(&theirs_after)), "{:?} {:?}", sets, deployment);
            let down = total(&ours_after) < total(&sizes);
            let turns = |(after, size): (&i32, &i32)| if down { after > size } else { after < size };
            let against = ours_after.iter().zip(&sizes).any(turns);
            prop_assert!(!against, "{:?} {:?} {:?}", sets, deployment, ours_after);
        }
    }

    /// Where replicas are unavailable, the sum is upstream's and the lower bound is kept better.
    #[test]
    fn a_spread_change_keeps_available_replicas(sizes in sizes(), spare in 0..6i32, deployment in deployments()) {
        let before = (sizes.iter().map(|(size, _)| size).sum::<i32>() - deployment.max_surge).max(1) + spare;
        let sets = replica_sets(&sizes, before + deployment.max_surge);
        prop_assume!(before != deployment.replicas && sets.iter().filter(|set| set.replicas > 0).count() > 1);
        let new = sets[sets.len() - 1];
        prop_assume!(!(new.replicas == deployment.replicas && new.available == deployment.replicas));
        // The new revision takes the growth: another rule, below.
        prop_assume!(!(new.replicas == 0 && before < deployment.replicas));
        let mut theirs_after = sets.clone();
        proportional(deployment, &mut theirs_after);
        let ours_after = ours(&sets, before, deployment);
        prop_assert_eq!(total(&ours_after), total(&theirs(&theirs_after)), "{:?} {:?}", sets, deployment);
        let kept = |after: &[i32]| sets.iter().zip(after).map(|(set, after)| set.available.min(*after)).sum::<i32>();
        let floor = (deployment.replicas - deployment.max_unavailable).min(sets.iter().map(|set| set.available).sum());
        let floor_of_ours = floor.min(total(&ours_after));
        prop_assert!(kept(&ours_after) >= floor_of_ours, "{:?} {:?} {:?}", sets, deployment, ours_after);
        if kept(&theirs(&theirs_after)) >= floor && one_direction(&sets, before, deployment) {
            prop_assert_eq!(ours_after, theirs(&theirs_after), "{:?} {:?}", sets, deployment);
        }
    }

    /// The difference that is meant: a count that is raised with the template goes to the new revision, and no old one
    /// grows.
    #[test]
    fn growth_that_comes_with_a_new_revision_goes_to_it(
        old in prop::collection::vec((1..9i32, 0..9i32), 1..3),
        by in 1..9i32,
        surge in 0..5i32,
        unavailable in 0..5i32,
    ) {
        let sizes: Vec<(i32, i32)> = old.into_iter().chain([(0, 0)]).collect();
        let before = sizes.iter().map(|(size, _)| size).sum::<i32>();
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        let deployment = Deployment { replicas: before + by, max_surge: surge, max_unavailable: unavailable };
        let sets = replica_sets(&sizes, before + surge);
        let after = ours(&sets, before, deployment);
        let new = sets.len() - 1;
        prop_assert_eq!(after[new], (by + surge).min(deployment.replicas), "{:?} {:?}", sets, after);
        let none_grows = sets[..new].iter().zip(&after).all(|(set, after)| *after <= set.replicas);
        prop_assert!(none_grows, "{:?} {:?}", sets, after);
        prop_assert!(total(&after) <= deployment.replicas + surge);
        // As with a rollout at the new count, whose bounds are kept.
        prop_assert_eq!(after, ours(&sets, deployment.replicas, deployment));
    }

    #[test]
    fn bounds_are_resolved_as_fenceposts(
        surge in prop_oneof![(0..20i32).prop_map(IntOrString::Int), (0..=100u8).prop_map(|p| IntOrString::String(format!("{p}%")))],
        unavailable in prop_oneof![(0..20i32).prop_map(IntOrString::Int), (0..=100u8).prop_map(|p| IntOrString::String(format!("{p}%")))],
        replicas in 0..1000i32,
    ) {
        let (max_surge, max_unavailable) = fenceposts(&surge, &unavailable, replicas);
        let rollout = Rollout { max_surge: Some(surge), max_unavailable: Some(unavailable), ..Rollout::default() };
        let resolved = RolloutPolicy::from(&rollout).bounds(unsigned(replicas));
        prop_assert_eq!(resolved, bounds(Deployment { replicas, max_surge, max_unavailable }));
    }
}
