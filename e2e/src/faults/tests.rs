//! The proxy between a client of kube and a tiny server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    routing::get,
};
use futures::{AsyncBufReadExt, StreamExt, stream};
use http::{Request, StatusCode};
use kube::{Client, Config};
use rcgen::generate_simple_self_signed;
use tokio::{
    net::TcpListener,
    sync::broadcast,
    time::{sleep, timeout},
};

use super::{Answer, Fault, Match, Outcome, Proxy, Rule, Verb};
use crate::tls::server_config;

const SETS: &str = "/apis/apps/v1/namespaces/shop/replicasets";
const PODS: &str = "/api/v1/namespaces/shop/pods";
/// Long enough to say that nothing comes.
const SILENT_FOR: Duration = Duration::from_millis(300);
const SOON: Duration = Duration::from_secs(10);

/// Counts writes, and sends what it is given to whoever watches pods.
#[derive(Clone)]
struct Tiny {
    writes: Arc<AtomicUsize>,
    events: broadcast::Sender<String>,
}

struct Ground {
    tiny: Tiny,
    proxy: Proxy,
    client: Client,
}

impl Ground {
    async fn start() -> Result<Self> {
        let tiny = Tiny { writes: Arc::default(), events: broadcast::Sender::new(16) };
        let write = |State(tiny): State<Tiny>| async move {
            tiny.writes.fetch_add(1, Ordering::SeqCst);
            "{}"
        };
        let watch = |State(tiny): State<Tiny>| async move {
            let events = stream::unfold(tiny.events.subscribe(), |mut events| async move {
                let event = events.recv().await.ok()?;
                Some((Ok::<_, std::io::Error>(Bytes::from(event)), events))
            });
            Body::from_stream(events)
        };
        let router = Router::new()
            .route(PODS, get(watch))
            .route(&format!("{SETS}/{{name}}"), get(|| async { "{}" }).patch(write))
            .route(SETS, get(|| async { r#"{"items": []}"# }).post(write))
            .with_state(tiny.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = format!("http://{}", listener.local_addr()?);
        tokio::spawn(async move { axum::serve(listener, router).await });

        let pair = generate_simple_self_signed(["localhost".to_owned()])?;
        let tls = server_config(&pair.cert.pem(), &pair.signing_key.serialize_pem(), None)?;
        let proxy = Proxy::between(tls, Config::new(server.parse()?)).await?;
        let mut config = Config::new(proxy.url().parse()?);
        config.accept_invalid_certs = true;
        config.default_retry = false;
        Ok(Self { tiny, proxy, client: Client::try_from(config)? })
    }

    async fn patch(&self, name: &str) -> Result<String, kube::Error> {
        let request = Request::patch(format!("{SETS}/{name}")).body(b"{}".to_vec()).map_err(kube::Error::HttpError)?;
        self.client.request_text(request).await
    }

    async fn list(&self) -> Result<String, kube::Error> {
        let request = Request::get(SETS).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.client.request_text(request).await
    }

    /// A watch that has begun: the server sees it.
    async fn watch(&self) -> Result<impl futures::Stream<Item = std::io::Result<String>> + Unpin + use<>> {
        let before = self.tiny.events.receiver_count();
        let request = Request::get(format!("{PODS}?watch=true")).body(Vec::new())?;
        let lines = self.client.request_stream(request).await?.lines();
        while self.tiny.events.receiver_count() == before {
            tokio::task::yield_now().await;
        }
        Ok(lines)
    }

    fn event(&self, text: &str) -> Result<()> {
        self.tiny.events.send(format!("{text}\n"))?;
        Ok(())
    }

    fn writes(&self) -> usize {
        self.tiny.writes.load(Ordering::SeqCst)
    }
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

#[tokio::test]
async fn answers_are_for_what_a_rule_matches_and_for_so_many_calls() -> Result<()> {
    let ground = Ground::start().await?;
    let calls = Match::writes().resource("replicasets").namespace("shop").name("web-*");
    let rule = ground.proxy.set(Rule::new(calls, Answer::unavailable().retry_after(3)).times(2));
    ground.patch("db-1").await?;
    ground.list().await?;
    for _ in 0..2 {
        let refused = ground.patch("web-1").await.expect_err("a planted 503");
        ensure!(code(&refused) == 503, "{refused}");
    }
    ground.patch("web-1").await?;
    ensure!(ground.writes() == 2 && rule.hits() == 2, "{} writes, {} hits", ground.writes(), rule.hits());

    let passed = ground.proxy.passed();
    let tries: Vec<_> = passed.iter().filter(|passed| passed.call.name == "web-1").collect();
    let seen: Vec<_> = tries.iter().map(|passed| (passed.attempt, passed.outcome)).collect();
    ensure!(seen == [(1, Outcome::Planted(503)), (2, Outcome::Planted(503)), (3, Outcome::Forwarded(200))], "{seen:?}");
    ensure!(tries[0].call.verb == Verb::Patch && tries[0].call.resource == "replicasets", "{:?}", tries[0]);
    // A planted answer is as good as the server's, header and all.
    ground.proxy.set(Rule::new(Match::verb(Verb::List), Answer::unavailable().retry_after(3)));
    let request = Request::get(SETS).body(kube::client::Body::empty())?;
    let answer = ground.client.send(request).await?;
    ensure!(answer.headers()["retry-after"] == "3", "{:?}", answer.headers());
    Ok(())
}

#[tokio::test]
async fn a_foreign_text_and_an_old_list_are_served() -> Result<()> {
    let ground = Ground::start().await?;
    let rule = ground.proxy.set(Rule::new(Match::verb(Verb::List), Answer::text(StatusCode::BAD_GATEWAY, "<html>")));
    ensure!(ground.list().await.is_err());
    ground.proxy.clear(&rule);
    ground.proxy.set(Rule::new(Match::verb(Verb::List), Answer::of_now(&ground.client, SETS).await?));
    ensure!(ground.list().await? == r#"{"items":[]}"#);
    Ok(())
}

#[tokio::test]
async fn the_last_write_is_carried_out_and_no_other_passes() -> Result<()> {
    let ground = Ground::start().await?;
    let shut = ground.proxy.shut_after(2);
    ground.patch("a").await?;
    let last = timeout(SILENT_FOR, ground.patch("b")).await;
    ensure!(last.is_err(), "no answer: {last:?}");
    shut.hit().await;
    ensure!(ground.writes() == 2);
    let later = timeout(SILENT_FOR, ground.patch("c")).await;
    ensure!(later.is_err() && ground.writes() == 2, "{later:?}");
    timeout(SOON, ground.list()).await??;
    ground.proxy.clear(&shut);
    timeout(SOON, ground.patch("d")).await??;
    ensure!(ground.writes() == 3);
    Ok(())
}

#[tokio::test]
async fn a_write_is_cut_before_or_after_the_server() -> Result<()> {
    let ground = Ground::start().await?;
    let before = ground.proxy.set(Rule::new(Match::writes(), Fault::Reset).nth(1));
    ensure!(ground.patch("a").await.is_err());
    ensure!(ground.writes() == 0 && before.hits() == 1);
    ground.proxy.clear(&before);
    ground.proxy.set(Rule::new(Match::writes(), Fault::LoseAnswer).nth(2));
    ground.patch("a").await?;
    let lost = timeout(SOON, ground.patch("a")).await?;
    ensure!(lost.is_err() && ground.writes() == 2, "{lost:?}");
    ground.patch("a").await?;
    Ok(())
}

#[tokio::test]
async fn a_held_call_is_given_up_or_reset() -> Result<()> {
    let ground = Ground::start().await?;
    let rule = ground.proxy.set(Rule::new(Match::writes(), Fault::Hold));
    let waits = timeout(SILENT_FOR, ground.patch("a")).await;
    ensure!(waits.is_err(), "{waits:?}");
    // The client has hung up.
    timeout(SOON, async {
        while !ground.proxy.passed().iter().any(|passed| passed.outcome == Outcome::GivenUp) {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await?;
    let (held, ()) = tokio::join!(timeout(SOON, ground.patch("b")), async {
        while rule.hits() < 2 {
            tokio::task::yield_now().await;
        }
        ground.proxy.clear(&rule);
    });
    ensure!(held?.is_err() && ground.writes() == 0);
    let delay = Duration::from_millis(200);
    ground.proxy.set(Rule::new(Match::writes(), Fault::Delay(delay)));
    let begun = Instant::now();
    ground.patch("c").await?;
    ensure!(begun.elapsed() >= delay);
    Ok(())
}

#[tokio::test]
async fn all_is_silent_and_goes_on() -> Result<()> {
    let ground = Ground::start().await?;
    let mut watch = ground.watch().await?;
    let rule = ground.proxy.set(Rule::new(Match::all(), Fault::Silence));
    ground.event("one")?;
    ensure!(timeout(SILENT_FOR, watch.next()).await.is_err());
    // New connections are silent, too.
    let waits = timeout(SILENT_FOR, ground.list()).await;
    ensure!(waits.is_err(), "{waits:?}");
    ensure!(ground.proxy.passed().iter().all(|passed| passed.call.verb == Verb::Watch));
    ground.proxy.clear(&rule);
    let event = timeout(SOON, watch.next()).await?;
    ensure!(event.is_some_and(|event| event.is_ok_and(|event| event == "one")));
    timeout(SOON, ground.list()).await??;
    Ok(())
}

#[tokio::test]
async fn one_watch_is_silent_and_the_rest_passes() -> Result<()> {
    let ground = Ground::start().await?;
    let mut watch = ground.watch().await?;
    let rule = ground.proxy.set(Rule::new(Match::watch("pods"), Fault::Silence));
    ground.event("one")?;
    ensure!(timeout(SILENT_FOR, watch.next()).await.is_err());
    ground.patch("a").await?;
    // Nor does a new one begin.
    let request = Request::get(format!("{PODS}?watch=true")).body(Vec::new())?;
    ensure!(timeout(SILENT_FOR, ground.client.request_stream(request)).await.is_err());
    ensure!(rule.hits() == 2, "{} hits", rule.hits());
    ground.proxy.clear(&rule);
    ensure!(timeout(SOON, watch.next()).await?.is_some_and(|event| event.is_ok()));
    Ok(())
}

#[tokio::test]
async fn open_connections_are_silent_and_new_ones_work() -> Result<()> {
    let ground = Ground::start().await?;
    let mut watch = ground.watch().await?;
    ground.list().await?;
    let rule = ground.proxy.set(Rule::new(Match::all(), Fault::SilenceOpen));
    ground.event("one")?;
    ensure!(timeout(SILENT_FOR, watch.next()).await.is_err());
    // The client's pool has one that is silent; what comes after it is new.
    let first = timeout(SILENT_FOR, ground.list()).await;
    ensure!(first.is_err(), "{first:?}");
    timeout(SOON, ground.list()).await??;
    ensure!(rule.hits() == 2, "{} hits", rule.hits());
    Ok(())
}

#[tokio::test]
async fn events_are_frozen_late_or_ended_by_410() -> Result<()> {
    let ground = Ground::start().await?;
    let mut watch = ground.watch().await?;
    ground.event("one")?;
    ensure!(timeout(SOON, watch.next()).await?.is_some_and(|event| event.is_ok_and(|event| event == "one")));
    let rule = ground.proxy.set(Rule::new(Match::watch("pods"), Fault::Freeze));
    for event in ["two", "three"] {
        ground.event(event)?;
    }
    ensure!(timeout(SILENT_FOR, watch.next()).await.is_err());
    ground.proxy.clear(&rule);
    for expected in ["two", "three"] {
        ensure!(timeout(SOON, watch.next()).await?.is_some_and(|event| event.is_ok_and(|event| event == expected)));
    }
    let late = Duration::from_millis(200);
    let rule = ground.proxy.set(Rule::new(Match::watch("pods"), Fault::Late(late)));
    let sent = Instant::now();
    ground.event("four")?;
    ensure!(timeout(SOON, watch.next()).await?.is_some_and(|event| event.is_ok()));
    ensure!(sent.elapsed() >= late, "{:?}", sent.elapsed());
    ground.proxy.clear(&rule);
    ground.proxy.set(Rule::new(Match::watch("pods"), Fault::Gone));
    let gone = timeout(SOON, watch.next()).await?;
    ensure!(gone.is_some_and(|event| event.is_ok_and(|event| event.contains("\"code\":410"))));
    ensure!(timeout(SOON, watch.next()).await?.is_none(), "it ends");
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_down_resets_all() -> Result<()> {
    let ground = Ground::start().await?;
    let mut watch = ground.watch().await?;
    let rule = ground.proxy.set(Rule::new(Match::all(), Fault::Reset));
    let end = timeout(SOON, watch.next()).await?;
    ensure!(end.is_none_or(|event| event.is_err()));
    let refused = timeout(SOON, ground.list()).await?;
    ensure!(refused.is_err(), "{refused:?}");
    timeout(SOON, async {
        while ground.proxy.open_connections() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await?;
    ground.proxy.clear(&rule);
    timeout(SOON, ground.list()).await??;
    Ok(())
}
