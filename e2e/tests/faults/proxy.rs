//! The proxy itself, between an operator and a real API server.

use std::time::Duration;

use anyhow::{Result, ensure};
use catamaran_e2e::{
    audit::Mark,
    faults::{Answer, Call, Fault, Match, Outcome, Passed, Rule, Verb},
    installation::operator_user,
};
use serde_json::json;

use crate::support::{Ground, ROLLOUT, SHOP, web};

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_works_through_a_proxy_as_itself() -> Result<()> {
    let mut ground = Ground::start(json!({})).await?;
    let leader = ground.lead("operator-a").await?;
    let recorder = ground.record(SHOP, "web").await?;
    ground.rolled(SHOP, &web(1, 2), ROLLOUT).await?;
    // A late and an ended watch are no faults to it, nor is a write whose answer is lost.
    let late = leader.proxy.set(Rule::new(Match::watch("pods"), Fault::Late(Duration::from_millis(300))));
    let lost = leader.proxy.set(Rule::new(Match::writes().resource("replicasets"), Fault::LoseAnswer).nth(1));
    ground.rolled(SHOP, &web(2, 2), ROLLOUT).await?;
    leader.proxy.clear_all();
    let gone = leader.proxy.set(Rule::new(Match::watch("replicasets"), Fault::Gone));
    gone.hit().await;
    leader.proxy.clear(&gone);
    leader.proxy.set(Rule::new(Match::writes().namespace(SHOP), Answer::unavailable()).times(1));
    ground.rolled(SHOP, &web(3, 2), ROLLOUT).await?;
    ensure!(lost.hits() == 1 && late.hits() > 0, "{} lost, {} late", lost.hits(), late.hits());
    recorder.finish(ground.quiet()).await?;

    let passed = leader.proxy.passed();
    let made = |resource: &str| {
        let of = |call: &Call| call.verb == Verb::Create && call.resource == resource && call.namespace == SHOP;
        passed.iter().any(|passed| of(&passed.call) && passed.outcome == Outcome::Forwarded(201))
    };
    ensure!(made("replicasets") && made("services"), "{}", list(&passed));
    ensure!(passed.iter().any(|passed| passed.outcome == Outcome::Planted(503)), "{}", list(&passed));
    let again = |passed: &Passed| passed.attempt > 1 && matches!(passed.outcome, Outcome::Forwarded(200 | 201));
    let retried = passed.iter().any(|passed| Verb::WRITES.contains(&passed.call.verb) && again(passed));
    ensure!(retried, "{}", list(&passed));
    let writes = ground.control_plane.audit().writes_since(Mark::START)?;
    let own = writes.iter().any(|write| write.user == operator_user() && write.user_agent.contains("operator-a"));
    ensure!(own, "the operator keeps its own name");
    Ok(())
}

fn list(passed: &[Passed]) -> String {
    passed.iter().map(|passed| format!("{passed}\n")).collect()
}
