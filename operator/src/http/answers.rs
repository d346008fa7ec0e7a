//! What `kubectl catamaran` asks: read-only, of the stores alone, and of bounded size.
//!
//! | Path | Answer |
//! |---|---|
//! | `/explain/{namespace}/{name}` | text: [`Explanation`] |
//! | `/usage`, `/usage/{namespace}`, `/usage/{namespace}/{name}` | JSON: [`UsageList`] |
//! | `/accounts` | JSON: [`Accounts`](catamaran_protocol::accounts::Accounts); parameters in [`Question`] |
//!
//! Parameters of /usage: `replicas=true` for each replica, `limit` of workloads (at most 500), `continue` of the answer
//! before. Errors are a `Status` of the Kubernetes API, with `details.kind` elasticworkloads where it is the workload
//! that is missing.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    extract::{Path, RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use catamaran_crds::{ElasticWorkload, names::GROUP};
use catamaran_protocol::usage::{UsageList, WorkloadUsage};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Semaphore;

use super::Probes;
use crate::{
    accounting::answer::Question,
    explain::Explanation,
    observe::Agents,
    stores::WorkloadKey,
    usage_report::{all, report},
};

/// The largest number of workloads in one answer...
const MOST_WORKLOADS: usize = 500;
/// ...and once an answer has so many replicas it ends, too.
const MOST_REPLICAS: usize = 5_000;
/// So many answers are made at a time: whoever asks, most of the processor stays with the reconciles.
const AT_A_TIME: usize = 2;

#[derive(Clone)]
struct Asked {
    probes: Probes,
    permits: Arc<Semaphore>,
}

/// The paths.
pub(super) fn router(probes: Probes) -> Router {
    Router::new()
        .route("/explain/{namespace}/{name}", get(explain))
        .route("/accounts", get(accounts))
        .route("/usage", get(usage_of_all))
        .route("/usage/{namespace}", get(usage_of_namespace))
        .route("/usage/{namespace}/{name}", get(usage_of_workload))
        .with_state(Asked { probes, permits: Arc::new(Semaphore::new(AT_A_TIME)) })
}

async fn explain(State(asked): State<Asked>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let key = WorkloadKey { namespace, name };
    asked
        .answer(|probes| {
            let agents = Agents { autoscaler: &probes.autoscaler, findings: &probes.findings };
            match Explanation::for_workload(&probes.stores, agents, &key, Timestamp::now()) {
                Some(explanation) => {
                    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], explanation.to_string()).into_response()
                }
                None => unknown(&key),
            }
        })
        .await
}

async fn accounts(State(asked): State<Asked>, RawQuery(query): RawQuery) -> Response {
    asked
        .answer(|probes| {
            let now = Timestamp::now();
            let answer = Question::read(query.as_deref(), now)
                .and_then(|question| probes.accounts.answer(&probes.identity, &question, now));
            match answer {
                Ok(answer) => json_of(&answer),
                Err(problem) => refused(StatusCode::BAD_REQUEST, "BadRequest", &problem.to_string()),
            }
        })
        .await
}

async fn usage_of_all(State(asked): State<Asked>, RawQuery(query): RawQuery) -> Response {
    asked.answer(|probes| list(probes, None, query)).await
}

async fn usage_of_namespace(
    State(asked): State<Asked>,
    Path(namespace): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    asked.answer(|probes| list(probes, Some(&namespace), query)).await
}

async fn usage_of_workload(
    State(asked): State<Asked>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let key = WorkloadKey { namespace, name };
    asked
        .answer(|probes| {
            let parameters = match Parameters::read(query.as_deref()) {
                Ok(parameters) => parameters,
                Err(problem) => return refused(StatusCode::BAD_REQUEST, "BadRequest", &problem),
            };
            let Some(stored) = probes.stores.workloads.get(&key.reference()) else { return unknown(&key) };
            match &stored.0 {
                Ok(workload) => {
                    let usage = report(&probes.autoscaler, &key, workload, parameters.replicas, Timestamp::now());
                    json_of(&UsageList { items: vec![usage], continue_: None })
                }
                Err(error) => refused(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", &error.error.to_string()),
            }
        })
        .await
}

impl Asked {
    /// Makes an answer when it is its turn.
    async fn answer(&self, make: impl FnOnce(&Probes) -> Response) -> Response {
        if !self.probes.stores.listed() {
            let message = "the operator has not listed all kinds yet; ask again in a moment";
            return refused(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
        }
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await.ok();
        make(&self.probes)
    }
}

fn list(probes: &Probes, namespace: Option<&str>, query: Option<String>) -> Response {
    let parameters = match Parameters::read(query.as_deref()) {
        Ok(parameters) => parameters,
        Err(problem) => return refused(StatusCode::BAD_REQUEST, "BadRequest", &problem),
    };
    let now = Timestamp::now();
    let mut keys = all(&probes.stores, namespace);
    keys.sort_by(|(a, _), (b, _)| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let after = parameters.after.as_ref();
    let left = keys
        .iter()
        .filter(|(key, _)| after.is_none_or(|after| (&key.namespace, &key.name) > (&after.namespace, &after.name)));
    let (mut items, mut replicas, mut more) = (Vec::<WorkloadUsage>::new(), 0, None);
    for (key, stored) in left {
        if items.len() >= parameters.limit || replicas >= MOST_REPLICAS {
            more = items.last().map(|last| format!("{}/{}", last.namespace, last.name));
            break;
        }
        // One that cannot be read has no replicas of ours either; `status` and its condition tell why.
        let workload: &ElasticWorkload = match &stored.0 {
            Ok(workload) => workload,
            Err(_) => continue,
        };
        let usage = report(&probes.autoscaler, key, workload, parameters.replicas, now);
        replicas += usize::try_from(usage.replicas).unwrap_or(usize::MAX);
        items.push(usage);
    }
    json_of(&UsageList { items, continue_: more })
}

/// The parameters of /usage.
#[derive(Debug, PartialEq, Eq)]
struct Parameters {
    replicas: bool,
    limit: usize,
    after: Option<WorkloadKey>,
}

impl Parameters {
    fn read(query: Option<&str>) -> Result<Self, String> {
        let given: HashMap<_, _> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
        let limit = match given.get("limit").map(|limit| (limit, limit.parse::<usize>())) {
            None => MOST_WORKLOADS,
            Some((_, Ok(limit))) if limit > 0 => limit.min(MOST_WORKLOADS),
            Some((limit, _)) => return Err(format!("limit {limit:?} is no number above 0")),
        };
        let replicas = match given.get("replicas").map(AsRef::as_ref) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(format!("replicas {other:?} is neither true nor false")),
        };
        let after = match given.get("continue").map(|after| (after, after.split_once('/'))) {
            None => None,
            Some((_, Some((namespace, name)))) => {
                Some(WorkloadKey { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            Some((after, None)) => return Err(format!("continue {after:?} is not of an answer")),
        };
        Ok(Self { replicas, limit, after })
    }
}

fn json_of(list: &impl serde::Serialize) -> Response {
    match serde_json::to_string(list) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &error.to_string()),
    }
}

fn unknown(key: &WorkloadKey) -> Response {
    let message = format!("the operator knows no ElasticWorkload {} in namespace {}", key.name, key.namespace);
    let details = json!({"group": GROUP, "kind": "elasticworkloads", "name": key.name});
    status(StatusCode::NOT_FOUND, "NotFound", &message, details)
}

fn refused(code: StatusCode, reason: &str, message: &str) -> Response {
    status(code, reason, message, json!({}))
}

fn status(code: StatusCode, reason: &str, message: &str, details: serde_json::Value) -> Response {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "details": details, "code": code.as_u16(),
    });
    (code, [(header::CONTENT_TYPE, "application/json")], status.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_checked() {
        let read = |query: &str| Parameters::read(Some(query));
        let defaults = Parameters { replicas: false, limit: MOST_WORKLOADS, after: None };
        assert_eq!(Parameters::read(None), Ok(defaults));
        let after = Some(WorkloadKey { namespace: "shop".to_owned(), name: "web".to_owned() });
        let all = read("replicas=true&limit=7&continue=shop%2Fweb");
        assert_eq!(all, Ok(Parameters { replicas: true, limit: 7, after }));
        assert_eq!(read("limit=100000").map(|read| read.limit), Ok(MOST_WORKLOADS));
        for wrong in
            ["limit=0", "limit=-1", "limit=many", "limit=99999999999999999999999", "replicas=1", "continue=web"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
