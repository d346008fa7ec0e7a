//! Watches: what falls silent is noticed and listed anew, and what is asked for is as new as the question.

use std::{pin::Pin, time::Duration};

use catamaran_controller::watch::{Error, Event, Life, watch};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt};

use crate::server::{Does, END, HANGS, LIMITS, Server, answer, stream};

const BOOKMARK: &str =
    r#"{"type":"BOOKMARK","object":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"resourceVersion":"7"}}}"#;

type Events = Pin<Box<dyn Stream<Item = Result<Event<ConfigMap>, Error>> + Send>>;

fn events(server: &Server, life: &Life) -> Events {
    watch(Api::all(server.client.clone()), Some("app"), life.clone()).boxed()
}

/// A listing in this version, with one object.
fn listing(version: u32, name: &str) -> Does {
    let body = format!(
        r#"{{"metadata":{{"resourceVersion":"{version}"}},"items":[{{"metadata":{{"name":"{name}","resourceVersion":"3"}}}}]}}"#
    );
    answer("200 OK", &body)
}

fn silent() -> Does {
    Does::SaysAndHangs(stream(&[]))
}

/// The next event in a word, or the error.
async fn next(events: &mut Events) -> String {
    match tokio::time::timeout(Duration::from_secs(20), events.next()).await.expect("in time").expect("it does not end")
    {
        Ok(Event::Init) => "init".to_owned(),
        Ok(Event::InitApply(object)) => format!("listed {}", object.name_any()),
        Ok(Event::InitDone) => "done".to_owned(),
        Ok(Event::Apply(object)) => format!("applied {}", object.name_any()),
        Ok(Event::Delete(object)) => format!("deleted {}", object.name_any()),
        Err(error) => format!("{error}"),
    }
}

async fn listed(events: &mut Events, name: &str) {
    for expected in ["init".to_owned(), format!("listed {name}"), "done".to_owned()] {
        assert_eq!(next(events).await, expected);
    }
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_noticed_and_everything_is_listed_anew() {
    let server = Server::start(vec![listing(5, "old"), silent(), listing(9, "new"), HANGS]).await;
    let life = Life::new("ConfigMap");
    let mut events = events(&server, &life);
    listed(&mut events, "old").await;
    assert!(next(&mut events).await.contains("silent"));
    assert!(life.age() >= LIMITS.silence, "a watch that starts and says nothing is no sign of life: {:?}", life.age());
    listed(&mut events, "new").await;
    assert!(life.age() < LIMITS.silence);
}

#[tokio::test]
async fn a_watch_that_ends_with_a_bookmark_goes_on_from_there_and_one_that_brought_nothing_does_not() {
    let ended = |events: &[&str]| Does::Says(stream(events) + END);
    let server = Server::start(vec![listing(5, "a"), ended(&[BOOKMARK]), ended(&[]), listing(9, "b"), HANGS]).await;
    let life = Life::new("ConfigMap");
    let mut events = events(&server, &life);
    listed(&mut events, "a").await;
    listed(&mut events, "b").await;
    let requests = server.requests();
    let asks = |nth: usize, part: &str| assert!(requests[nth].contains(part), "{nth}: {requests:?}");
    asks(0, "labelSelector=app");
    asks(1, "resourceVersion=5");
    asks(1, "allowWatchBookmarks=true");
    asks(1, "timeoutSeconds=290");
    asks(2, "resourceVersion=7");
    assert!(!requests[0].contains("resourceVersion") && !requests[3].contains("resourceVersion"), "{requests:?}");
}

#[tokio::test]
async fn a_listing_that_hangs_is_an_error_and_tried_again() {
    // A read is asked for twice.
    let server = Server::start(vec![HANGS, listing(5, "a"), silent()]).await;
    let mut events = events(&server, &Life::new("ConfigMap"));
    assert_eq!(next(&mut events).await, "init");
    assert!(next(&mut events).await.contains("no answer within 0.6 s"));
    listed(&mut events, "a").await;
}

#[tokio::test]
async fn what_is_asked_for_is_fresh_only_once_a_later_listing_is_entered() {
    let server = Server::start(vec![listing(5, "old"), silent(), listing(9, "new"), silent()]).await;
    let life = Life::new("ConfigMap");
    let mut events = events(&server, &life);
    let minute = Duration::from_secs(60);
    listed(&mut events, "old").await;
    assert!(life.is_fresh(minute));
    let number = life.ask();
    assert!(!life.is_fresh(minute), "the watch may have been silent for long");
    listed(&mut events, "new").await;
    assert!(!life.is_fresh(minute), "the end of the listing is yet to be handled");
    tokio::select! {
        () = life.answered(number) => {}
        event = next(&mut events) => panic!("{event}"),
    }
    assert!(life.is_fresh(minute));
}

#[tokio::test]
async fn a_kind_that_is_not_served_is_told_from_an_answer_of_a_proxy() {
    for (head, absent) in [("404 Not Found\nAudit-Id: a", true), ("404 Not Found\nServer: nginx", false)] {
        let server = Server::start(vec![answer(head, "404 page not found")]).await;
        let mut events = events(&server, &Life::new("ConfigMap"));
        assert_eq!(next(&mut events).await, "init");
        let error = events.next().await.expect("it does not end").expect_err("not served");
        assert_eq!(error.is_absent(), absent, "{error}");
    }
}
