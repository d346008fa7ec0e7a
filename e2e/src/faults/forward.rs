//! One call: judged, forwarded, recorded.

use std::{convert::Infallible, sync::Arc};

use axum::body::{Body, to_bytes};
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::{
    Shared,
    answer::Answer,
    call::{Call, Verb},
    connection::Connection,
    record::Outcome,
    rules::{Active, Fault, Rules},
    watches,
};

/// Bytes of a request: more than etcd takes.
const LONGEST_REQUEST: usize = 4 << 20;

/// Answers a request, or never does.
pub(super) async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    connection: Arc<Connection>,
) -> Result<Response<Body>, Infallible> {
    let (mut head, body) = request.into_parts();
    let Ok(body) = to_bytes(Body::new(body), LONGEST_REQUEST).await else {
        return Ok(Answer::text(StatusCode::PAYLOAD_TOO_LARGE, "too large for the proxy").response());
    };
    let call = Call::new(&head, &body);
    connection.begins(&call);
    let ticket = shared.record.begins(call.clone(), connection.number);
    let verdict = shared.rules.judge(&call);
    if let Some((rule, fault)) = &verdict {
        match before(rule, fault, &shared.rules, &connection).await {
            None => {}
            Some(Early::Answered(answer)) => {
                ticket.ends(Outcome::Planted(answer.code()));
                return Ok(answer.response());
            }
            Some(Early::Stopped) => {
                ticket.ends(Outcome::Stopped);
                return reset(&connection).await;
            }
        }
    }
    drop_hop_by_hop(&mut head.headers);
    // It belongs to this connection; the client behind sets its own.
    head.headers.remove(header::HOST);
    let answer = shared.server.send(Request::from_parts(head, body.into())).await;
    if let Some((rule, fault @ (Fault::LoseAnswer | Fault::LastWrite))) = &verdict {
        ticket.ends(Outcome::Unanswered);
        rule.note_hit();
        if matches!(fault, Fault::LastWrite) {
            shared.rules.cleared(rule).await;
        }
        return reset(&connection).await;
    }
    let mut response = match answer {
        Ok(answer) => answer.map(Body::new),
        Err(error) => {
            let answer = Answer::text(StatusCode::BAD_GATEWAY, &error.to_string());
            ticket.ends(Outcome::Forwarded(answer.code()));
            return Ok(answer.response());
        }
    };
    ticket.ends(Outcome::Forwarded(response.status().as_u16()));
    drop_hop_by_hop(response.headers_mut());
    if call.verb == Verb::Watch && response.status().is_success() {
        // Events may be kept or added.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        return Ok(response.map(|events| watches::under_rules(events, call, shared)));
    }
    Ok(response)
}

/// How a call ends that is not forwarded.
enum Early<'a> {
    Answered(&'a Answer),
    Stopped,
}

/// Carries out a fault that comes before a call is forwarded.
async fn before<'a>(rule: &Arc<Active>, fault: &'a Fault, rules: &Rules, connection: &Connection) -> Option<Early<'a>> {
    match fault {
        Fault::Answer(answer) => {
            rule.note_hit();
            Some(Early::Answered(answer))
        }
        Fault::Delay(time) => {
            rule.note_hit();
            tokio::time::sleep(*time).await;
            None
        }
        Fault::Hold => {
            // The last write's rule is hit by that write alone.
            if !matches!(rule.rule.fault, Fault::LastWrite) {
                rule.note_hit();
            }
            rules.cleared(rule).await;
            Some(Early::Stopped)
        }
        Fault::Reset => {
            rule.note_hit();
            Some(Early::Stopped)
        }
        Fault::Silence => {
            connection.follow(rules);
            // Nothing polls this again until bytes move again; then the call goes on.
            tokio::task::yield_now().await;
            None
        }
        // They act on the answer, on the events, or on open connections.
        Fault::LoseAnswer | Fault::LastWrite | Fault::Freeze | Fault::Late(_) | Fault::Gone | Fault::SilenceOpen => {
            None
        }
    }
}

/// Resets the connection that this runs on; so there is no answer.
async fn reset(connection: &Connection) -> Result<Response<Body>, Infallible> {
    connection.reset();
    std::future::pending().await
}

/// They belong to one connection (RFC 9110, 7.6.1).
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
}
