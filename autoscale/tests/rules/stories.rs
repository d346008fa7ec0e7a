//! Golden stories: read them to see how decisions are told.

use std::fmt::Write as _;

use catamaran_autoscale::{
    Behavior, Metric, Schedule,
    behavior::{Rate, Unit},
    fallback::{Fallback, FallbackBehavior},
    policy::{Mode, PressureResource, Resource, ResourceTarget, Stall, ValueTarget},
    samples::{NoSamples, Samples},
};

use crate::kit::{Workload, after, cpu, lost, policy, queue, usage, values};

/// A workload, and what was told of it.
struct Story {
    workload: Workload,
    told: String,
}

impl Story {
    fn new(workload: Workload) -> Self {
        Self { workload, told: String::new() }
    }

    fn say(&mut self, title: &str) {
        writeln!(self.told, "## {title}\n").expect("text");
    }

    /// Decides at this second and tells the decision.
    fn at(&mut self, seconds: i64, samples: Vec<Result<Samples, NoSamples>>) {
        let decision = self.workload.pass(samples, after(seconds));
        writeln!(self.told, "{seconds} s: {decision}").expect("text");
    }

    /// The same with one usage of cpu for all pods.
    fn cpu(&mut self, seconds: i64, milli: i64) {
        let samples = self.workload.all_use(milli, after(seconds));
        self.at(seconds, samples);
    }
}

#[test]
fn a_load_step_and_its_end() {
    let mut story = Story::new(Workload::new(policy(vec![cpu(50)]), 2));
    story.say("Load comes: as fast as the rates allow, then to the maximum");
    story.cpu(0, 500);
    story.cpu(1, 2000);
    story.cpu(5, 2000);
    story.cpu(16, 2000);
    story.say("It is on target");
    story.cpu(20, 520);
    story.say("Load goes: the window holds, then all at once");
    story.cpu(30, 40);
    story.cpu(330, 40);
    insta::assert_snapshot!(story.told);
}

#[test]
fn several_metrics() {
    let memory = Metric::Resource { resource: Resource::Memory, target: ResourceTarget::AverageValue(300_000 << 20) };
    let object = Metric::Object {
        name: "requests".to_owned(),
        object: "Ingress web".to_owned(),
        target: ValueTarget::Value(10_500),
        activation: None,
    };
    let pressure = Metric::Pressure { resource: PressureResource::Cpu, stall: Stall::Some, target: 15 };
    let mut workload = Workload::new(policy(vec![cpu(50), memory, object, pressure]), 4);
    workload.policy.behavior = Some(Behavior::with_defaults(0));
    let mut story = Story::new(workload);
    let now = after(0);
    let memory = |mib: i64| Ok(usage(&[Some((mib * 1000) << 20); 4], now));
    let cpu = || Ok(usage(&[Some(480); 4], now));
    let pressure = || Ok(values(&[Some(1500), Some(2000), Some(0), Some(250)], now));
    story.say("The highest proposal counts");
    story.at(0, vec![cpu(), memory(450), Ok(Samples::Value(11_250)), pressure()]);
    story.say("One has no value; the others may ask for more, but not for fewer");
    story.workload = Workload::new(story.workload.policy.clone(), 4);
    story.at(20, vec![cpu(), memory(60), lost(), pressure()]);
    story.at(40, vec![lost(), memory(450), lost(), pressure()]);
    insta::assert_snapshot!(story.told);
}

#[test]
fn metrics_are_lost() {
    let mut workload = Workload::new(policy(vec![cpu(50), queue(10, None)]), 3);
    workload.policy.fallback =
        Some(Fallback { after: 60, replicas: 6, behavior: FallbackBehavior::CurrentReplicasIfHigher });
    let mut story = Story::new(workload);
    story.say("No metric answers: the count is held");
    story.at(0, vec![lost(), lost()]);
    story.say("For a minute now: the fallback applies");
    story.at(60, vec![lost(), lost()]);
    story.say("One is back and asks for little: nothing goes before a whole window was seen");
    story.at(600, vec![lost(), Ok(Samples::Series(vec![12_000]))]);
    let samples = vec![Ok(usage(&[Some(50); 6], after(601))), Ok(Samples::Series(vec![12_000]))];
    story.at(601, samples);
    let samples = vec![Ok(usage(&[Some(50); 6], after(901))), Ok(Samples::Series(vec![12_000]))];
    story.at(901, samples);
    insta::assert_snapshot!(story.told);
}

#[test]
fn to_zero_and_back() {
    let mut workload = Workload::new(policy(vec![queue(10, Some(5)), cpu(50)]), 1);
    (workload.policy.min, workload.policy.behavior) = (0, Some(Behavior::with_defaults(60)));
    let mut story = Story::new(workload);
    let waiting = |units: i64| Ok(Samples::Series(vec![units * 1000]));
    story.say("The queue empties: no demand, but the window holds");
    story.at(0, vec![waiting(6), Ok(usage(&[Some(400)], after(0)))]);
    story.at(30, vec![waiting(2), Ok(usage(&[Some(400)], after(30)))]);
    story.say("The window is over");
    story.at(60, vec![waiting(0), Ok(usage(&[Some(0)], after(60)))]);
    story.say("At its threshold there is no demand");
    story.at(90, vec![waiting(5), lost()]);
    story.say("Above it there is");
    story.at(91, vec![waiting(24), lost()]);
    insta::assert_snapshot!(story.told);
}

#[test]
fn by_schedule() {
    let mut workload = Workload::new(policy(vec![cpu(50)]), 2);
    let office = Schedule::new("office", "Europe/Paris", "0 13 * * MON-FRI", "0 19 * * MON-FRI", Some(6), None);
    let night = Schedule::new("night", "Europe/Paris", "0 22 * * *", "0 5 * * *", None, Some(0));
    workload.policy.schedules = vec![office.expect("a schedule"), night.expect("a schedule")];
    (workload.policy.min, workload.policy.behavior) = (2, Some(Behavior::with_defaults(0)));
    let mut story = Story::new(workload);
    // The first moment is 13:00 in Paris.
    story.say("A minute before one in the afternoon");
    story.cpu(-60, 500);
    story.say("One o'clock: at once, whatever the load");
    story.cpu(0, 500);
    story.cpu(1, 100);
    story.say("Seven in the evening: down, as the metrics say");
    story.cpu(6 * 3600, 200);
    story.say("Ten at night: closed");
    story.cpu(9 * 3600, 500);
    story.at(10 * 3600, vec![lost()]);
    story.say("Five in the morning: open");
    story.at(16 * 3600, vec![lost()]);
    insta::assert_snapshot!(story.told);
}

#[test]
fn what_holds_a_count_back() {
    let mut workload = Workload::new(policy(vec![cpu(50)]), 4);
    workload.policy.max = 30;
    let mut behavior = Behavior::with_defaults(300);
    behavior.up.window = 60;
    behavior.up.rates = vec![Rate { kind: Unit::Percent, value: 50, period: 60 }];
    behavior.down.rates.clear();
    workload.policy.behavior = Some(behavior);
    let mut story = Story::new(workload);
    story.say("A window on the way up, then a rate in percent");
    story.cpu(0, 500);
    story.cpu(30, 2000);
    story.cpu(90, 2000);
    story.say("Fewer is switched off");
    story.cpu(900, 10);
    story.say("Without behavior: double, or four");
    story.workload.policy.behavior = None;
    story.cpu(1000, 3000);
    insta::assert_snapshot!(story.told);
}

#[test]
fn other_modes() {
    let mut story = Story::new(Workload::new(policy(vec![cpu(50), Metric::Throttling { target: 5 }]), 3));
    story.workload.policy.mode = Mode::Recommend;
    story.say("Recommend");
    let throttled = values(&[Some(20_000), Some(12_500), Some(9_000)], after(0));
    story.at(0, vec![Ok(usage(&[Some(600); 3], after(0))), Ok(throttled)]);
    story.workload.policy.mode = Mode::Off;
    story.say("Off");
    story.at(10, vec![]);
    insta::assert_snapshot!(story.told);
}
