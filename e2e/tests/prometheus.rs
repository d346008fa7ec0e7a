//! The operator's Prometheus client against servers of all kinds on the loopback address. Secrets come from a stand-in
//! for the API server that knows nothing else.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderMap, Response, StatusCode, header},
    response::IntoResponse,
};
use catamaran_autoscale::samples::{NoSamples, Samples};
use catamaran_e2e::tls::{TlsListener, server_config};
use catamaran_operator::{
    sources::{Answer, KeyOf, Metric, PrometheusMetric, Sources, prometheus::PrometheusSettings},
    stores::WorkloadKey,
};
use futures::stream;
use k8s_openapi::ByteString;
use kube::Client;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};

const NAMESPACE: &str = "shop";
const TOKEN: &str = "t0ps3cr3t-bearer";
const ONE: &str =
    r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1435781451.781,"1.5"]}]}}"#;

/// Objects by path, as an API server would give them.
type Objects = Arc<Mutex<BTreeMap<String, serde_json::Value>>>;

/// A certificate authority and a certificate of it for `localhost` and 127.0.0.1.
struct Keys {
    authority: String,
    certificate: String,
    key: String,
}

fn keys() -> Result<Keys> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?.signed_by(&key, &authority)?;
    Ok(Keys { authority: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A server that notes what it is asked.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<(HeaderMap, String)>>>,
}

impl Server {
    async fn start<A, F>(keys: Option<&Keys>, answer: F) -> Result<Self>
    where
        A: IntoResponse,
        F: Fn(&HeaderMap) -> A + Clone + Send + Sync + 'static,
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        let router = Router::new().fallback(move |request: Request| {
            let (noted, answer) = (noted.clone(), answer.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
                let line = format!("{} {} {}", head.method, head.uri, String::from_utf8_lossy(&body));
                noted.lock().unwrap_or_else(PoisonError::into_inner).push((head.headers.clone(), line));
                answer(&head.headers).into_response()
            }
        });
        let url = match keys {
            Some(keys) => {
                let listener = TlsListener::bind(server_config(&keys.certificate, &keys.key, None)?).await?;
                let url = format!("https://localhost:{}", listener.port());
                tokio::spawn(async move { axum::serve(listener, router).await });
                url
            }
            None => {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                let url = format!("http://{}", listener.local_addr()?);
                tokio::spawn(async move { axum::serve(listener, router).await });
                url
            }
        };
        Ok(Self { url, seen })
    }

    fn seen(&self) -> Vec<(HeaderMap, String)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The loopback address is opened, as an administrator may.
fn loopback() -> PrometheusSettings {
    PrometheusSettings {
        allowed_addresses: ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("a network")).into(),
        ..PrometheusSettings::default()
    }
}

/// The operator's sources, with a stand-in for the API server.
struct Bench {
    sources: Sources,
    objects: Objects,
    workload: WorkloadKey,
}

impl Bench {
    /// That asks every second.
    fn start() -> Self {
        Self::with(loopback())
    }

    fn with(settings: PrometheusSettings) -> Self {
        Self::every(Duration::from_secs(1), settings)
    }

    /// That asks at an interval.
    fn every(interval: Duration, settings: PrometheusSettings) -> Self {
        let objects = Objects::default();
        let served = objects.clone();
        let api_server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let found = served.lock().unwrap_or_else(PoisonError::into_inner).get(request.uri().path()).cloned();
            let (code, body) = match found {
                Some(object) => (200, object),
                None => (404, json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})),
            };
            let response = http::Response::builder().status(code).body(body.to_string());
            std::future::ready(response)
        });
        let sources = Sources::new(Client::new(api_server, NAMESPACE), settings).every(interval);
        let running = sources.clone();
        tokio::spawn(async move { running.run().await });
        let workload = WorkloadKey { namespace: NAMESPACE.to_owned(), name: "web".to_owned() };
        Self { sources, objects, workload }
    }

    fn store(&self, name: &str, data: &[(&str, &str)]) {
        let encode = |value: &str| ByteString(value.as_bytes().to_vec());
        let data: BTreeMap<&str, ByteString> = data.iter().map(|(key, value)| (*key, encode(value))).collect();
        let object = json!({"metadata": {"name": name, "namespace": NAMESPACE}, "data": data});
        let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}");
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).insert(path, object);
    }

    /// The next answer to a query.
    async fn ask(&self, metric: PrometheusMetric) -> Result<Answer> {
        self.sources.want(&self.workload, vec![Metric::Prometheus(metric)]);
        self.next().await
    }

    async fn next(&self) -> Result<Answer> {
        let workload = timeout(Duration::from_secs(20), self.sources.arrival()).await.context("no answer")?;
        ensure!(workload == self.workload);
        self.sources.answers(&workload).into_iter().next().context("an answer to the query")
    }

    /// The words of the failure of a query.
    async fn failure(&self, metric: PrometheusMetric) -> Result<String> {
        match self.ask(metric).await?.result {
            Err(NoSamples(why)) => Ok(why),
            Ok(samples) => anyhow::bail!("{samples:?}"),
        }
    }
}

fn query(url: &str) -> PrometheusMetric {
    PrometheusMetric { url: url.to_owned(), query: "sum(rate(x[1m]))".to_owned(), ca: None, bearer_token: None }
}

fn key(name: &str, key: &str) -> KeyOf {
    KeyOf { name: name.to_owned(), key: key.to_owned() }
}

#[tokio::test]
async fn a_value_comes_by_tls_with_a_token() -> Result<()> {
    let (keys, bench) = (keys()?, Bench::start());
    let server = Server::start(Some(&keys), |_| ONE).await?;
    bench.store("prometheus-ca", &[("ca.crt", &keys.authority)]);
    bench.store("prometheus", &[("token", &format!("{TOKEN}\n"))]);
    let metric = PrometheusMetric {
        ca: Some(key("prometheus-ca", "ca.crt")),
        bearer_token: Some(key("prometheus", "token")),
        ..query(&format!("{}/mimir/", server.url))
    };
    let answer = bench.ask(metric).await?;
    assert_eq!(answer.result, Ok(Samples::Value(1500)));
    assert!(answer.arrived.is_some());

    let seen = server.seen();
    let (headers, line) = seen.first().context("a request")?;
    assert_eq!(line, "POST /mimir/api/v1/query query=sum%28rate%28x%5B1m%5D%29%29");
    assert_eq!(headers[header::AUTHORIZATION], format!("Bearer {TOKEN}").as_str());
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-www-form-urlencoded");
    assert!(headers[header::USER_AGENT].to_str()?.starts_with("catamaran-operator/"));
    Ok(())
}

#[tokio::test]
async fn a_server_of_another_authority_gets_no_token() -> Result<()> {
    let (own, other, bench) = (keys()?, keys()?, Bench::start());
    let server = Server::start(Some(&own), |_| ONE).await?;
    bench.store("prometheus", &[("token", TOKEN), ("other.crt", &other.authority)]);
    let with_token = PrometheusMetric { bearer_token: Some(key("prometheus", "token")), ..query(&server.url) };
    let other = PrometheusMetric { ca: Some(key("prometheus", "other.crt")), ..with_token.clone() };
    let told = bench.failure(other).await?;
    assert!(
        told.starts_with("unable to fetch the metric from Prometheus: ") && told.contains("invalid peer certificate"),
        "{told}"
    );
    // Without a bundle it is up to the authorities of this host, if it has any.
    let told = bench.failure(with_token).await?;
    assert!(told.contains("invalid peer certificate") || told.contains("trusts no certificate authority"), "{told}");
    assert!(server.seen().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_rotated_token_is_read_after_a_refusal() -> Result<()> {
    let bench = Bench::start();
    let server = Server::start(None, |headers: &HeaderMap| {
        let right = headers.get(header::AUTHORIZATION).is_some_and(|sent| sent == format!("Bearer {TOKEN}").as_str());
        if right { (StatusCode::OK, ONE) } else { (StatusCode::UNAUTHORIZED, "who are you?") }
    })
    .await?;
    bench.store("prometheus", &[("token", "outdated-t0ken")]);
    let metric = PrometheusMetric { bearer_token: Some(key("prometheus", "token")), ..query(&server.url) };
    let told = bench.failure(metric).await?;
    assert_eq!(told, "unable to fetch the metric from Prometheus: the server refuses access: 401 Unauthorized");
    bench.store("prometheus", &[("token", TOKEN)]);
    assert_eq!(bench.next().await?.result, Ok(Samples::Value(1500)));
    Ok(())
}

#[tokio::test]
async fn what_is_referred_to_must_be_there() -> Result<()> {
    let bench = Bench::start();
    let server = Server::start(None, |_| ONE).await?;
    bench.store("prometheus", &[("token", "two\nlines")]);
    bench.store("ca", &[("ca.crt", "no certificate")]);
    let token = |name: &str, name_of_key: &str| PrometheusMetric {
        bearer_token: Some(key(name, name_of_key)),
        ..query(&server.url)
    };
    let ca = |name: &str| PrometheusMetric { ca: Some(key(name, "ca.crt")), ..query(&server.url) };
    for (metric, expected) in [
        (token("absent", "token"), "the Secret shop/absent: there is none"),
        (token("prometheus", "absent"), "the Secret shop/prometheus: it has no key \"absent\""),
        (
            token("prometheus", "token"),
            "unable to fetch the metric from Prometheus: the bearer token holds characters that no token may hold",
        ),
        (ca("absent"), "the Secret shop/absent: there is none"),
        (
            ca("ca"),
            "unable to fetch the metric from Prometheus: the CA bundle cannot be used: it holds no certificate in PEM",
        ),
    ] {
        assert_eq!(bench.failure(metric).await?, expected);
    }
    assert!(server.seen().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_not_followed() -> Result<()> {
    let bench = Bench::start();
    let other = Server::start(None, |_| ONE).await?;
    let to = other.url.clone();
    let server = Server::start(None, move |_| {
        (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, format!("{to}/api/v1/query?code=1"))], "")
    })
    .await?;
    bench.store("prometheus", &[("token", TOKEN)]);
    let metric = PrometheusMetric { bearer_token: Some(key("prometheus", "token")), ..query(&server.url) };
    assert_eq!(
        bench.failure(metric).await?,
        format!(
            "unable to fetch the metric from Prometheus: the server answered 307 Temporary Redirect to {}/api/v1/query, which is not followed: name the final URL",
            other.url
        )
    );
    assert_eq!((server.seen().len(), other.seen().len()), (1, 0));
    Ok(())
}

#[tokio::test]
async fn a_slow_server_is_left_and_an_endless_answer_is_cut() -> Result<()> {
    let bench = Bench::start();
    // One that accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", silent.local_addr()?);
    assert_eq!(bench.failure(query(&url)).await?, format!("{url} gave no answer within 1 s"));

    let endless = Server::start(None, |_| {
        Response::new(Body::from_stream(stream::repeat_with(|| {
            Ok::<_, io::Error>(Bytes::from_static(&[b' '; 1 << 14]))
        })))
    })
    .await?;
    assert_eq!(
        bench.failure(query(&endless.url)).await?,
        "unable to fetch the metric from Prometheus: the answer is longer than 1024 KiB"
    );
    Ok(())
}

#[tokio::test]
async fn answers_without_one_number_are_told() -> Result<()> {
    let bench = Bench::start();
    for (code, body, expected) in [
        (
            200,
            r#"{"status":"success","data":{"resultType":"scalar","result":[1,"NaN"]}}"#,
            "the value is NaN, which nothing can be computed with",
        ),
        (200, r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#, "the query gives no series"),
        (
            200,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]},{"metric":{},"value":[1,"2"]}]}}"#,
            "the query gives 2 series; give one, for example by sum()",
        ),
        (
            400,
            r#"{"status":"error","errorType":"bad_data","error":"1:4: parse error"}"#,
            "Prometheus refuses the query: bad_data: 1:4: parse error",
        ),
        (502, "<html>", "the server answered 502 Bad Gateway, not as Prometheus does"),
    ] {
        let server = Server::start(None, move |_| (StatusCode::from_u16(code).expect("a code"), body)).await?;
        let told = bench.failure(query(&server.url)).await?;
        assert_eq!(told, format!("unable to fetch the metric from Prometheus: {expected}"));
    }
    Ok(())
}

#[tokio::test]
async fn the_operators_own_host_is_not_asked_under_any_name() -> Result<()> {
    let server = Server::start(None, |_| ONE).await?;
    let port = server.url.rsplit(':').next().context("a port")?;
    // 2130706433 is 127.0.0.1 to a resolver.
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1", "0.0.0.0"] {
        // The same server under another name is the same question, whose answer would be known.
        let bench = Bench::with(PrometheusSettings::default());
        let told = bench.failure(query(&format!("http://{host}:{port}"))).await?;
        assert!(told.contains("the operator is not allowed to query"), "{host}: {told}");
    }
    assert!(server.seen().is_empty());

    // An administrator may also name the only URLs.
    let bench = Bench::with(PrometheusSettings {
        allowed_urls: vec![format!("http://localhost:{port}").parse()?],
        allowed_addresses: vec!["127.0.0.0/8".parse()?],
    });
    assert_eq!(bench.ask(query(&format!("http://localhost:{port}"))).await?.result, Ok(Samples::Value(1500)));
    let told = bench.failure(query(&server.url)).await?;
    assert!(told.contains("--prometheus-allowed-urls"), "{told}");
    Ok(())
}

#[tokio::test]
async fn workloads_with_the_same_question_share_the_answer() -> Result<()> {
    let bench = Bench::every(Duration::from_secs(3600), loopback());
    let server = Server::start(None, |_| ONE).await?;
    let workload = |number| WorkloadKey { namespace: NAMESPACE.to_owned(), name: format!("web-{number}") };
    let metric = Metric::Prometheus(query(&server.url));
    for number in 0..50 {
        bench.sources.want(&workload(number), vec![metric.clone()]);
    }
    let mut heard = Vec::new();
    for _ in 0..50 {
        heard.push(timeout(Duration::from_secs(20), bench.sources.arrival()).await?);
    }
    heard.sort();
    heard.dedup();
    assert_eq!(heard.len(), 50);
    assert!(heard.iter().all(|workload| bench.sources.answers(workload)[0].result == Ok(Samples::Value(1500))));
    assert_eq!(server.seen().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_server_that_lets_everybody_wait_keeps_nobody_from_others() -> Result<()> {
    let bench = Bench::every(Duration::from_secs(15), loopback());
    let server = Server::start(None, |_| ONE).await?;
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", silent.local_addr()?);
    let slow = |number| Metric::Prometheus(PrometheusMetric { query: format!("vector({number})"), ..query(&url) });
    for tenant in [NAMESPACE, "b", "c", "d", "e"] {
        let waiting = WorkloadKey { namespace: tenant.to_owned(), name: "waiting".to_owned() };
        bench.sources.want(&waiting, (0..200).map(slow).collect());
    }
    bench.sources.want(&bench.workload, vec![Metric::Prometheus(query(&server.url))]);
    // The silent one is given up after 10 s.
    let first = timeout(Duration::from_secs(5), bench.sources.arrival()).await.context("no answer")?;
    assert_eq!(first, bench.workload);
    // And it has only a few connections to be silent on.
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(timeout(Duration::from_secs(5), silent.accept()).await.context("a connection")??);
    }
    assert!(timeout(Duration::from_millis(200), silent.accept()).await.is_err(), "a ninth connection");
    Ok(())
}

#[tokio::test]
async fn a_thousand_queries_of_a_tenant_do_not_delay_another_one() -> Result<()> {
    let bench = Bench::every(Duration::from_secs(3600), loopback());
    // Each answer takes 50 ms: a thousand, two at once, take 25 s.
    let seen = Arc::new(Mutex::new(0));
    let count = seen.clone();
    let router = Router::new().fallback(move || {
        let count = count.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            ONE
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let numbered = |number| Metric::Prometheus(PrometheusMetric { query: format!("vector({number})"), ..query(&url) });
    let workload = |namespace: &str| WorkloadKey { namespace: namespace.to_owned(), name: "web".to_owned() };
    bench.sources.want(&workload("greedy"), (0..1000).map(numbered).collect());
    bench.sources.want(&workload("modest"), vec![numbered(0)]);
    loop {
        let heard = timeout(Duration::from_secs(20), bench.sources.arrival()).await.context("no answer")?;
        if heard == workload("modest") {
            break;
        }
    }
    let before = *seen.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(before < 20, "{before} answers came before it");
    Ok(())
}

/// All that is logged in this process, at the most verbose level, with the logs of the TLS and HTTP libraries.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_logged() -> Result<()> {
    let logged = Logged::default();
    let writer = logged.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let (keys, bench) = (keys()?, Bench::start());
    let server = Server::start(Some(&keys), |_| (StatusCode::FORBIDDEN, "")).await?;
    bench.store("prometheus", &[("token", "n3v3r-l0gged"), ("ca.crt", &keys.authority)]);
    let metric = PrometheusMetric {
        ca: Some(key("prometheus", "ca.crt")),
        bearer_token: Some(key("prometheus", "token")),
        ..query(&server.url)
    };
    let told = bench.failure(metric).await?;
    assert!(!told.contains("n3v3r-l0gged"), "{told}");
    assert_eq!(server.seen()[0].0[header::AUTHORIZATION], "Bearer n3v3r-l0gged");
    let text = String::from_utf8(logged.0.lock().unwrap_or_else(PoisonError::into_inner).clone())?;
    assert!(text.contains("rustls"), "the logs of libraries are here");
    let encoded = serde_json::to_string(&ByteString(b"n3v3r-l0gged".to_vec()))?;
    for secret in ["n3v3r-l0gged", encoded.trim_matches('"')] {
        assert!(!text.contains(secret), "{secret} is in the logs");
    }
    Ok(())
}
