//! One tenant's writes are answered by 503: nobody else notices, the leader is not restarted, and afterwards all is
//! current soon.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use catamaran_e2e::{
    faults::{Answer, Match, Outcome, Passed, Rule},
    workloads::{as_machines, condition, patch, wait_for, workload},
};
use serde_json::json;

use crate::support::{Ground, Member, OTHER, ROLLOUT, SHOP, is_long, lasting, web};

/// In CI a little longer than a reconcile may wait before a process counts as stuck.
const SHORT: u64 = 130;

/// Rolls one image after another out elsewhere for so long, and gives the longest time that one took.
async fn others_move_on(ground: &Ground, leader: &mut Member, time: Duration) -> Result<Duration> {
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    for version in 2.. {
        if begun.elapsed() >= time {
            break;
        }
        longest = longest.max(ground.rolled(OTHER, &web(version, 2), ROLLOUT).await?);
        leader.runs()?;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    Ok(longest)
}

/// The tries of each call that was refused, the most of one call, and the shortest pause between two of them.
fn tries(passed: &[Passed]) -> String {
    let mut by_path: BTreeMap<&str, usize> = BTreeMap::new();
    let refused = passed.iter().filter(|passed| matches!(passed.outcome, Outcome::Planted(_)));
    for passed in refused {
        *by_path.entry(&passed.call.path).or_default() += 1;
    }
    let (all, most) = (by_path.values().sum::<usize>(), by_path.values().max().copied().unwrap_or(0));
    format!("{all} tries of {} requests, of one at most {most}", by_path.len())
}

/// Writes of `names` in one namespace are refused, by the first of the answers or, in the long form, by one after the
/// other; each time all of them are current within `recovery` afterwards.
async fn refused(names: &[String], answers: [Answer; 2], recovery: Duration) -> Result<()> {
    let mut ground = Ground::start(json!({})).await?;
    let mut leader = ground.lead("operator-a").await?;
    let recorder = ground.record(OTHER, "web").await?;
    for name in names {
        ground.apply(SHOP, &workload(name, "registry.test/shop:0", 1, "")).await?;
    }
    for name in names {
        ground.current(SHOP, name, ROLLOUT).await?;
    }
    let undisturbed = ground.rolled(OTHER, &web(1, 2), ROLLOUT).await?;
    let health = leader.health();
    let count = if is_long() { answers.len() } else { 1 };
    for (version, answer) in (1..).zip(answers).take(count) {
        let rule = leader.proxy.set(Rule::new(Match::writes().namespace(SHOP), answer));
        for name in names {
            ground.apply(SHOP, &workload(name, &format!("registry.test/shop:{version}"), 1, "")).await?;
        }
        let longest = others_move_on(&ground, &mut leader, lasting(SHORT, 300)).await?;
        ensure!(rule.hits() > 0, "there was something to refuse");
        leader.proxy.clear(&rule);
        let cleared = Instant::now();
        for name in names {
            ground.current(SHOP, name, recovery).await?;
        }
        println!(
            "elsewhere at most {longest:?} (before {undisturbed:?}); current again {:?} after the end; {}",
            cleared.elapsed(),
            tries(&leader.proxy.passed())
        );
    }
    health.was_well().await?;
    leader.runs()?;
    recorder.finish(ground.quiet()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_workload_whose_writes_are_refused() -> Result<()> {
    let answers = [Answer::unavailable().retry_after(5), Answer::unavailable()];
    refused(&["web".to_owned()], answers, Duration::from_secs(60)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_workloads_whose_writes_are_refused() -> Result<()> {
    let names: Vec<String> = (0..20).map(|number| format!("web-{number}")).collect();
    let answers = [Answer::unavailable(), Answer::unavailable().retry_after(5)];
    refused(&names, answers, Duration::from_secs(90)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_cannot_be_paused_cost_nobody_else_anything() -> Result<()> {
    let mut ground = Ground::start(json!({})).await?;
    ground.start_kubevirt().await?;
    let mut leader = ground.lead("operator-a").await?;
    ground.rolled(SHOP, &as_machines(&web(1, 1)), ROLLOUT).await?;
    let undisturbed = ground.rolled(OTHER, &web(1, 2), ROLLOUT).await?;
    let health = leader.health();
    let pause = Match::writes().resource("virtualmachineinstances/pause");
    let rule = leader.proxy.set(Rule::new(pause, Answer::unavailable().retry_after(5)));
    patch(&ground.client, SHOP, "web", &json!({"spec": {"state": "Frozen"}})).await?;
    let longest = others_move_on(&ground, &mut leader, lasting(SHORT, 600)).await?;
    ensure!(rule.hits() > 0, "it tried to pause the guest");
    leader.proxy.clear(&rule);
    let cleared = Instant::now();
    wait_for(&ground.client, SHOP, "web", "is frozen", Duration::from_secs(60), |workload| {
        condition(workload, "Ready").is_some_and(|ready| ready.status == "True" && ready.reason == "Frozen")
    })
    .await?;
    println!(
        "elsewhere at most {longest:?} (before {undisturbed:?}); frozen {:?} after the end; {}",
        cleared.elapsed(),
        tries(&leader.proxy.passed())
    );
    health.was_well().await?;
    leader.runs()?;
    ground.quiet().await
}
