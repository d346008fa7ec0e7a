//! The client against a server that hangs, resets, refuses, and is not the API server at all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use catamaran_controller::client::{Limits, Unanswered, connect_within, retry_after, unanswered};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, WatchParams},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const LIMITS: Limits = Limits {
    connect: Duration::from_millis(300),
    answer: Duration::from_millis(600),
    silence: Duration::from_millis(900),
    pause: Duration::from_millis(10),
};

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Does {
    /// Answers with this text, byte for byte.
    Says(&'static str),
    /// Says this and nothing more, and keeps the connection.
    SaysAndHangs(&'static str),
    /// Closes the connection.
    Resets,
}

const FOUND: Does = Does::Says(
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 58\r\n\r\n\
     {\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{},\"a\":0}",
);
const HANGS: Does = Does::SaysAndHangs("");

/// A server that does one after the other, and the last for ever; and how many requests came.
async fn server(does: &'static [Does]) -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, does, count.clone()));
        }
    });
    let url = format!("http://{address}").parse().expect("a URL");
    (connect_within(Config::new(url), LIMITS).expect("a client"), requests)
}

async fn serve(mut stream: TcpStream, does: &'static [Does], count: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(length) if length > 0 => head.extend_from_slice(&buffer[..length]),
            Ok(_) | Err(_) => return,
        }
    }
    let nth = count.fetch_add(1, Ordering::SeqCst);
    match does[nth.min(does.len() - 1)] {
        Does::Says(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Does::SaysAndHangs(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            // Until the client closes it.
            while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
        }
        Does::Resets => {}
    }
}

fn api(client: Client) -> Api<ConfigMap> {
    Api::namespaced(client, "shop")
}

async fn write(client: Client) -> kube::Result<ConfigMap> {
    api(client).patch("a", &PatchParams::default(), &Patch::Merge(serde_json::json!({}))).await
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_an_error_in_time() {
    for does in [&[HANGS][..], &[Does::SaysAndHangs("HTTP/1.1 200 OK\r\nContent-Length: 58\r\n\r\n{\"kind\"")]] {
        let (client, requests) = server(does).await;
        let begun = Instant::now();
        let error = api(client.clone()).get("a").await.expect_err("no answer");
        assert!(matches!(unanswered(&error), Some(Unanswered::Late(limit)) if *limit == LIMITS.answer), "{error:?}");
        assert!(begun.elapsed() >= LIMITS.answer, "{:?}", begun.elapsed());
        let error = write(client).await.expect_err("no answer");
        assert!(matches!(unanswered(&error), Some(Unanswered::Late(_))), "{error:?}");
        assert_eq!(requests.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn a_server_that_takes_no_connection_is_an_error_in_time() {
    // One that listens and never accepts: with TLS, the handshake hangs.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
    let client = connect_within(Config::new(url), LIMITS).expect("a client");
    let begun = Instant::now();
    write(client).await.expect_err("no connection");
    assert!(begun.elapsed() >= LIMITS.connect && begun.elapsed() < LIMITS.answer, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_read_is_repeated_once_and_a_write_never() {
    let busy = Does::Says("HTTP/1.1 503 Service Unavailable\r\nAudit-Id: a\r\nContent-Length: 4\r\n\r\nbusy");
    for first in [Does::Resets, busy] {
        let does: &'static [Does] = Vec::leak(vec![first, FOUND]);
        let (client, requests) = server(does).await;
        api(client).get("a").await.expect("found by the second request");
        assert_eq!(requests.load(Ordering::SeqCst), 2);
        let (client, requests) = server(does).await;
        write(client).await.expect_err("refused");
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }
    let (client, requests) =
        server(&[Does::Says("HTTP/1.1 503 Busy\r\nAudit-Id: a\r\nContent-Length: 0\r\n\r\n")]).await;
    api(client).get("a").await.expect_err("refused twice");
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn when_to_ask_again_reaches_the_caller() {
    // As priority and fairness says it: plain text and a header.
    const PLAIN: &str =
        "HTTP/1.1 429 Too Many Requests\r\nAudit-Id: a\r\nRetry-After: 7\r\nContent-Length: 8\r\n\r\nTOO MANY";
    const STATUS: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 70\r\n\r\n\
         {\"kind\":\"Status\",\"status\":\"Failure\",\"code\":503,\"message\":\"overloaded\"}";
    for (text, code, message) in [(PLAIN, 429, "TOO MANY"), (STATUS, 503, "overloaded")] {
        let (client, requests) = server(Vec::leak(vec![Does::Says(text)])).await;
        for error in
            [api(client.clone()).get("a").await.expect_err("refused"), write(client).await.expect_err("refused")]
        {
            assert_eq!(retry_after(&error), Some(Duration::from_secs(7)), "{error:?}");
            let kube::Error::Api(status) = error else { panic!("{error:?}") };
            assert_eq!((status.code, status.message.as_str()), (code, message));
        }
        assert_eq!(requests.load(Ordering::SeqCst), 2, "not asked again before that time");
    }
}

#[tokio::test]
async fn an_answer_of_a_proxy_is_not_taken_for_the_api_servers() {
    const PROXY: &str =
        "HTTP/1.1 403 Forbidden\r\nServer: squid/6\r\nRetry-After: 5\r\nContent-Length: 13\r\n\r\n<html> denied";
    let (client, _) = server(&[Does::Says(PROXY)]).await;
    let error = api(client).get("a").await.expect_err("refused");
    let expected = "403 Forbidden from squid/6 between here and the API server, not from the API server: <html> denied";
    assert_eq!(unanswered(&error).map(ToString::to_string).as_deref(), Some(expected), "{error:?}");
    assert_eq!(retry_after(&error), Some(Duration::from_secs(5)));
    // A path that it does not serve the API server answers in plain text as well.
    let (client, _) =
        server(&[Does::Says("HTTP/1.1 404 Not Found\r\nAudit-Id: a\r\nContent-Length: 18\r\n\r\n404 page not found")])
            .await;
    let error = api(client).get("a").await.expect_err("not served");
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 404), "{error:?}");
}

#[tokio::test]
async fn a_watch_outlives_the_deadline_of_answers_and_ends_when_it_falls_silent() {
    const EVENT: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         57\r\n{\"type\":\"ADDED\",\"object\":{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":1}}}\n\r\n";
    // The name is no text, which is an error of one event and not of the stream.
    let (client, requests) = server(&[Does::SaysAndHangs(EVENT)]).await;
    let begun = Instant::now();
    let stream = api(client).watch(&WatchParams::default(), "1").await.expect("a watch");
    let items: Vec<_> = stream.collect().await;
    let errors: Vec<String> = items.iter().filter_map(|item| Some(item.as_ref().err()?.to_string())).collect();
    assert!(begun.elapsed() >= LIMITS.silence && LIMITS.silence > LIMITS.answer, "{:?} {errors:?}", begun.elapsed());
    assert!(errors.last().is_some_and(|error| error.contains("silent for 0.9 s")), "{errors:?}");
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    let (client, _) = server(&[HANGS]).await;
    let begun = Instant::now();
    let started = api(client).watch(&WatchParams::default(), "1").await;
    assert!(started.is_err_and(|error| matches!(unanswered(&error), Some(Unanswered::Late(_)))));
    assert!(begun.elapsed() < LIMITS.silence);
}
