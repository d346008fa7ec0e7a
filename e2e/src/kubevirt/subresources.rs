//! virt-api's subresources `pause` and `unpause` of a VirtualMachineInstance, as a part of the Kubernetes API: the API
//! server asks RBAC for the right before it passes a request on.

use anyhow::Result;
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use catamaran_crds::kubevirt::{VirtualMachineInstance, VirtualMachineInstancePhase};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{Paused, set_paused};
use crate::{
    control_plane::{AggregatedApi, ControlPlane},
    tls::{TlsListener, server_config},
};

const GROUP: &str = "subresources.kubevirt.io";
const VERSION: &str = "v1";
/// The Service behind which the API server finds it.
const SERVICE: &str = "virt-api";

#[derive(Clone)]
struct Shared {
    client: Client,
    paused: Paused,
}

/// Makes them part of the API, and gives what serves them.
pub(super) async fn serve(
    control_plane: &ControlPlane,
    client: Client,
    paused: Paused,
) -> Result<impl Future<Output = ()> + Send + 'static> {
    let keys = control_plane.serving_certificate(SERVICE)?;
    let listener =
        TlsListener::bind(server_config(&keys.certificate, &keys.key, Some(&keys.client_authority))?).await?;
    let port = listener.port();
    let resource = |verb: &str| json!({"name": format!("virtualmachineinstances/{verb}"), "namespaced": true, "kind": "", "singularName": "", "verbs": ["update"]});
    let resources = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [resource("pause"), resource("unpause")],
    });
    let router = Router::new()
        .route(&format!("/apis/{GROUP}/{VERSION}"), get(move || async move { answer_with(StatusCode::OK, &resources) }))
        .route(
            &format!("/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/virtualmachineinstances/{{name}}/{{verb}}"),
            put(answer),
        )
        .with_state(Shared { client, paused });
    let serving = async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the stand-in of virt-api ended");
        }
    };
    let task = tokio::spawn(serving);
    control_plane.aggregate(&AggregatedApi { group: GROUP, version: VERSION, service: SERVICE }, port).await?;
    Ok(async move {
        let _ = task.await;
    })
}

async fn answer(
    State(shared): State<Shared>,
    Path((namespace, name, verb)): Path<(String, String, String)>,
) -> Response {
    let pause = match verb.as_str() {
        "pause" => true,
        "unpause" => false,
        _ => return status(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource"),
    };
    let api: Api<VirtualMachineInstance> = Api::namespaced(shared.client.clone(), &namespace);
    let instance = match api.get_opt(&name).await {
        Ok(Some(instance)) => instance.status.unwrap_or_default(),
        Ok(None) => {
            let message = format!("virtualmachineinstance.kubevirt.io \"{name}\" not found");
            return status(StatusCode::NOT_FOUND, "NotFound", &message);
        }
        Err(error) => return status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &error.to_string()),
    };
    let paused =
        instance.conditions.iter().flatten().any(|condition| condition.type_ == "Paused" && condition.status == "True");
    let conflict = |what: &str| {
        let message = format!("Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io \"{name}\": {what}");
        status(StatusCode::CONFLICT, "Conflict", &message)
    };
    if instance.phase != Some(VirtualMachineInstancePhase::Running) {
        return conflict("VMI is not running");
    }
    match (pause, paused) {
        (true, true) => return conflict("VMI is already paused"),
        (false, false) => return conflict("VMI is not paused"),
        (true, false) | (false, true) => {}
    }
    match set_paused(&shared.client, &shared.paused, &namespace, &name, pause).await {
        Ok(()) => answer_with(StatusCode::OK, &json!({})),
        Err(error) => status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &format!("{error:#}")),
    }
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response {
    let body: Value = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    answer_with(code, &body)
}

fn answer_with(code: StatusCode, body: &Value) -> Response {
    (code, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
