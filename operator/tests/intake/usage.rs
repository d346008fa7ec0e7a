//! What the store says of what was reported.

use std::time::Duration;

use anyhow::Result;
use catamaran_operator::intake::{settings::Timing, store::Keep};
use catamaran_protocol::stream::{
    Counters,
    proto::{Pressure, Throttling},
    rates::Share,
    reporter::Reporter,
    snapshot::{PodReading, Snapshot},
};

use crate::support::{Differences, Ground, eventually, pod, pod_with, snapshot};

#[tokio::test]
async fn usage_arrives_as_rates() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    let (agent, web) = (ground.agent("node-1")?, pod("web", "1"));
    ground.pods.run(&web, "node-1");
    let reading = |millis: u64, cpu_usage_usec, nr_throttled, memory_some_usec| {
        let counters = Counters {
            cpu_usage_usec,
            memory_working_set_bytes: 200 << 20,
            throttling: Some(Throttling { nr_periods: millis / 100, nr_throttled, throttled_usec: 0 }),
            pressure: Some(Pressure { memory_some_usec, ..Pressure::default() }),
        };
        let pods = vec![PodReading::new(web.clone(), vec![counters]).expect("one container")];
        Snapshot { taken: Duration::from_millis(millis), unix_usec: 0, pods }
    };
    agent.report(reading(5_000, 1_000_000, 10, 0)).await?;
    let first = ground.store.pod("shop", "web").expect("reported");
    let (name, container) = first.containers().next().expect("one container");
    assert_eq!((name, container.memory_working_set_bytes, container.rates), ("main", 200 << 20, None));

    agent.report(reading(6_000, 1_750_000, 14, 125_000)).await?;
    let second = ground.store.pod("shop", "web").expect("reported");
    let rates = second.containers().next().and_then(|(_, container)| container.rates).expect("two readings");
    assert_eq!((rates.window, rates.cpu_millicores), (Duration::from_secs(1), 750));
    assert_eq!(rates.throttled, Some(Share::new(4, 10)));
    assert_eq!(rates.pressure.expect("pressure").memory_some.millionths(), 125_000);
    assert_eq!((&*second.node, second.pod.uid()), ("node-1", "1"));
    assert!(second.age < Duration::from_secs(5));

    assert_eq!(ground.seen.times(&web), 2);
    assert_eq!((ground.metric("usage_reports_total"), ground.metric("usage_samples_total")), (2.0, 2.0));
    assert_eq!((ground.metric("usage_streams"), ground.metric("usage_connections")), (1.0, 1.0));
    assert!(ground.metric("usage_received_bytes_total") > 100.0);
    // The sender's clock says 1970.
    assert_eq!(ground.metric("usage_node_clock_offset_seconds_bucket{le=\"3600.0\"}"), 0.0);
    Ok(())
}

#[tokio::test]
async fn usage_counts_for_a_while_only() -> Result<()> {
    let keep = Keep { stale_after: Duration::from_secs(2), retention: Duration::from_secs(3), ..Keep::default() };
    let timing = Timing { sweep: Duration::from_millis(50), ..Timing::default() };
    let ground = Ground::start(Differences { keep, timing, ..Differences::default() }).await?;
    ground.pods.everywhere();
    let (agent, web) = (ground.agent("node-1")?, pod("web", "1"));
    agent.report(snapshot(1_000, &[(&web, 0)])).await?;
    let now = ground.store.now();
    assert!(ground.store.pod_at("shop", "web", now + Duration::from_millis(500)).is_some());
    assert_eq!(ground.store.pod_at("shop", "web", now + Duration::from_millis(2_001)), None);
    let mut last = ground.store.last("shop", "web").expect("it is kept for people");
    for (age, late) in [(2_000, false), (2_001, true)] {
        last.age = Duration::from_millis(age);
        assert_eq!(ground.store.is_late(&last), late);
    }
    eventually("it is stale", || (ground.metric("usage_stale_pods") == 1.0).then_some(())).await?;
    assert!(ground.store.pod("shop", "web").is_none());
    eventually("it is forgotten", || ground.store.is_empty().then_some(())).await?;
    Ok(())
}

#[tokio::test]
async fn a_reading_that_is_told_again_is_not_news() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    ground.pods.everywhere();
    let (agent, web) = (ground.agent("node-1")?, pod("web", "1"));
    agent.report(snapshot(1_000, &[(&web, 0)])).await?;
    let arrived = || ground.store.pod("shop", "web").map(|usage| ground.store.now().saturating_sub(usage.age));
    let first = arrived().expect("reported");
    agent.report(snapshot(1_000, &[(&web, 0)])).await?;
    let again = arrived().expect("reported");
    assert!(again.abs_diff(first) < Duration::from_millis(5), "{first:?} {again:?}");
    Ok(())
}

#[tokio::test]
async fn a_pod_that_is_gone_is_forgotten_at_once() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    ground.pods.everywhere();
    let (agent, web, shop) = (ground.agent("node-1")?, pod("web", "1"), pod("shop", "2"));
    agent.report(snapshot(1_000, &[(&web, 0), (&shop, 0)])).await?;
    assert_eq!(ground.store.len(), 2);
    agent.report(snapshot(2_000, &[(&shop, 0)])).await?;
    assert!(ground.store.pod("shop", "web").is_none());
    assert_eq!(ground.store.len(), 1);
    Ok(())
}

#[tokio::test]
async fn only_the_node_of_a_pod_counts() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    let (here, there) = (ground.agent("node-1")?, ground.agent("node-2")?);
    let (web, impostor) = (pod("web", "1"), pod("web", "0"));
    let refused = |reason: &str| ground.metric(&format!("usage_refused_pod_samples_total{{reason=\"{reason}\"}}"));
    here.report(snapshot(1_000, &[(&web, 0)])).await?;
    assert_eq!((ground.store.len(), refused("UnknownPod")), (0, 1.0));
    // Once it is known, it counts.
    ground.pods.run(&web, "node-1");
    here.report(snapshot(2_000, &[(&web, 500_000)])).await?;
    there.report(snapshot(9_000, &[(&web, 9_000_000)])).await?;
    there.report(snapshot(10_000, &[(&web, 19_000_000)])).await?;
    assert_eq!(refused("OtherNode"), 2.0);
    here.report(snapshot(3_000, &[(&web, 1_000_000)])).await?;
    assert_eq!(ground.millicores(&web), Some(500));
    // Nor can another node end it.
    there.report(snapshot(11_000, &[])).await?;
    assert_eq!(ground.millicores(&web), Some(500));
    // Nor can its own node by the end of another pod of that name.
    let ended = ground.metric("usage_reports_total");
    here.report(snapshot(3_500, &[(&web, 1_250_000), (&impostor, 0)])).await?;
    here.report(snapshot(4_000, &[(&web, 1_500_000)])).await?;
    assert_eq!((ground.metric("usage_reports_total"), ground.millicores(&web)), (ended + 2.0, Some(500)));
    here.report(snapshot(4_500, &[(&impostor, 77_000_000)])).await?;
    assert_eq!(refused("OtherUid"), 2.0);
    Ok(())
}

#[tokio::test]
async fn restarts_and_resets_give_no_wrong_rate() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    ground.pods.everywhere();
    let (mut agent, web) = (ground.agent("node-1")?, pod("web", "1"));
    agent.report(snapshot(10_000, &[(&web, 5_000_000)])).await?;
    agent.report(snapshot(10_500, &[(&web, 5_100_000)])).await?;
    assert_eq!(ground.millicores(&web), Some(200));

    // The agent restarts: a new process, a new stream, the same clock and counters.
    agent.reporter = Reporter::start(agent.config.clone());
    agent.report(snapshot(11_000, &[(&web, 5_200_000)])).await?;
    assert_eq!(ground.millicores(&web), Some(200));

    // The container restarts: another id, counters from zero.
    let restarted = pod_with("web", "1", "life-2");
    agent.report(snapshot(11_500, &[(&restarted, 40_000)])).await?;
    assert_eq!(ground.millicores(&web), None);
    agent.report(snapshot(12_000, &[(&restarted, 190_000)])).await?;
    assert_eq!(ground.millicores(&web), Some(300));

    // The counters go back without a new id.
    agent.report(snapshot(12_500, &[(&restarted, 1_000)])).await?;
    assert_eq!(ground.millicores(&web), None);
    assert_eq!(ground.metric("usage_series_restarts_total{reason=\"CounterReset\"}"), 1.0);
    agent.report(snapshot(13_000, &[(&restarted, 51_000)])).await?;
    assert_eq!(ground.millicores(&web), Some(100));

    // The node reboots: another clock, which happens to be ahead.
    let config = catamaran_protocol::stream::reporter::Config { boot_id: "boot-2".to_owned(), ..agent.config.clone() };
    agent.reporter = Reporter::start(config);
    agent.report(snapshot(13_500, &[(&restarted, 60_000)])).await?;
    assert_eq!(ground.millicores(&web), None);
    assert_eq!(ground.metric("usage_series_restarts_total{reason=\"ClockReset\"}"), 1.0);
    Ok(())
}

#[tokio::test]
async fn a_clock_that_steps_gives_no_wrong_rate() -> Result<()> {
    const HOUR: u64 = 3_600_000;
    let ground = Ground::start(Differences::default()).await?;
    ground.pods.everywhere();
    let (agent, web) = (ground.agent("node-1")?, pod("web", "1"));
    // Half a core all the time. The clock says an hour more from the third reading on, and from the fifth the truth
    // again.
    let mut rates = vec![];
    for (n, millis) in [(0, 0), (1, 500), (2, HOUR + 1_000), (3, HOUR + 1_500), (4, 2_000), (5, 2_500)] {
        agent.report(snapshot(millis, &[(&web, n * 250_000)])).await?;
        rates.push(ground.millicores(&web));
    }
    assert_eq!(rates, [None, Some(500), None, Some(500), None, Some(500)]);
    assert_eq!(ground.metric("usage_series_restarts_total{reason=\"ClockDisagrees\"}"), 1.0);
    assert_eq!(ground.metric("usage_series_restarts_total{reason=\"ClockReset\"}"), 1.0);
    Ok(())
}

#[tokio::test]
async fn a_wall_clock_that_steps_changes_nothing() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    ground.pods.everywhere();
    let (agent, web) = (ground.agent("node-1")?, pod("web", "1"));
    for (n, unix_usec) in [(0, 0), (1, i64::MAX), (2, i64::MIN), (3, -1)] {
        agent.report(Snapshot { unix_usec, ..snapshot(n * 500, &[(&web, n * 250_000)]) }).await?;
    }
    assert_eq!(ground.millicores(&web), Some(500));
    Ok(())
}

#[tokio::test]
async fn every_replica_receives() -> Result<()> {
    let one = Ground::start(Differences::default()).await?;
    let two = Ground::start_second(Differences::default()).await?;
    one.pods.everywhere();
    two.pods.everywhere();
    let config = one.agent("node-1")?.config;
    two.tokens.issue("node-1");
    // Each has an authority of its own here: both are in one bundle.
    let bundle = [std::fs::read(&one.ca_file)?, std::fs::read(&two.ca_file)?].concat();
    std::fs::write(&one.ca_file, bundle)?;
    let addresses = vec![one.address, two.address];
    let config = catamaran_protocol::stream::reporter::Config {
        replicas: catamaran_protocol::stream::reporter::Replicas::Addresses(addresses),
        ..config
    };
    let reporter = Reporter::start(config);
    let web = pod("web", "1");
    let mut millis = 0;
    eventually("both have it", || {
        millis += 10;
        reporter.report(snapshot(millis, &[(&web, millis * 100)]));
        let both = one.millicores(&web).is_some() && two.millicores(&web).is_some();
        both.then_some(())
    })
    .await?;
    assert_eq!((one.millicores(&web), two.millicores(&web)), (Some(100), Some(100)));
    Ok(())
}
