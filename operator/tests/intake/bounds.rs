//! Whatever is sent, memory and work are bounded.

use std::time::Duration;

use anyhow::Result;
use catamaran_operator::intake::settings::Timing;
use catamaran_protocol::stream::{
    Counters,
    limits::{MESSAGE_BYTES, PODS, REPORT_INTERVAL},
    proto,
};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    raw::{hello, open_on, report},
    support::{Differences, Ground, eventually, pod, snapshot},
};

fn told(index: u32) -> proto::Pod {
    let containers = vec![proto::Container { name: "main".to_owned(), id: "abc".to_owned() }];
    let (name, uid) = (format!("pod-{index}"), format!("uid-{index}"));
    proto::Pod { index, namespace: "shop".to_owned(), name, uid, containers }
}

fn sample(pod: u32, cpu_usage_usec: u64) -> proto::PodSample {
    proto::PodSample {
        pod,
        containers: vec![Counters { cpu_usage_usec, ..Counters::default() }],
        ..proto::PodSample::default()
    }
}

#[tokio::test]
async fn a_stream_that_breaks_the_rules_ends() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    ground.pods.everywhere();
    let token = ground.tokens.issue("node-1");
    let wrong = [
        hello("node-1"),
        proto::StreamRequest { message: None },
        report(proto::Report { samples: vec![sample(0, 1)], ..proto::Report::default() }),
        report(proto::Report { pods: vec![told(u32::MAX)], ..proto::Report::default() }),
        report(proto::Report {
            pods: vec![proto::Pod { name: "../../etc".to_owned(), ..told(0) }],
            ..proto::Report::default()
        }),
    ];
    for (n, message) in wrong.into_iter().enumerate() {
        let mut stream = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
        stream.sender.send(message).await?;
        let status = stream.end().await?;
        assert_eq!(status.code(), Code::InvalidArgument, "{n}: {}", status.message());
    }
    assert_eq!(ground.metric("usage_ended_streams_total{reason=\"Malformed\"}"), 5.0);
    eventually("no stream is left", || (ground.metric("usage_streams") == 0.0).then_some(())).await?;
    assert!(ground.store.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_its_stream() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    let token = ground.tokens.issue("node-1");
    let mut stream = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
    let id = "x".repeat(MESSAGE_BYTES);
    let containers = vec![proto::Container { name: "main".to_owned(), id }];
    let pods = vec![proto::Pod { containers, ..told(0) }];
    stream.sender.send(report(proto::Report { pods, ..proto::Report::default() })).await?;
    assert_eq!(stream.end().await?.code(), Code::OutOfRange);
    assert_eq!(ground.metric("usage_ended_streams_total{reason=\"Oversized\"}"), 1.0);
    Ok(())
}

#[tokio::test]
async fn thousands_of_unknown_pods_leave_nothing() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    let token = ground.tokens.issue("node-1");
    let mut stream = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
    // Each round other pods take over the indexes: 5 x 1,000 in all.
    let (rounds, each) = (5_u32, 1_000_u32);
    for round in 0..rounds {
        let pods = (0..each).map(|n| proto::Pod { index: n, ..told(round * each + n) }).collect();
        let samples = (0..each).map(|n| sample(n, 1)).collect();
        let sequence = u64::from(round) + 1;
        stream.sender.send(report(proto::Report { sequence, pods, samples, ..proto::Report::default() })).await?;
        assert_eq!(stream.acknowledged().await?, sequence);
    }
    assert!(ground.store.is_empty());
    let refused = ground.metric("usage_refused_pod_samples_total{reason=\"UnknownPod\"}");
    assert_eq!(refused, f64::from(rounds * each));
    // One more than a node may have ends it.
    let most = u32::try_from(PODS)?;
    stream
        .sender
        .send(report(proto::Report { sequence: 99, pods: vec![told(most)], ..proto::Report::default() }))
        .await?;
    assert_eq!(stream.end().await?.code(), Code::InvalidArgument);
    Ok(())
}

#[tokio::test]
async fn pods_that_take_over_each_others_place_leave_one_entry() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    ground.pods.everywhere();
    let token = ground.tokens.issue("node-1");
    let mut stream = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
    for sequence in 1..=4_u64 {
        // Fifty pods one after another in one report, and the last one is sampled.
        let pods = (0..50).map(|n| proto::Pod { index: 0, ..told(u32::try_from(sequence).unwrap_or(0) * 50 + n) });
        let (pods, samples) = (pods.collect(), vec![sample(0, 1)]);
        stream.sender.send(report(proto::Report { sequence, pods, samples, ..proto::Report::default() })).await?;
        stream.acknowledged().await?;
        assert_eq!(ground.store.len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_flood_of_reports_is_thinned() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    ground.pods.everywhere();
    let token = ground.tokens.issue("node-1");
    let mut stream = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
    let (count, started) = (200_u64, Instant::now());
    for sequence in 1..=count {
        let pods = if sequence == 1 { vec![told(0), told(1)] } else { vec![] };
        // The other one ends in the midst of it.
        let gone = if sequence == 100 { vec![1] } else { vec![] };
        let both = [0, 1].into_iter().filter(|pod| *pod == 0 || sequence < 100);
        let samples = both.map(|pod| sample(pod, sequence * 5_000)).collect();
        let monotonic_usec = sequence * 10_000;
        let flood = proto::Report { sequence, monotonic_usec, pods, gone, samples, ..proto::Report::default() };
        stream.sender.send(report(flood)).await?;
    }
    while stream.acknowledged().await? < count {}
    let (taken, superseded) = (ground.metric("usage_reports_total"), ground.metric("usage_superseded_reports_total"));
    assert_eq!(taken + superseded, 200.0);
    let most = started.elapsed().as_secs_f64() / REPORT_INTERVAL.as_secs_f64() + 1.0;
    assert!(taken <= most, "{taken} reports were taken, {most} may be");
    assert_eq!(ground.store.len(), 1, "the end of a pod is in a report that was superseded");
    // What was skipped is in what was not.
    assert_eq!(ground.millicores(&pod("pod-0", "uid-0")), Some(500));
    Ok(())
}

#[tokio::test]
async fn a_new_stream_of_a_node_ends_the_old_one() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    let token = ground.tokens.issue("node-1");
    let mut old = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
    // On the same connection or on another one.
    let channel = ground.connect().await?;
    let mut new = open_on(channel.clone(), Some(&token), hello("node-1")).await?.expect("a good token");
    assert_eq!(old.end().await?.code(), Code::Aborted);
    let mut newest = open_on(channel, Some(&token), hello("node-1")).await?.expect("a good token");
    assert_eq!(new.end().await?.code(), Code::Aborted);
    newest.sender.send(report(proto::Report::default())).await?;
    newest.acknowledged().await?;
    assert_eq!(ground.metric("usage_ended_streams_total{reason=\"Replaced\"}"), 2.0);
    assert_eq!(ground.metric("usage_streams"), 1.0);
    Ok(())
}

#[tokio::test]
async fn a_stream_without_reports_ends() -> Result<()> {
    let timing = Timing { idle: Duration::from_millis(200), ..Timing::default() };
    let ground = Ground::start(Differences { timing, ..Differences::default() }).await?;
    let token = ground.tokens.issue("node-1");
    let mut stream = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
    assert_eq!(stream.end().await?.code(), Code::DeadlineExceeded);
    Ok(())
}

#[tokio::test]
async fn there_are_only_so_many_streams() -> Result<()> {
    let ground = Ground::start(Differences { max_streams: 2, ..Differences::default() }).await?;
    let open = async |node: &str| {
        let token = ground.tokens.issue(node);
        ground.open(Some(&token), hello(node)).await
    };
    let (one, _two) = (open("node-1").await?.expect("room"), open("node-2").await?.expect("room"));
    let status = open("node-3").await?.err().expect("refused");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(ground.metric("usage_refused_streams_total{reason=\"Busy\"}"), 1.0);
    // One that takes over needs no more room.
    let again = open("node-1").await?.expect("its own room");
    drop((one, again));
    eventually("room", || (ground.metric("usage_streams") == 1.0).then_some(())).await?;
    assert!(open("node-3").await?.is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_nodes_stream_at_once() -> Result<()> {
    const NODES: usize = 1_000;
    let ground = Ground::start_alone(Differences::default()).await?;
    ground.pods.everywhere();
    let web = |node: usize| pod(&format!("web-{node}"), &format!("uid-{node}"));
    let agents: Vec<_> =
        (0..NODES).map(|node| Ok((web(node), ground.agent(&format!("node-{node}"))?))).collect::<Result<Vec<_>>>()?;
    // All report each second until each has had a rate, and nobody has had a wrong one. A busy machine takes a while
    // for it.
    let (started, mut without) = (Instant::now(), (0..NODES).collect::<Vec<_>>());
    while !without.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(120), "{} pods have no rate", without.len());
        let millis = u64::try_from(started.elapsed().as_millis())?;
        for (web, agent) in &agents {
            agent.reporter.report(snapshot(millis, &[(web, millis * 250)]));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        without.retain(|node| match ground.millicores(&web(*node)) {
            Some(rate) => {
                assert_eq!(rate, 250, "a wrong rate on node {node}");
                false
            }
            None => true,
        });
    }
    assert_eq!((ground.store.len(), ground.metric("usage_streams")), (NODES, NODES as f64));
    drop(agents);
    eventually("no stream is left", || (ground.metric("usage_streams") == 0.0).then_some(())).await?;
    eventually("no connection is left", || (ground.metric("usage_connections") == 0.0).then_some(())).await?;
    Ok(())
}
