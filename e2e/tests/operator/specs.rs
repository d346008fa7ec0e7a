//! Random pod specs. What a Deployment of the same template runs, a workload runs; what the API server refuses of one
//! it refuses of the other, or the workload says why.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use catamaran_crds::{ElasticWorkload, names::WORKLOAD_LABEL};
use catamaran_e2e::{
    wait::eventually,
    workloads::{condition, pod_is_ready},
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams},
};
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Map, Value, json};

use crate::support::{Ground, merged, random};

/// Specs that are tried at once: each gets a pod of both.
const BATCH: usize = 50;
/// How long a batch may take.
const BATCH_WITHIN: Duration = Duration::from_secs(120);

/// In CI one batch; 2,000 in the long form.
fn batches() -> usize {
    if std::env::var_os("CATAMARAN_LONG").is_some() { 40 } else { 1 }
}

type Field = (&'static str, Vec<Value>);

/// Fields of a container, with values that are plain, odd and wrong.
fn of_container() -> Vec<Field> {
    [lists_of_container(), amounts_of_container(), life_of_container()].concat()
}

fn lists_of_container() -> Vec<Field> {
    vec![
        (
            "env",
            vec![
                json!([]),
                json!(null),
                json!([{ "name": "A", "value": "1" }]),
                json!([{ "name": "A", "value": "1" }, { "name": "A", "value": "2" }]),
                json!([{ "name": "A" }, { "name": "B", "value": "$(A)-$(C)" }]),
                json!([{ "name": "P", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }]),
                json!([{ "name": "C", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } }]),
                json!([{
                    "name": "K",
                    "valueFrom": { "configMapKeyRef": { "name": "no", "key": "k", "optional": true } },
                }]),
                json!([{ "name": "with.dot", "value": "1" }, { "name": "", "value": "nameless" }]),
            ],
        ),
        ("envFrom", vec![json!([{ "configMapRef": { "name": "no", "optional": true }, "prefix": "P_" }]), json!([{}])]),
        (
            "ports",
            vec![
                json!([{ "containerPort": 80 }]),
                json!([{ "containerPort": 80 }, { "containerPort": 80 }]),
                json!([{ "containerPort": 53, "protocol": "TCP" }, { "containerPort": 53, "protocol": "UDP" }]),
                json!([{ "name": "web", "containerPort": 80 }, { "name": "web", "containerPort": 81 }]),
                json!([{ "containerPort": 0 }]),
                json!([{ "name": "a-name-that-is-too-long", "containerPort": 80 }]),
            ],
        ),
    ]
}

fn amounts_of_container() -> Vec<Field> {
    let resources = |requests: Value, limits: Value| json!({ "requests": requests, "limits": limits });
    vec![
        (
            "resources",
            vec![
                json!({}),
                resources(json!({ "cpu": "100m" }), json!({ "cpu": 1, "memory": "1Gi" })),
                resources(json!({ "cpu": 0.5, "memory": 1e9 }), json!({})),
                resources(json!({ "cpu": "0.3333333333333333" }), json!({ "ephemeral-storage": "1Gi" })),
                resources(json!({ "cpu": "0" }), json!({ "memory": "100Ki" })),
                resources(json!({ "cpu": "2" }), json!({ "cpu": "1" })),
                resources(json!({ "cpu": "-1" }), json!({})),
            ],
        ),
        ("imagePullPolicy", vec![json!("Always"), json!("IfNotPresent"), json!("Never"), json!("Sometimes")]),
        ("command", vec![json!(["sh", "-c", "sleep 1"]), json!([]), json!([""]), json!("sh")]),
        ("args", vec![json!(["--a=$(HOME)", ""]), json!(null)]),
        ("workingDir", vec![json!("/"), json!("relative")]),
        ("tty", vec![json!(true), json!(false)]),
        ("stdin", vec![json!(true)]),
    ]
}

fn life_of_container() -> Vec<Field> {
    vec![
        (
            "livenessProbe",
            vec![
                json!({ "httpGet": { "path": "/", "port": 80 }, "periodSeconds": 3 }),
                json!({ "tcpSocket": { "port": "web" } }),
                json!({ "exec": { "command": ["true"] }, "successThreshold": 2 }),
                json!({ "grpc": { "port": 80 } }),
                json!({}),
            ],
        ),
        (
            "lifecycle",
            vec![
                json!({ "preStop": { "exec": { "command": ["sleep", "1"] } } }),
                json!({ "preStop": { "sleep": { "seconds": 1 } } }),
                json!({ "postStart": {} }),
            ],
        ),
        (
            "securityContext",
            vec![
                json!({ "runAsNonRoot": true, "runAsUser": 1000, "allowPrivilegeEscalation": false }),
                json!({ "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] } }),
                json!({ "readOnlyRootFilesystem": true, "procMount": "Default" }),
                json!({ "privileged": true, "allowPrivilegeEscalation": false }),
            ],
        ),
        ("terminationMessagePolicy", vec![json!("File"), json!("FallbackToLogsOnError"), json!("Both")]),
        ("resizePolicy", vec![json!([{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }])]),
        (
            "volumeMounts",
            vec![
                json!([{ "name": "v", "mountPath": "/v" }]),
                json!([{ "name": "v", "mountPath": "/v", "subPath": "a" }, { "name": "v", "mountPath": "/w" }]),
                json!([{ "name": "v", "mountPath": "/v" }, { "name": "v", "mountPath": "/v" }]),
                json!([{ "name": "missing", "mountPath": "/m" }]),
            ],
        ),
    ]
}

/// Fields of the pod's spec.
fn of_spec() -> Vec<Field> {
    [volumes(), lists_of_spec(), placement(), names_of_spec(), switches()].concat()
}

fn volumes() -> Vec<Field> {
    let volume = |source: Value| json!([merged(json!({ "name": "v" }), &source)]);
    vec![(
        "volumes",
        vec![
            volume(json!({ "emptyDir": {} })),
            volume(json!({ "emptyDir": { "medium": "Memory", "sizeLimit": "64Mi" } })),
            volume(json!({ "configMap": { "name": "no", "optional": true, "defaultMode": 0o644 } })),
            volume(json!({ "projected": { "sources": [
                    { "serviceAccountToken": { "path": "token", "expirationSeconds": 3600 } },
                    { "downwardAPI": { "items": [{ "path": "l", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
                ] } })),
            volume(json!({ "hostPath": { "path": "/tmp" } })),
            volume(json!({})),
            json!([{ "name": "v", "emptyDir": {} }, { "name": "v", "emptyDir": {} }]),
            volume(json!({ "emptyDir": {}, "hostPath": { "path": "/tmp" } })),
        ],
    )]
}

fn lists_of_spec() -> Vec<Field> {
    vec![
        (
            "initContainers",
            vec![
                json!([{ "name": "init", "image": "registry.test/init:1" }]),
                json!([{ "name": "sidecar", "image": "registry.test/side:1", "restartPolicy": "Always" }]),
                json!([{ "name": "app", "image": "registry.test/init:1" }]),
                json!([]),
            ],
        ),
        (
            "hostAliases",
            vec![
                json!([{ "ip": "10.0.0.1", "hostnames": ["a", "b"] }]),
                json!([{ "ip": "10.0.0.1", "hostnames": ["a"] }, { "ip": "10.0.0.1", "hostnames": ["b"] }]),
                json!([{ "ip": "no address", "hostnames": ["a"] }]),
            ],
        ),
        (
            "imagePullSecrets",
            vec![json!([{ "name": "a" }]), json!([{ "name": "a" }, { "name": "a" }]), json!([{}, { "name": "" }])],
        ),
        (
            "tolerations",
            vec![
                json!([{ "operator": "Exists" }]),
                json!([{
                    "key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute", "tolerationSeconds": 30,
                }]),
                json!([{ "key": "a", "effect": "Never" }]),
            ],
        ),
    ]
}

fn placement() -> Vec<Field> {
    let spread = |key: &str| {
        json!({
            "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": { "a": "b" } },
        })
    };
    let term =
        json!({ "matchExpressions": [{ "key": "kubernetes.io/os", "operator": "NotIn", "values": ["windows"] }] });
    vec![
        (
            "topologySpreadConstraints",
            vec![
                json!([spread("kubernetes.io/hostname")]),
                json!([spread("zone"), spread("kubernetes.io/hostname")]),
                json!([spread("zone"), spread("zone")]),
            ],
        ),
        (
            "affinity",
            vec![
                json!({}),
                json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [term],
                } } }),
                json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
                    "weight": 1, "podAffinityTerm": { "topologyKey": "kubernetes.io/hostname" },
                }] } }),
                json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
                    "weight": 200, "podAffinityTerm": { "topologyKey": "" },
                }] } }),
            ],
        ),
    ]
}

fn names_of_spec() -> Vec<Field> {
    vec![
        ("dnsPolicy", vec![json!("Default"), json!("ClusterFirstWithHostNet"), json!("None"), json!("Maybe")]),
        (
            "dnsConfig",
            vec![
                json!({ "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] }),
                json!({ "nameservers": ["x"] }),
            ],
        ),
    ]
}

fn switches() -> Vec<Field> {
    vec![
        ("terminationGracePeriodSeconds", vec![json!(0), json!(1), json!(-1)]),
        ("restartPolicy", vec![json!("Always"), json!("Never")]),
        ("enableServiceLinks", vec![json!(false)]),
        ("shareProcessNamespace", vec![json!(true)]),
        ("setHostnameAsFQDN", vec![json!(false)]),
        ("hostname", vec![json!("fixed"), json!("Not Valid")]),
        ("subdomain", vec![json!("sub")]),
        ("automountServiceAccountToken", vec![json!(false)]),
        ("nodeSelector", vec![json!({ "kubernetes.io/os": "linux" }), json!({})]),
        ("activeDeadlineSeconds", vec![json!(100)]),
        ("os", vec![json!({ "name": "linux" })]),
        ("preemptionPolicy", vec![json!("PreemptLowerPriority")]),
        (
            "securityContext",
            vec![
                json!({ "runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [1, 1] }),
                json!({ "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }] }),
                json!({ "seccompProfile": { "type": "RuntimeDefault" } }),
                json!({ "seccompProfile": { "type": "Localhost" } }),
            ],
        ),
        ("resources", vec![json!({ "requests": { "cpu": "1" }, "limits": { "cpu": "2", "memory": "1Gi" } })]),
        ("schedulingGates", vec![json!([])]),
        ("hostNetwork", vec![json!(false)]),
    ]
}

fn set_some(random: &mut StdRng, fields: Vec<Field>, target: &mut Map<String, Value>) {
    for (name, values) in fields {
        if random.random_bool(0.08)
            && let Some(value) = values.choose(random)
        {
            target.insert(name.to_owned(), value.clone());
        }
    }
}

/// A template; about half of them are right.
fn template(random: &mut StdRng) -> Value {
    let mut spec = Map::new();
    let mut app = Map::new();
    let mut names = vec!["app", "side"];
    names.truncate(random.random_range(1..=2));
    let mut containers = Vec::new();
    set_some(random, of_container(), &mut app);
    for name in names {
        let mut container = if name == "app" { app.clone() } else { Map::new() };
        container.insert("name".to_owned(), json!(name));
        container.insert("image".to_owned(), json!(format!("registry.test/{name}:1")));
        containers.push(Value::Object(container));
    }
    set_some(random, of_spec(), &mut spec);
    // A mount has its volume more often than not.
    if app.contains_key("volumeMounts") && random.random_bool(0.8) {
        spec.entry("volumes").or_insert_with(|| json!([{ "name": "v", "emptyDir": {} }]));
    }
    spec.insert("containers".to_owned(), Value::Array(containers));
    json!({ "metadata": { "labels": { "a": "b" } }, "spec": spec })
}

fn deployment(name: &str, template: &Value) -> Value {
    let mut template = template.clone();
    template["metadata"]["labels"]["of"] = json!(name);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "of": name } }, "template": template },
    })
}

fn workload(name: &str, template: &Value) -> Value {
    json!({
        "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload", "metadata": { "name": name },
        "spec": { "replicas": 1, "container": { "template": template } },
    })
}

/// What became of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// Its pod is ready.
    Runs,
    /// Refused, with these words.
    Refused(String),
}

/// Creates an object as it is written; what the API server said if it would not.
async fn create<K>(ground: &Ground, object: Value) -> Result<Option<String>>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    let api: Api<DynamicObject> =
        Api::namespaced_with(ground.client.clone(), &ground.namespace, &ApiResource::erase::<K>(&()));
    match api.create(&PostParams::default(), &serde_json::from_value(object)?).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => Ok(Some(status.message)),
        Err(error) => Err(error.into()),
    }
}

/// Where a pod of each name is ready, by a label.
async fn ready(ground: &Ground, label: &str) -> Result<BTreeMap<String, bool>> {
    let pods: Api<Pod> = ground.api();
    let pods = pods.list(&ListParams::default().labels(label)).await?;
    let of = |pod: &Pod| Some((pod.labels().get(label)?.clone(), pod_is_ready(pod)));
    Ok(pods.items.iter().filter_map(of).collect())
}

/// What a workload says that keeps it from running.
fn trouble(workload: &ElasticWorkload) -> Option<String> {
    ["Stalled", "ReplicaFailure"].into_iter().find_map(|type_| {
        let found = condition(workload, type_)?;
        (found.status == "True").then(|| found.message.clone())
    })
}

async fn fates_of_deployments(ground: &Ground, refused: &BTreeMap<String, String>) -> Result<BTreeMap<String, Fate>> {
    let deployments: Api<Deployment> = ground.api();
    let mut fates: BTreeMap<_, _> =
        refused.iter().map(|(name, why)| (name.clone(), Fate::Refused(why.clone()))).collect();
    let pods = ready(ground, "of").await?;
    for deployment in deployments.list(&ListParams::default()).await? {
        let name = deployment.name_any();
        let conditions = deployment.status.and_then(|status| status.conditions).unwrap_or_default();
        let failure = conditions.iter().find(|found| found.type_ == "ReplicaFailure" && found.status == "True");
        if pods.get(&name) == Some(&true) {
            fates.insert(name, Fate::Runs);
        } else if let Some(failure) = failure {
            fates.insert(name, Fate::Refused(failure.message.clone().unwrap_or_default()));
        }
    }
    Ok(fates)
}

async fn fates_of_workloads(ground: &Ground, refused: &BTreeMap<String, String>) -> Result<BTreeMap<String, Fate>> {
    let workloads: Api<ElasticWorkload> = ground.api();
    let mut fates: BTreeMap<_, _> =
        refused.iter().map(|(name, why)| (name.clone(), Fate::Refused(why.clone()))).collect();
    let pods = ready(ground, WORKLOAD_LABEL).await?;
    for workload in workloads.list(&ListParams::default()).await? {
        let name = workload.name_any();
        let is_ready = condition(&workload, "Ready").is_some_and(|ready| ready.status == "True");
        if is_ready && pods.get(&name) == Some(&true) {
            fates.insert(name, Fate::Runs);
        } else if let Some(trouble) = trouble(&workload) {
            fates.insert(name, Fate::Refused(trouble));
        }
    }
    Ok(fates)
}

/// What was seen of some specs.
#[derive(Default)]
struct Seen {
    ran: usize,
    refused: usize,
    /// Those that a Deployment and a workload do not agree on.
    other: Vec<String>,
}

/// Tries one batch.
async fn batch(ground: &Ground, templates: &BTreeMap<String, Value>, seen: &mut Seen) -> Result<()> {
    let (mut of_deployments, mut of_workloads) = (BTreeMap::new(), BTreeMap::new());
    for (name, template) in templates {
        let answer = create::<Deployment>(ground, deployment(name, template)).await?;
        of_deployments.extend(answer.map(|message| (name.clone(), message)));
        let answer = create::<ElasticWorkload>(ground, workload(name, template)).await?;
        of_workloads.extend(answer.map(|message| (name.clone(), message)));
    }
    let outcome = eventually("each has come to an end", BATCH_WITHIN, || async {
        let theirs = fates_of_deployments(ground, &of_deployments).await?;
        let ours = fates_of_workloads(ground, &of_workloads).await?;
        let open: Vec<String> = templates
            .keys()
            .filter(|name| !theirs.contains_key(*name) || !ours.contains_key(*name))
            .map(|name| format!("{name}: {:?} and {:?}: {}", theirs.get(name), ours.get(name), templates[name]))
            .collect();
        ensure!(open.is_empty(), "{}", open.join("\n"));
        Ok(Some((theirs, ours)))
    });
    let (theirs, ours) = outcome.await?;
    let runs = |fate: &Fate| *fate == Fate::Runs;
    let other = templates
        .iter()
        .filter(|(name, _)| runs(&theirs[*name]) != runs(&ours[*name]))
        .map(|(name, template)| format!("a Deployment {:?}, a workload {:?}: {template}", theirs[name], ours[name]));
    seen.other.extend(other);
    let count = ours.values().filter(|fate| runs(fate)).count();
    seen.ran += count;
    seen.refused += templates.len() - count;
    Ok(())
}

async fn clear(ground: &Ground) -> Result<()> {
    let (deployments, workloads) = (ground.api::<Deployment>(), ground.api::<ElasticWorkload>());
    deployments.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    workloads.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let pods: Api<Pod> = ground.api();
    eventually("all pods are gone", BATCH_WITHIN, || async {
        Ok(pods.list(&ListParams::default()).await?.items.is_empty().then_some(()))
    })
    .await
}

pub(crate) async fn what_a_deployment_runs_runs(ground: Ground) -> Result<()> {
    let mut random = random()?;
    let mut seen = Seen::default();
    for number in 0..batches() {
        let templates: BTreeMap<String, Value> =
            (0..BATCH).map(|index| (format!("spec-{number}-{index}"), template(&mut random))).collect();
        batch(&ground, &templates, &mut seen).await.with_context(|| format!("batch {number}"))?;
        clear(&ground).await?;
    }
    let Seen { ran, refused, other } = seen;
    println!("{ran} specs ran and {refused} were refused, {} of them otherwise than with a Deployment", other.len());
    ensure!(other.is_empty(), "{}", other.join("\n"));
    ensure!(ran >= batches() * BATCH / 10, "too few are right to say much: {ran}, {refused}");
    ground.quiet().await
}
