//! The progress deadline counts the time in which somebody watched.

use catamaran_crds::ElasticWorkloadStatus;
use catamaran_plan::{Facts, Goal, facts::Members, plan};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    in_place::{desired, running},
    simulator::time,
};

/// A first revision whose one pod never becomes ready, with the status that said so at `progress`.
fn waiting(goal: &Goal, progress: i64) -> Facts {
    let mut facts = running(goal);
    if let Members::Pods(pods) = &mut facts.sets[0].members {
        (pods.ready, pods.available) = (0, 0);
        pods.pods[0].ready_since = None;
    }
    let before = Facts { now: time(progress), ..facts.clone() };
    Facts { status: plan(goal, &before, None).status, ..facts }
}

fn reason(status: &ElasticWorkloadStatus) -> &str {
    let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
    ready.map_or("", |ready| ready.reason.as_str())
}

#[test]
fn time_in_which_nobody_watched_is_no_delay() {
    let goal = desired("container: {image: a}, rollout: {progressDeadlineSeconds: 100}");
    let facts = waiting(&goal, -500);
    assert_eq!(facts.status.last_progress_time, Some(Time(time(-500))));
    for (watched_since, expected) in [
        (Timestamp::MIN, "ProgressDeadlineExceeded"),
        (time(-101), "ProgressDeadlineExceeded"),
        (time(-99), "RollingOut"),
        (time(0), "RollingOut"),
    ] {
        let planned = plan(&goal, &Facts { watched_since, ..facts.clone() }, None);
        assert_eq!(reason(&planned.status), expected, "watched since {watched_since}");
        assert_eq!(planned.status.last_progress_time, facts.status.last_progress_time);
    }
}

#[test]
fn a_deadline_that_was_missed_stays_missed_for_the_next_operator() {
    let goal = desired("container: {image: a}, rollout: {progressDeadlineSeconds: 100}");
    let facts = waiting(&goal, -500);
    let status = plan(&goal, &facts, None).status;
    let restarted = Facts { status, watched_since: facts.now, ..facts };
    assert_eq!(plan(&goal, &restarted, None).status, restarted.status, "nothing to write");
    // Another template is another rollout.
    let next = desired("container: {image: b}, rollout: {progressDeadlineSeconds: 100}");
    assert_eq!(reason(&plan(&next, &restarted, None).status), "RollingOut");
}

/// A clock that was set back: what the status says of progress is ahead of it.
#[test]
fn a_clock_that_was_set_back_delays_the_deadline_by_no_more_than_its_length() {
    let goal = desired("container: {image: a}, rollout: {progressDeadlineSeconds: 100}");
    let facts = waiting(&goal, 5000);
    let planned = plan(&goal, &facts, None);
    assert_eq!(reason(&planned.status), "RollingOut");
    assert_eq!(planned.requeue_at, Some(time(100)));
}
