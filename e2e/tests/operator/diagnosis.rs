//! Thirty broken workloads, as their owner meets them: what `kubectl apply` answers, or `kubectl get` and
//! `kubectl describe` of the workload alone, name the cause and the way out.

use std::time::Duration;

use anyhow::{Result, ensure};
use catamaran_crds::names::WORKLOAD_LABEL;
use catamaran_e2e::wait::eventually;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::support::{Ground, merged};

/// The longest of them are deadlines of 5 s behind a refusal that is tried again with pauses.
const WITHIN: Duration = Duration::from_secs(180);

struct Broken {
    what: &'static str,
    /// What is there before it, as YAML.
    before: &'static str,
    spec: &'static str,
    /// What the kubelet reports of its first container, which the simulated one does not.
    container: Option<fn() -> Value>,
    cause: &'static [&'static str],
    way_out: &'static [&'static str],
}

const fn broken(
    what: &'static str,
    spec: &'static str,
    cause: &'static [&'static str],
    way_out: &'static [&'static str],
) -> Broken {
    Broken { what, before: "", spec, container: None, cause, way_out }
}

/// Never started by the simulated kubelet, for others to report of it.
const STUCK: &str = "{container: {template: {metadata: {annotations: {kwok.catamaran.dev/start-delay: 1h}}, spec: {containers: [{name: app, image: 'registry.test/web:1', readinessProbe: {httpGet: {port: 81}}}]}}}, rollout: {progressDeadlineSeconds: 5}}";

/// Such a kubelet that waits for a volume.
const WITHOUT_ITS_VOLUME: &str = "{container: {template: {metadata: {annotations: {kwok.catamaran.dev/start-delay: 1h}}, spec: {containers: [{name: app, image: 'registry.test/web:1'}], volumes: [{name: tls, secret: {secretName: certificate}}]}}}, rollout: {progressDeadlineSeconds: 5}}";

fn refused_before_admission() -> Vec<Broken> {
    vec![
        broken("a misspelt field", "{container: {imagee: a}}", &["imagee"], &["not declared in schema"]),
        broken("no hull", "{replicas: 1}", &["container", "virtualMachine"], &["exactly one of"]),
        broken(
            "a request above its limit",
            "{container: {image: a}, quota: {cpu: {request: 2, limit: 1}}}",
            &["quota.cpu.request"],
            &["lower the request or raise the limit"],
        ),
        broken(
            "bounds that cross",
            "{container: {image: a}, scaling: {minReplicas: 5, maxReplicas: 2, metrics: []}}",
            &["minReplicas"],
            &["maxReplicas"],
        ),
        broken(
            "a time zone that is none",
            "{container: {image: a}, scaling: {maxReplicas: 2, schedules: [{name: s, timeZone: Europe/Pariss, start: '0 0 * * *', end: '0 1 * * *', minReplicas: 2}]}}",
            &["Europe/Pariss"],
            &["time zone", "Europe/Paris"],
        ),
        broken(
            "a guest without memory",
            "{virtualMachine: {image: 'registry.test/vm:1'}}",
            &["memory"],
            &["quota.memory"],
        ),
        broken(
            "two ports of one number",
            "{container: {image: a}, service: {ports: [{port: 80}, {port: 80}]}}",
            &["port"],
            &["service.ports"],
        ),
    ]
}

fn refused_by_others() -> Vec<Broken> {
    let create: &[&str] = &["create it, or correct its name", "tries again by itself"];
    vec![
        broken(
            "a service account that is missing",
            "{container: {template: {spec: {serviceAccountName: nobody, containers: [{name: a, image: a}]}}}}",
            &["serviceaccount \"nobody\" not found"],
            create,
        ),
        broken(
            "a priority class that is missing",
            "{container: {template: {spec: {priorityClassName: urgent, containers: [{name: a, image: a}]}}}}",
            &["no PriorityClass with name urgent"],
            create,
        ),
        broken(
            "a runtime class that is missing",
            "{container: {template: {spec: {runtimeClassName: gvisor, containers: [{name: a, image: a}]}}}}",
            &["RuntimeClass \"gvisor\" not found"],
            create,
        ),
        Broken {
            before: "apiVersion: v1\nkind: LimitRange\nmetadata: {name: max}\nspec: {limits: [{type: Container, max: {memory: 64Gi}}]}\n",
            ..broken(
                "more than a LimitRange allows",
                "{container: {image: a}, quota: {memory: {limit: 65Gi}}}",
                &["maximum memory usage per Container is 64Gi"],
                &["spec.quota", "LimitRange"],
            )
        },
        Broken {
            before: "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: few}\nspec: {hard: {requests.example.com/gpu: '1'}}\n",
            ..broken(
                "a full ResourceQuota",
                "{container: {template: {spec: {containers: [{name: a, image: a, resources: {limits: {example.com/gpu: 2}}}]}}}}",
                &["exceeded quota: few"],
                &["ask for less", "raise that ResourceQuota"],
            )
        },
        broken(
            "a template that the API server refuses",
            "{container: {template: {spec: {containers: [{name: a, image: a, volumeMounts: [{name: v, mountPath: /v}]}]}}}}",
            &["volumeMounts[0].name: Not found"],
            &["correct that field, or what it refers to"],
        ),
        Broken {
            before: "apiVersion: v1\nkind: Service\nmetadata: {name: b-13}\nspec: {ports: [{port: 1}]}\n",
            ..broken(
                "a Service of its name that is not its own",
                "{container: {image: a}, service: {ports: [{port: 80}]}}",
                &["Service b-13 exists and is not owned"],
                &["delete it, or choose another metadata.name"],
            )
        },
        broken(
            "a class that is missing",
            "{container: {image: a}, className: gold}",
            &["WorkloadClass \"gold\" does not exist"],
            &["create it", "spec.className"],
        ),
    ]
}

fn unplaceable() -> Vec<Broken> {
    vec![
        broken(
            "more CPU than a node has",
            "{container: {image: a}, quota: {cpu: {request: 5000}}}",
            &["Insufficient cpu"],
            &["spec.quota", "add nodes"],
        ),
        broken(
            "a node that there is not",
            "{container: {image: a}, placement: {nodeSelector: {disk: golden}}}",
            &["didn't match Pod's node affinity/selector"],
            &["label a node", "nodeSelector"],
        ),
        broken(
            "a volume claim that is missing",
            "{container: {template: {spec: {containers: [{name: a, image: a}], volumes: [{name: v, persistentVolumeClaim: {claimName: lost}}]}}}}",
            &["persistentvolumeclaim \"lost\" not found"],
            &["create or correct the claim"],
        ),
        broken(
            "a spread that cannot be",
            "{container: {image: a}, placement: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: nowhere, whenUnsatisfiable: DoNotSchedule}]}}",
            &["didn't match pod topology spread constraints"],
            &["topologyKey", "topologySpreadConstraints"],
        ),
    ]
}

fn kubelet(
    what: &'static str,
    container: fn() -> Value,
    cause: &'static [&'static str],
    way_out: &'static [&'static str],
) -> Broken {
    Broken { container: Some(container), ..broken(what, STUCK, cause, way_out) }
}

fn waits(reason: &str, message: &str) -> Value {
    json!({ "state": { "waiting": { "reason": reason, "message": message } } })
}

fn crashed(code: u32, reason: &str) -> Value {
    let ended = json!({ "terminated": { "exitCode": code, "reason": reason, "finishedAt": "2026-01-01T00:00:00Z" } });
    json!({ "restartCount": 3, "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": ended })
}

fn broken_on_the_node() -> Vec<Broken> {
    vec![
        broken(
            "an image that is not there",
            "{container: {image: 'registry.test/web:broken'}}",
            &["registry.test/web:broken", "cannot be pulled"],
            &["correct the image", "pull secret", "kubectl describe pod b-", "the registry's answer"],
        ),
        kubelet(
            "a Secret that is missing",
            || waits("CreateContainerConfigError", "secret \"password\" not found"),
            &["secret \"password\" not found"],
            &["create it, or correct the template"],
        ),
        kubelet(
            "a program that ends",
            || crashed(1, "Error"),
            &["exit code 1"],
            &["kubectl logs b-", "-c app --previous"],
        ),
        kubelet("too little memory", || crashed(137, "OOMKilled"), &["OOMKilled"], &["quota.memory.limit"]),
        kubelet(
            "a command that is not there",
            || waits("RunContainerError", "exec: \"srever\": executable file not found in $PATH"),
            &["executable file not found"],
            &["correct the template, or the image"],
        ),
        kubelet(
            "a probe of the wrong port",
            || json!({ "started": true, "state": { "running": {} } }),
            &["readiness probe does not succeed"],
            &["path and port"],
        ),
        Broken {
            spec: WITHOUT_ITS_VOLUME,
            ..kubelet(
                "a volume that does not come",
                || waits("ContainerCreating", ""),
                &["no progress for 5 s", "has not set up its volumes (Secret certificate)"],
                &["kubectl describe pod", "create what is missing"],
            )
        },
    ]
}

fn held_or_blind() -> Vec<Broken> {
    vec![
        broken(
            "a metric that nobody serves",
            "{container: {image: a}, quota: {cpu: {request: 10m}}, scaling: {maxReplicas: 3, metrics: [{type: External, external: {metric: {name: no-such-metric}, target: {type: Value, value: 1}}}]}}",
            &["no-such-metric", "FailedGetExternalMetric"],
            &["spec.scaling.metrics", "external.metrics.k8s.io"],
        ),
        broken(
            "a utilization of nothing",
            "{container: {image: a}, scaling: {maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}}",
            &["request"],
            &["quota.cpu"],
        ),
        broken(
            "a Prometheus that may not be asked",
            "{container: {image: a}, quota: {cpu: {request: 10m}}, scaling: {maxReplicas: 3, metrics: [{type: Prometheus, prometheus: {serverAddress: 'http://127.0.0.1:9', query: up, target: {value: 1}}}]}}",
            &["127.0.0.1"],
            &["allowed"],
        ),
        broken(
            "a limit that no agent holds",
            "{container: {image: a}, quota: {pids: 10}}",
            &["not known to be held"],
            &["agent.enabled=true", "app.kubernetes.io/part-of=catamaran"],
        ),
    ]
}

fn all() -> Vec<Broken> {
    let groups =
        [refused_before_admission(), refused_by_others(), unplaceable(), broken_on_the_node(), held_or_blind()];
    groups.into_iter().flatten().collect()
}

/// Reports what a kubelet would of the first container of each pod.
async fn report(ground: &Ground, name: &str, container: &Value) -> Result<()> {
    let pods: Api<Pod> = ground.api();
    for pod in pods.list(&ListParams::default().labels(&format!("{WORKLOAD_LABEL}={name}"))).await? {
        if pod.status.as_ref().is_none_or(|status| status.start_time.is_none()) {
            continue;
        }
        let status = json!({
            "name": "app", "image": "registry.test/web:1", "imageID": "", "ready": false, "restartCount": 0,
        });
        let status = merged(status, container);
        let patch = json!({ "status": { "containerStatuses": [status] } });
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await?;
    }
    Ok(())
}

/// What its owner reads.
async fn read(ground: &Ground, name: &str) -> Result<String> {
    let get =
        ground.control_plane.run_kubectl(&ground.namespace, &["get", "elasticworkload", name, "-o", "wide"]).await?;
    let describe = ground.control_plane.run_kubectl(&ground.namespace, &["describe", "elasticworkload", name]).await?;
    // As it is written, the spec would name every field.
    let told = describe.split_once("\nStatus:").map_or("", |(_, status)| status);
    // `describe` breaks no lines, but a message that is long is indented.
    Ok(format!("{get}\n{told}").split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What is missing in what is read of it, if anything.
async fn missing(ground: &Ground, name: &str, broken: &Broken, answer: Option<&str>) -> Result<Option<String>> {
    let text = match answer {
        Some(answer) => answer.to_owned(),
        None => {
            if let Some(container) = broken.container {
                report(ground, name, &container()).await?;
            }
            read(ground, name).await?
        }
    };
    let words: Vec<&str> =
        broken.cause.iter().chain(broken.way_out).filter(|word| !text.contains(**word)).copied().collect();
    Ok((!words.is_empty()).then(|| format!("{name}, {}: nothing of {words:?} in: {text}", broken.what)))
}

pub(crate) async fn thirty_broken_workloads_name_the_cause_and_the_way_out(ground: Ground) -> Result<()> {
    let all = all();
    ensure!(all.len() == 30, "{} workloads", all.len());
    let mut answers = Vec::new();
    for (index, broken) in all.iter().enumerate() {
        ground.apply(broken.before).await?;
        let manifest = format!(
            "apiVersion: catamaran.dev/v1alpha1\nkind: ElasticWorkload\nmetadata: {{name: b-{index}}}\nspec: {}\n",
            broken.spec
        );
        answers.push(ground.apply(&manifest).await.err().map(|error| format!("{error:#}")));
    }
    eventually("all of them are clear", WITHIN, || async {
        let mut unclear = Vec::new();
        for (index, (broken, answer)) in all.iter().zip(&answers).enumerate() {
            unclear.extend(missing(&ground, &format!("b-{index}"), broken, answer.as_deref()).await?);
        }
        ensure!(unclear.is_empty(), "{} of {} are unclear:\n{}", unclear.len(), all.len(), unclear.join("\n\n"));
        Ok(Some(()))
    })
    .await
}
