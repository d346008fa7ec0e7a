//! Modes: decide and write, decide only, neither.

use catamaran_autoscale::{
    decision::{Idle, Step},
    policy::Mode,
};

use crate::kit::{Workload, condition, cpu, policy, start};

fn decided(mode: Mode) -> catamaran_autoscale::Decision {
    let mut workload = Workload::new(policy(vec![cpu(50)]), 3);
    workload.policy.mode = mode;
    workload.decide(workload.all_use(1000, start()), start())
}

#[test]
fn recommend_decides_the_same_and_writes_nothing() {
    let (auto, recommend) = (decided(Mode::Auto), decided(Mode::Recommend));
    assert_eq!((auto.to, auto.write()), (6, Some(6)));
    assert_eq!((recommend.to, recommend.write()), (6, None));
    assert_eq!((&auto.steps, &auto.metrics), (&recommend.steps, &recommend.metrics));
    assert_eq!(condition(&recommend, "AbleToScale"), Some((false, "RecommendOnly")));
    assert_eq!(condition(&recommend, "ScalingActive"), Some((true, "ValidMetricFound")));
    assert!(recommend.headline().contains("nothing is written"), "{}", recommend.headline());
}

#[test]
fn what_is_only_recommended_uses_up_no_rate() {
    let mut workload = Workload::new(policy(vec![cpu(50)]), 3);
    workload.policy.mode = Mode::Recommend;
    let first = workload.pass(workload.all_use(5000, start()), start());
    workload.policy.mode = Mode::Auto;
    assert_eq!((first.to, workload.replicas), (7, 3));
    assert_eq!(workload.pass(workload.all_use(5000, start()), start()).to, 7);
}

#[test]
fn off_decides_nothing() {
    let off = decided(Mode::Off);
    assert_eq!((off.to, off.write(), off.metrics.len()), (3, None, 0));
    assert_eq!(off.steps, [Step::Idle(Idle::Off)]);
    assert_eq!(condition(&off, "ScalingActive"), Some((false, "ScalingDisabled")));
}

#[test]
fn off_leaves_alone_even_what_is_out_of_bounds() {
    let mut workload = Workload::new(policy(vec![cpu(50)]), 30);
    workload.policy.mode = Mode::Off;
    assert_eq!(workload.decide(vec![], start()).to, 30);
}
