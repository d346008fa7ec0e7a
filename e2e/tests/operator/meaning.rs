//! Templates that mean the same, written in another way: none of these edits rolls replicas that a Deployment's would
//! not, and each that changes something does. The Deployment stands beside on the same API server.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::wait::eventually;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, PostParams},
};
use serde_json::{Value, json};

use crate::support::{Ground, merged};

/// Whether an edit rolls the replicas of a Deployment, and of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rolls {
    Neither,
    Both,
    /// Lists whose order means nothing.
    DeploymentAlone,
}
use Rolls::{Both, DeploymentAlone, Neither};

struct Pair {
    what: &'static str,
    before: Value,
    after: Value,
    rolls: Rolls,
}

/// A template with these fields in its first container.
fn of_container(fields: &Value) -> Value {
    let side = json!({ "name": "side", "image": "registry.test/side:1" });
    let app = merged(json!({ "name": "app", "image": "registry.test/web:1" }), fields);
    json!({ "spec": { "containers": [app, side] } })
}

/// A template with these fields in its spec.
fn of_pod(fields: &Value) -> Value {
    merged(of_container(&json!({})), &json!({ "spec": fields }))
}

/// A template with these fields in its metadata.
fn of_metadata(fields: &Value) -> Value {
    merged(of_container(&json!({})), &json!({ "metadata": fields }))
}

fn container(what: &'static str, before: Value, after: Value, rolls: Rolls) -> Pair {
    Pair { what, before: of_container(&before), after: of_container(&after), rolls }
}

fn pod(what: &'static str, before: Value, after: Value, rolls: Rolls) -> Pair {
    Pair { what, before: of_pod(&before), after: of_pod(&after), rolls }
}

fn metadata(what: &'static str, before: Value, after: Value, rolls: Rolls) -> Pair {
    Pair { what, before: of_metadata(&before), after: of_metadata(&after), rolls }
}

fn volume(source: Value) -> Value {
    merged(json!({ "volumes": [] }), &json!({ "volumes": [merged(json!({ "name": "v" }), &source)] }))
}

/// Quantities, in all the ways to write one.
fn quantities() -> Vec<Pair> {
    let requests = |cpu: Value, memory: Value| json!({ "resources": { "requests": { "cpu": cpu, "memory": memory } } });
    let limits = |cpu: Value| json!({ "resources": { "limits": { "cpu": cpu, "memory": "1Gi" } } });
    vec![
        container("1000m and 1", requests(json!("1000m"), json!("1Gi")), requests(json!("1"), json!("1Gi")), Neither),
        container("a number", requests(json!("1"), json!("1Gi")), requests(json!(1), json!("1Gi")), Neither),
        container("0.5 and 500m", requests(json!("0.5"), json!("1Gi")), requests(json!("500m"), json!("1Gi")), Neither),
        container("1024Mi and 1Gi", requests(json!("1"), json!("1024Mi")), requests(json!("1"), json!("1Gi")), Neither),
        container("bytes", requests(json!("1"), json!("1073741824")), requests(json!("1"), json!("1Gi")), Neither),
        container("exponents", requests(json!("1"), json!("1e9")), requests(json!("1"), json!("1G")), Neither),
        container("2 and 2000m of a limit", limits(json!("2000m")), limits(json!("2")), Neither),
        container("another request", requests(json!("1"), json!("1Gi")), requests(json!("1001m"), json!("1Gi")), Both),
        container("another unit", requests(json!("1"), json!("1G")), requests(json!("1"), json!("1Gi")), Both),
        pod(
            "the size of an emptyDir",
            volume(json!({ "emptyDir": { "sizeLimit": "1024Mi" } })),
            volume(json!({ "emptyDir": { "sizeLimit": "1Gi" } })),
            Neither,
        ),
    ]
}

/// Defaults of a container, written out.
fn of_containers() -> Vec<Pair> {
    let ports = |port: Value| json!({ "ports": [port] });
    let probe = |probe: Value| json!({ "readinessProbe": probe });
    let get = json!({ "httpGet": { "path": "/", "port": 80 } });
    let ready = |more: Value| probe(merged(get.clone(), &more));
    vec![
        container(
            "TCP",
            ports(json!({"containerPort": 80})),
            ports(json!({"containerPort": 80, "protocol": "TCP"})),
            Neither,
        ),
        container(
            "UDP",
            ports(json!({"containerPort": 80})),
            ports(json!({"containerPort": 80, "protocol": "UDP"})),
            Both,
        ),
        container("imagePullPolicy of a tag", json!({}), json!({ "imagePullPolicy": "IfNotPresent" }), Neither),
        container("another imagePullPolicy", json!({}), json!({ "imagePullPolicy": "Always" }), Both),
        container(
            "terminationMessagePath",
            json!({}),
            json!({ "terminationMessagePath": "/dev/termination-log" }),
            Neither,
        ),
        container("terminationMessagePolicy", json!({}), json!({ "terminationMessagePolicy": "File" }), Neither),
        container(
            "another message policy",
            json!({}),
            json!({ "terminationMessagePolicy": "FallbackToLogsOnError" }),
            Both,
        ),
        container("empty resources", json!({}), json!({ "resources": {} }), Neither),
        container("null resources", json!({}), json!({ "resources": null }), Neither),
        container("an empty list", json!({}), json!({ "env": [] }), Neither),
        container("a null list", json!({}), json!({ "command": null, "args": null }), Neither),
        container("timeoutSeconds of a probe", ready(json!({})), ready(json!({ "timeoutSeconds": 1 })), Neither),
        container("periodSeconds of a probe", ready(json!({})), ready(json!({ "periodSeconds": 10 })), Neither),
        container(
            "thresholds of a probe",
            ready(json!({})),
            ready(json!({ "successThreshold": 1, "failureThreshold": 3, "initialDelaySeconds": 0 })),
            Neither,
        ),
        container(
            "the scheme of a probe",
            ready(json!({})),
            ready(json!({ "httpGet": { "scheme": "HTTP" } })),
            Neither,
        ),
        container("another scheme", ready(json!({})), ready(json!({ "httpGet": { "scheme": "HTTPS" } })), Both),
        container("another period", ready(json!({})), ready(json!({ "periodSeconds": 11 })), Both),
        container("another path", ready(json!({})), probe(json!({ "httpGet": { "path": "/x", "port": 80 } })), Both),
        container("stdin", json!({}), json!({ "stdin": false, "tty": false, "stdinOnce": false }), Neither),
        container("an empty securityContext", json!({}), json!({ "securityContext": {} }), Both),
        container(
            "the path of a fieldRef",
            json!({ "env": [{ "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }] }),
            json!({ "env": [{ "name": "IP", "valueFrom": { "fieldRef": {
                "fieldPath": "status.podIP", "apiVersion": "v1" } } }] }),
            Neither,
        ),
        container(
            "an empty value",
            json!({ "env": [{ "name": "A" }] }),
            json!({ "env": [{ "name": "A", "value": "" }] }),
            Neither,
        ),
        container(
            "another value that reads like the same quantity",
            json!({ "env": [{ "name": "A", "value": "1" }] }),
            json!({ "env": [{ "name": "A", "value": "1000m" }] }),
            Both,
        ),
        container("another image", json!({}), json!({ "image": "registry.test/web:2" }), Both),
    ]
}

/// Defaults of a pod and of its volumes, written out.
fn of_pods() -> Vec<Pair> {
    let config = |more: Value| volume(json!({ "configMap": merged(json!({ "name": "c" }), &more) }));
    let secret = |more: Value| volume(json!({ "secret": merged(json!({ "secretName": "s" }), &more) }));
    let host = |more: Value| volume(json!({ "hostPath": merged(json!({ "path": "/srv" }), &more) }));
    let tolerate = |more: Value| json!({ "tolerations": [merged(json!({ "key": "a", "value": "b" }), &more)] });
    vec![
        pod("restartPolicy", json!({}), json!({ "restartPolicy": "Always" }), Neither),
        pod("dnsPolicy", json!({}), json!({ "dnsPolicy": "ClusterFirst" }), Neither),
        pod("another dnsPolicy", json!({}), json!({ "dnsPolicy": "Default" }), Both),
        pod("schedulerName", json!({}), json!({ "schedulerName": "default-scheduler" }), Neither),
        pod("grace period", json!({}), json!({ "terminationGracePeriodSeconds": 30 }), Neither),
        pod("another grace period", json!({}), json!({ "terminationGracePeriodSeconds": 31 }), Both),
        pod("an empty securityContext of the pod", json!({}), json!({ "securityContext": {} }), Neither),
        pod("host namespaces", json!({}), json!({ "hostNetwork": false, "hostPID": false, "hostIPC": false }), Neither),
        pod("enableServiceLinks, no default of a template", json!({}), json!({ "enableServiceLinks": true }), Both),
        pod("no service links", json!({}), json!({ "enableServiceLinks": false }), Both),
        pod("null in the spec", json!({}), json!({ "nodeSelector": null, "affinity": null }), Neither),
        pod("an empty nodeSelector", json!({}), json!({ "nodeSelector": {} }), Neither),
        pod(
            "both names of the account",
            json!({ "serviceAccountName": "default" }),
            json!({ "serviceAccountName": "default", "serviceAccount": "default" }),
            Neither,
        ),
        pod("the mode of a ConfigMap", config(json!({})), config(json!({ "defaultMode": 420 })), Neither),
        pod("another mode", config(json!({})), config(json!({ "defaultMode": 256 })), Both),
        pod("the mode of a Secret", secret(json!({})), secret(json!({ "defaultMode": 420 })), Neither),
        pod("the type of a hostPath", host(json!({})), host(json!({ "type": "" })), Neither),
        pod(
            "the medium of an emptyDir",
            volume(json!({ "emptyDir": {} })),
            volume(json!({ "emptyDir": { "medium": "" } })),
            Neither,
        ),
        pod("the operator of a toleration", tolerate(json!({})), tolerate(json!({ "operator": "Equal" })), Both),
        pod("an empty list of init containers", json!({}), json!({ "initContainers": [] }), Neither),
        metadata("no labels", json!({}), json!({ "labels": {} }), Neither),
        metadata("null annotations", json!({}), json!({ "annotations": null }), Neither),
        metadata("an annotation", json!({}), json!({ "annotations": { "a": "b" } }), Both),
        metadata("a creationTimestamp", json!({}), json!({ "creationTimestamp": null }), Neither),
    ]
}

/// Lists in another order.
fn orders() -> Vec<Pair> {
    let list = |field: &str, items: [Value; 2], turned: bool| {
        let [a, b] = items;
        json!({ field: if turned { [b, a] } else { [a, b] } })
    };
    let ports = [json!({ "containerPort": 80 }), json!({ "containerPort": 81 })];
    let env = [json!({ "name": "A", "value": "1" }), json!({ "name": "B", "value": "2" })];
    let refers = [json!({ "name": "A", "value": "1" }), json!({ "name": "B", "value": "$(A)" })];
    let volumes = [json!({ "name": "v", "emptyDir": {} }), json!({ "name": "w", "emptyDir": {} })];
    let arguments = [json!("a"), json!("b")];
    let turned =
        |field: &str, items: &[Value; 2]| (list(field, items.clone(), false), list(field, items.clone(), true));
    let (of_ports, of_env, of_refers) = (turned("ports", &ports), turned("env", &env), turned("env", &refers));
    let (of_volumes, of_arguments) = (turned("volumes", &volumes), turned("args", &arguments));
    vec![
        container("ports in another order", of_ports.0, of_ports.1, DeploymentAlone),
        container("variables in another order", of_env.0, of_env.1, DeploymentAlone),
        container("variables that refer to others", of_refers.0, of_refers.1, Both),
        pod("volumes in another order", of_volumes.0, of_volumes.1, DeploymentAlone),
        container("arguments in another order", of_arguments.0, of_arguments.1, Both),
    ]
}

fn pairs() -> Vec<Pair> {
    [quantities(), of_containers(), of_pods(), orders()].into_iter().flatten().collect()
}

fn deployment(name: &str, template: &Value) -> Value {
    let labels = json!({ "app": name });
    let template = merged(template.clone(), &json!({ "metadata": { "labels": labels } }));
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": format!("{name}-d") },
        "spec": { "replicas": 1, "selector": { "matchLabels": labels }, "template": template },
    })
}

fn workload(name: &str, template: &Value) -> Value {
    json!({
        "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload", "metadata": { "name": name },
        "spec": { "replicas": 1, "container": { "template": template } },
    })
}

/// Brings an object into being, or replaces it, as `kubectl replace` does: as it is written, and not as our types would
/// write it.
async fn put(api: &Api<DynamicObject>, object: Value) -> Result<()> {
    let mut object: DynamicObject = serde_json::from_value(object)?;
    let name = object.name_any();
    let answer = match api.get_opt(&name).await? {
        None => api.create(&PostParams::default(), &object).await,
        Some(there) => {
            object.metadata.resource_version = there.metadata.resource_version;
            api.replace(&name, &PostParams::default(), &object).await
        }
    };
    answer.map(drop).with_context(|| name)
}

/// Whether a controller has looked at the present spec.
fn is_seen(object: &DynamicObject) -> bool {
    object.data["status"]["observedGeneration"].as_i64() >= object.metadata.generation
}

/// Whether a workload is seen and through with it.
fn is_ready(object: &DynamicObject) -> bool {
    let conditions = object.data["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().any(|found| found["type"] == "Ready" && found["status"] == "True");
    is_seen(object) && ready
}

/// How many ReplicaSets each of the owners has.
async fn sets(ground: &Ground) -> Result<BTreeMap<String, usize>> {
    let api: Api<ReplicaSet> = ground.api();
    let mut counts = BTreeMap::new();
    for set in api.list(&ListParams::default()).await? {
        let owner = set.owner_references().first().map(|owner| owner.name.clone()).unwrap_or_default();
        *counts.entry(owner).or_default() += 1;
    }
    Ok(counts)
}

/// Puts all of these there, and waits until Deployments are seen and workloads ready.
async fn settle(ground: &Ground, pairs: &[Pair], template: impl Fn(&Pair) -> &Value) -> Result<()> {
    let api = |kind| Api::<DynamicObject>::namespaced_with(ground.client.clone(), &ground.namespace, &kind);
    let deployments = api(ApiResource::erase::<Deployment>(&()));
    let workloads = api(ApiResource::erase::<ElasticWorkload>(&()));
    for (index, pair) in pairs.iter().enumerate() {
        let name = format!("pair-{index}");
        put(&deployments, deployment(&name, template(pair))).await.context(pair.what)?;
        put(&workloads, workload(&name, template(pair))).await.context(pair.what)?;
    }
    eventually("all of them are seen, and the workloads ready", Duration::from_secs(120), || async {
        let of_deployments = deployments.list(&ListParams::default()).await?;
        let of_workloads = workloads.list(&ListParams::default()).await?;
        let done = of_deployments.items.iter().all(is_seen) && of_workloads.items.iter().all(is_ready);
        Ok(done.then_some(()))
    })
    .await
}

pub(crate) async fn a_template_that_means_the_same_rolls_nothing(ground: Ground) -> Result<()> {
    let pairs = pairs();
    ensure!(pairs.len() >= 60, "{} pairs", pairs.len());
    settle(&ground, &pairs, |pair| &pair.before).await?;
    settle(&ground, &pairs, |pair| &pair.after).await?;
    let sets = sets(&ground).await?;
    let mut wrong = Vec::new();
    for (index, pair) in pairs.iter().enumerate() {
        let rolled = |name: String| sets.get(&name).is_some_and(|count| *count > 1);
        let seen = (rolled(format!("pair-{index}-d")), rolled(format!("pair-{index}")));
        let expected = match pair.rolls {
            Neither => (false, false),
            Both => (true, true),
            DeploymentAlone => (true, false),
        };
        if seen != expected {
            wrong.push(format!("{}: a Deployment rolls: {}, a workload: {}", pair.what, seen.0, seen.1));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ground.quiet().await
}
