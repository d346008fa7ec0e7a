//! Who may report, and for how long.

use std::time::Duration;

use anyhow::Result;
use catamaran_operator::intake::settings::Timing;
use catamaran_protocol::stream::proto::StreamRequest;
use tonic::Code;

use crate::{
    raw::{hello, report},
    support::{ACCOUNT, Differences, Ground, eventually, pod, snapshot, soon},
};

const REVIEW: Duration = Duration::from_millis(100);

fn often_reviewed() -> Differences {
    let timing = Timing { review: REVIEW, review_grace: Duration::from_millis(400), ..Timing::default() };
    Differences { timing, ..Differences::default() }
}

#[tokio::test]
async fn strangers_are_refused() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    ground.pods.everywhere();
    ground.tokens.issue("node-1");
    ground.tokens.add("operator", "system:serviceaccount:system:operator", Some("node-1"));
    ground.tokens.add("unbound", ACCOUNT, None);
    let long = "x".repeat(9_000);
    for (token, code, reason) in [
        (None, Code::Unauthenticated, "NoToken"),
        (Some(""), Code::Unauthenticated, "NoToken"),
        (Some(long.as_str()), Code::Unauthenticated, "NoToken"),
        (Some("made-up"), Code::Unauthenticated, "Token"),
        (Some("operator"), Code::PermissionDenied, "Account"),
        (Some("unbound"), Code::PermissionDenied, "Unbound"),
    ] {
        let counted = || ground.metric(&format!("usage_refused_streams_total{{reason=\"{reason}\"}}"));
        let before = counted();
        let status = ground.open(token, hello("node-1")).await?.err().expect("refused");
        assert_eq!(status.code(), code, "{token:?}: {}", status.message());
        assert_eq!(counted(), before + 1.0, "{reason}");
    }
    assert_eq!((ground.store.len(), ground.metric("usage_reports_total")), (0, 0.0));
    Ok(())
}

#[tokio::test]
async fn a_token_is_good_for_its_own_node_alone() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    let token = ground.tokens.issue("node-1");
    let mut own = ground.open(Some(&token), hello("node-1")).await?.expect("its own node");
    let status = ground.open(Some(&token), hello("node-2")).await?.err().expect("refused");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("node-1") && status.message().contains("node-2"), "{}", status.message());
    assert_eq!(ground.metric("usage_refused_streams_total{reason=\"Node\"}"), 1.0);
    // Nor does the attempt end the stream of the node itself.
    own.sender.send(report(Default::default())).await?;
    assert_eq!(own.acknowledged().await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_expired_token_ends_its_stream() -> Result<()> {
    let ground = Ground::start(often_reviewed()).await?;
    let token = ground.tokens.issue("node-1");
    let mut stream = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
    ground.tokens.expire(&token);
    assert_eq!(stream.end().await?.code(), Code::Unauthenticated);
    assert_eq!(ground.metric("usage_ended_streams_total{reason=\"Token\"}"), 1.0);
    Ok(())
}

#[tokio::test]
async fn a_token_of_another_node_by_now_ends_its_stream() -> Result<()> {
    let ground = Ground::start(often_reviewed()).await?;
    let token = ground.tokens.issue("node-1");
    let mut stream = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
    ground.tokens.add(&token, ACCOUNT, Some("node-2"));
    assert_eq!(stream.end().await?.code(), Code::PermissionDenied);
    Ok(())
}

#[tokio::test]
async fn a_new_token_takes_over_without_a_wrong_rate() -> Result<()> {
    let ground = Ground::start(often_reviewed()).await?;
    ground.pods.everywhere();
    let (agent, web) = (ground.agent("node-1")?, pod("web", "1"));
    agent.report(snapshot(1_000, &[(&web, 100_000)])).await?;
    agent.report(snapshot(1_500, &[(&web, 200_000)])).await?;
    assert_eq!(ground.millicores(&web), Some(200));
    let streams = agent.status().streams;
    std::fs::write(agent.token_file(), ground.tokens.add("second", ACCOUNT, Some("node-1")))?;
    ground.tokens.expire("token-node-1");
    eventually("another stream", || (agent.status().streams > streams).then_some(())).await?;
    agent.report(snapshot(2_000, &[(&web, 300_000)])).await?;
    // The readings before and after belong together.
    assert_eq!(ground.millicores(&web), Some(200));
    assert_eq!(ground.metric("usage_ended_streams_total{reason=\"Token\"}"), 1.0);
    Ok(())
}

#[tokio::test]
async fn an_api_server_that_is_away_for_a_while_ends_nothing() -> Result<()> {
    let differences = often_reviewed();
    let timing = Timing { review_grace: Duration::from_secs(3600), ..differences.timing };
    let ground = Ground::start(Differences { timing, ..differences }).await?;
    let token = ground.tokens.issue("node-1");
    let mut stream = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
    ground.tokens.down(true);
    let before = ground.tokens.reviews();
    eventually("three reviews", || (ground.tokens.reviews() > before + 3).then_some(())).await?;
    stream.sender.send(report(Default::default())).await?;
    stream.acknowledged().await?;
    // A new stream cannot be told from a stranger's now. (The answer for the known token is remembered.)
    let status = ground.open(Some("another"), hello("node-2")).await?.err().expect("refused");
    assert_eq!(status.code(), Code::Unavailable);
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_not_reviewed_for_too_long_ends_its_stream() -> Result<()> {
    let ground = Ground::start(often_reviewed()).await?;
    let token = ground.tokens.issue("node-1");
    let mut stream = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
    ground.tokens.down(true);
    assert_eq!(stream.end().await?.code(), Code::Unavailable);
    assert_eq!(ground.metric("usage_ended_streams_total{reason=\"Review\"}"), 1.0);
    Ok(())
}

#[tokio::test]
async fn answers_are_remembered() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    let token = ground.tokens.issue("node-1");
    for _ in 0..20 {
        assert!(ground.open(Some("made-up"), hello("node-1")).await?.is_err());
        assert!(ground.open(Some(&token), hello("node-1")).await?.is_ok());
    }
    assert_eq!(ground.tokens.reviews(), 2);
    Ok(())
}

#[tokio::test]
async fn the_first_message_has_to_be_a_hello() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    let token = ground.tokens.issue("node-1");
    for first in [report(Default::default()), StreamRequest { message: None }, hello("Not A Name")] {
        let status = ground.open(Some(&token), first).await?.err().expect("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    }
    assert_eq!(ground.metric("usage_refused_streams_total{reason=\"Hello\"}"), 3.0);
    Ok(())
}

#[tokio::test]
async fn open_streams_are_ended_when_the_intake_stops() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    let token = ground.tokens.issue("node-1");
    let mut stream = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
    ground.stop.cancel();
    assert_eq!(stream.end().await?.code(), Code::Unavailable);
    drop(stream);
    soon("the intake stops", ground.serving).await??;
    Ok(())
}
