//! Requests: what hangs, resets, refuses, and is not the API server at all.

use std::time::{Duration, Instant};

use catamaran_controller::client::{Unanswered, connect_within, retry_after, unanswered};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, WatchParams},
};
use tokio::net::TcpListener;

use crate::server::{Does, HANGS, LIMITS, Server, answer, found, stream};

fn api(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "shop")
}

async fn write(client: &Client) -> kube::Result<ConfigMap> {
    api(client).patch("a", &PatchParams::default(), &Patch::Merge(serde_json::json!({}))).await
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_an_error_in_time() {
    for does in [HANGS, Does::SaysAndHangs("HTTP/1.1 200 OK\r\nContent-Length: 58\r\n\r\n{\"kind\"".to_owned())] {
        let server = Server::start(vec![does]).await;
        let begun = Instant::now();
        let error = api(&server.client).get("a").await.expect_err("no answer");
        assert!(matches!(unanswered(&error), Some(Unanswered::Late(limit)) if *limit == LIMITS.answer), "{error:?}");
        assert!(begun.elapsed() >= LIMITS.answer, "{:?}", begun.elapsed());
        let error = write(&server.client).await.expect_err("no answer");
        assert!(matches!(unanswered(&error), Some(Unanswered::Late(_))), "{error:?}");
        assert_eq!(server.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_server_that_takes_no_connection_is_an_error_in_time() {
    // One that listens and never accepts: with TLS, the handshake hangs.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
    let client = connect_within(Config::new(url), LIMITS).expect("a client");
    let begun = Instant::now();
    let error = write(&client).await.expect_err("no connection");
    assert!(begun.elapsed() >= LIMITS.connect, "{:?}", begun.elapsed());
    // The connection's own limit, not that of the answer.
    assert!(unanswered(&error).is_none(), "{error:?}");
}

#[tokio::test]
async fn a_read_is_repeated_once_and_a_write_never() {
    for first in [Does::Resets, answer("503 Service Unavailable\nAudit-Id: a", "busy")] {
        let server = Server::start(vec![first.clone(), found()]).await;
        api(&server.client).get("a").await.expect("found by the second request");
        assert_eq!(server.requests().len(), 2);
        let server = Server::start(vec![first, found()]).await;
        write(&server.client).await.expect_err("refused");
        assert_eq!(server.requests().len(), 1);
    }
    let server = Server::start(vec![answer("503 Service Unavailable\nAudit-Id: a", "busy")]).await;
    api(&server.client).get("a").await.expect_err("refused twice");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn when_to_ask_again_reaches_the_caller() {
    let status = r#"{"kind":"Status","status":"Failure","code":503,"message":"overloaded"}"#;
    for (does, code, message) in [
        // As priority and fairness says it: plain text and a header.
        (answer("429 Too Many Requests\nAudit-Id: a\nRetry-After: 7", "TOO MANY"), 429, "TOO MANY"),
        (answer("503 Service Unavailable\nRetry-After: 7", status), 503, "overloaded"),
    ] {
        let server = Server::start(vec![does]).await;
        let read = api(&server.client).get("a").await.expect_err("refused");
        for error in [read, write(&server.client).await.expect_err("refused")] {
            assert_eq!(retry_after(&error), Some(Duration::from_secs(7)), "{error:?}");
            let kube::Error::Api(status) = error else { panic!("{error:?}") };
            assert_eq!((status.code, status.message.as_str()), (code, message));
        }
        assert_eq!(server.requests().len(), 2, "not asked again before that time");
    }
}

#[tokio::test]
async fn an_answer_of_a_proxy_is_not_taken_for_the_api_servers() {
    let server = Server::start(vec![answer("403 Forbidden\nServer: squid/6\nRetry-After: 5", "<html> denied")]).await;
    let error = api(&server.client).get("a").await.expect_err("refused");
    let expected = "403 Forbidden from squid/6 between here and the API server, not from the API server: <html> denied";
    assert_eq!(unanswered(&error).map(ToString::to_string).as_deref(), Some(expected), "{error:?}");
    assert_eq!(retry_after(&error), Some(Duration::from_secs(5)));
    // A path that it does not serve the API server answers in plain text as well.
    let server = Server::start(vec![answer("404 Not Found\nAudit-Id: a", "404 page not found")]).await;
    let error = api(&server.client).get("a").await.expect_err("not served");
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 404), "{error:?}");
}

#[tokio::test]
async fn a_watch_outlives_the_deadline_of_answers_and_ends_when_it_falls_silent() {
    let event = r#"{"type":"ADDED","object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}}"#;
    let server = Server::start(vec![Does::SaysAndHangs(stream(&[event]))]).await;
    let begun = Instant::now();
    let events = api(&server.client).watch(&WatchParams::default(), "1").await.expect("a watch");
    let items: Vec<_> = events.collect().await;
    assert!(begun.elapsed() >= LIMITS.silence && LIMITS.silence > LIMITS.answer, "{:?}", begun.elapsed());
    assert!(
        matches!(&items[..], [Ok(_), Err(error)] if matches!(unanswered(error), Some(Unanswered::Silent(_)))),
        "{items:?}"
    );
    assert_eq!(server.requests().len(), 1);
    let server = Server::start(vec![HANGS]).await;
    let started = api(&server.client).watch(&WatchParams::default(), "1").await;
    assert!(started.is_err_and(|error| matches!(unanswered(&error), Some(Unanswered::Late(_)))));
}
