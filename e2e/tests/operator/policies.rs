//! What a cluster lays down for pods: limits, quotas, Pod Security, policies and webhooks. Each of them comes before a
//! workload and while it runs; then the workload runs, is edited, scaled and rolled out. What they refuse is reported
//! in the API server's words, what they change is left so, the bounds of the rollout are kept, and at the end nothing
//! is written any more.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    wait::eventually,
    webhook::{Verdict, Webhook},
    workloads::{any_object, condition},
};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::support::{Ground, merged};

/// A refusal is tried again with growing pauses, and the controllers' own ones are among them.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// What becomes of a step.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Ready,
    /// Refused, with these words of the API server in the workload's conditions.
    Told(&'static str),
}
use Outcome::{Ready, Told};

/// What is done with a workload.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Another CPU limit, in place.
    Edit,
    /// Four replicas, of two.
    Scale,
    /// Another image.
    Roll,
}

impl Step {
    fn patches(self) -> [Value; 2] {
        let quota = |limit: &str| json!({ "spec": { "quota": { "cpu": { "limit": limit } } } });
        let replicas = |count: u32| json!({ "spec": { "replicas": count } });
        let image = |tag: u32| json!({ "spec": { "container": { "image": format!("registry.test/web:{tag}") } } });
        match self {
            Self::Edit => [quota("300m"), quota("150m")],
            Self::Scale => [replicas(4), replicas(2)],
            Self::Roll => [image(2), image(1)],
        }
    }
}

/// Something that is laid down in a namespace.
struct Law {
    objects: Vec<Value>,
    /// Whether it is in effect, by what comes of a pod that is made on trial.
    in_effect: fn(&Result<Pod, kube::Error>) -> bool,
    /// What becomes of a new workload of two replicas.
    run: Outcome,
    edit: Outcome,
    scale: Outcome,
    roll: Outcome,
}

impl Law {
    fn outcome(&self, step: Step) -> Outcome {
        match step {
            Step::Edit => self.edit,
            Step::Scale => self.scale,
            Step::Roll => self.roll,
        }
    }
}

fn manifest() -> String {
    "apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: web}
spec:
  replicas: 2
  container: {image: 'registry.test/web:1'}
  quota: {cpu: {request: 100m, limit: 150m}, memory: {request: 32Mi, limit: 64Mi}}
"
    .to_owned()
}

/// A pod like that of a workload, on trial: with what the steps change, and with more memory than any of them has.
async fn trial(ground: &Ground) -> Result<Pod, kube::Error> {
    let resources =
        json!({ "requests": { "cpu": "100m", "memory": "32Mi" }, "limits": { "cpu": "300m", "memory": "4Gi" } });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "trial" },
        "spec": { "containers": [{ "name": "main", "image": "registry.test/web:2", "resources": resources }] },
    });
    let pods: Api<Pod> = ground.api();
    let pod = serde_json::from_value(pod).expect("a pod");
    pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await
}

async fn lay_down(ground: &Ground, law: &Law) -> Result<()> {
    for object in &law.objects {
        ground.apply(&object.to_string()).await?;
    }
    eventually("it is in effect", TOLD_WITHIN, || async { Ok((law.in_effect)(&trial(ground).await).then_some(())) })
        .await
}

async fn lift(ground: &Ground, law: &Law) -> Result<()> {
    for object in law.objects.iter().rev() {
        if object["kind"] == "Namespace" {
            // Labels that are applied no more are taken off.
            let bare = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ground.namespace } });
            ground.apply(&bare.to_string()).await?;
        } else {
            let (api, name) = any_object(&ground.client, &ground.namespace, object).await?;
            api.delete(&name, &DeleteParams::default()).await?;
        }
    }
    eventually("it is no longer in effect", TOLD_WITHIN, || async {
        Ok((!(law.in_effect)(&trial(ground).await)).then_some(()))
    })
    .await
}

fn says(workload: &ElasticWorkload, words: &str) -> bool {
    ["Ready", "ReplicaFailure"].into_iter().filter_map(|type_| condition(workload, type_)).any(|found| {
        found.status == if found.type_ == "Ready" { "False" } else { "True" } && found.message.contains(words)
    })
}

/// A ReplicaSet controller that was refused for a minute asks again only after a minute.
const READY_WITHIN: Duration = Duration::from_secs(180);

async fn ready(ground: &Ground) -> Result<ElasticWorkload> {
    ground
        .wait_for("web", "is ready", READY_WITHIN, |workload| {
            condition(workload, "Ready").is_some_and(|ready| ready.status == "True")
        })
        .await
}

async fn comes_to(ground: &Ground, outcome: Outcome) -> Result<()> {
    match outcome {
        Ready => ready(ground).await?,
        Told(words) => {
            let what = format!("says {words:?}");
            ground.wait_for("web", &what, TOLD_WITHIN, |workload| says(workload, words)).await?
        }
    };
    Ok(())
}

/// Edits, scales and rolls out; what is refused is taken back.
async fn steps(ground: &Ground, law: &Law) -> Result<()> {
    for step in [Step::Edit, Step::Scale, Step::Roll] {
        let [there, back] = step.patches();
        ground.patch("web", &there).await?;
        comes_to(ground, law.outcome(step)).await.with_context(|| format!("{step:?}"))?;
        ground.patch("web", &back).await?;
        ready(ground).await.with_context(|| format!("back from {step:?}"))?;
    }
    Ok(())
}

/// The whole: the law first, and the workload first.
async fn under(ground: Ground, law: Law) -> Result<()> {
    lay_down(&ground, &law).await.context("before")?;
    let recorder = ground.record("web").await?;
    ground.apply(&manifest()).await?;
    comes_to(&ground, law.run).await.context("runs")?;
    if matches!(law.run, Ready) {
        steps(&ground, &law).await.context("before")?;
    }
    ground.quiet().await.context("quiet under it")?;
    lift(&ground, &law).await?;
    ready(&ground).await.context("runs without it")?;
    lay_down(&ground, &law).await.context("while it runs")?;
    steps(&ground, &law).await.context("while it runs")?;
    lift(&ground, &law).await?;
    ready(&ground).await.context("ready at the end")?;
    recorder.finish(ground.quiet()).await?;
    Ok(())
}

fn is_refused(trial: &Result<Pod, kube::Error>) -> bool {
    trial.is_err()
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    pod.spec.as_ref()?.containers.iter().find(|container| container.name == name)
}

fn request(pod: &Pod) -> Option<&str> {
    Some(container(pod, "main")?.resources.as_ref()?.requests.as_ref()?.get("cpu")?.0.as_str())
}

fn limits(limits: &Value) -> Value {
    let limit = merged(json!({ "type": "Container" }), limits);
    json!({ "apiVersion": "v1", "kind": "LimitRange", "metadata": { "name": "limits" }, "spec": { "limits": [limit] } })
}

/// A policy and its binding for one namespace. `kind` is `ValidatingAdmissionPolicy` or `MutatingAdmissionPolicy`.
fn policy(ground: &Ground, kind: &str, resource: [&str; 2], spec: &Value) -> Vec<Value> {
    let name = format!("{}-{}", ground.namespace, resource[1]);
    let [group, plural] = resource;
    let matched = json!({
        "failurePolicy": "Fail",
        "matchConstraints": {
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": ground.namespace } },
            "resourceRules": [{
                "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [plural],
            }],
        },
    });
    let object = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        })
    };
    let mut binding = json!({ "policyName": name });
    if kind == "ValidatingAdmissionPolicy" {
        binding["validationActions"] = json!(["Deny"]);
    }
    vec![object(kind, merged(matched, spec)), object(&format!("{kind}Binding"), binding)]
}

pub(crate) async fn defaults_of_a_limit_range(ground: Ground) -> Result<()> {
    let range = limits(&json!({ "default": { "ephemeral-storage": "1Gi" }, "defaultRequest": { "cpu": "50m" } }));
    let law = Law {
        objects: vec![range],
        in_effect: |trial| {
            let pod = trial.as_ref().ok().and_then(|pod| container(pod, "main"));
            let limits = pod.and_then(|main| main.resources.as_ref()?.limits.clone());
            limits.is_some_and(|limits| limits.contains_key("ephemeral-storage"))
        },
        run: Ready,
        edit: Ready,
        scale: Ready,
        roll: Ready,
    };
    under(ground, law).await
}

pub(crate) async fn the_maximum_of_a_limit_range(ground: Ground) -> Result<()> {
    let law = Law {
        objects: vec![limits(&json!({ "max": { "cpu": "200m" } }))],
        in_effect: is_refused,
        run: Ready,
        edit: Told("maximum cpu usage per Container is 200m"),
        scale: Ready,
        roll: Ready,
    };
    under(ground, law).await
}

pub(crate) async fn a_resource_quota(ground: Ground) -> Result<()> {
    let hard = json!({ "pods": "3", "limits.memory": "1Gi" });
    let law = Law {
        objects: vec![json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "few" }, "spec": { "hard": hard },
        })],
        in_effect: is_refused,
        run: Ready,
        edit: Ready,
        scale: Told("exceeded quota"),
        roll: Ready,
    };
    under(ground, law).await
}

pub(crate) async fn pod_security(ground: Ground) -> Result<()> {
    let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    let law = Law {
        objects: vec![json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": ground.namespace, "labels": labels },
        })],
        in_effect: is_refused,
        run: Told("violates PodSecurity"),
        edit: Ready,
        scale: Told("violates PodSecurity"),
        roll: Told("violates PodSecurity"),
    };
    under(ground, law).await
}

pub(crate) async fn a_policy_that_refuses_an_image(ground: Ground) -> Result<()> {
    let spec = json!({ "validations": [{
        "expression": "object.spec.containers.all(c, !c.image.endsWith(':2'))", "message": "tag 2 is not released",
    }] });
    let law = Law {
        objects: policy(&ground, "ValidatingAdmissionPolicy", ["", "pods"], &spec),
        in_effect: is_refused,
        run: Ready,
        edit: Ready,
        scale: Ready,
        roll: Told("tag 2 is not released"),
    };
    under(ground, law).await
}

/// The sets themselves are closed, for whoever writes them.
pub(crate) async fn a_policy_that_closes_replica_sets(ground: Ground) -> Result<()> {
    let spec = json!({ "validations": [
        { "expression": "object.spec.replicas < 4", "message": "at most 3 replicas a set" },
    ] });
    let mut objects = policy(&ground, "ValidatingAdmissionPolicy", ["apps", "replicasets"], &spec);
    // For the trial.
    let pods = json!({ "validations": [
        { "expression": "object.metadata.name != 'trial'", "message": "no trials" },
    ] });
    objects.extend(policy(&ground, "ValidatingAdmissionPolicy", ["", "pods"], &pods));
    let law = Law {
        objects,
        in_effect: is_refused,
        run: Ready,
        edit: Ready,
        scale: Told("at most 3 replicas a set"),
        roll: Ready,
    };
    under(ground, law).await
}

pub(crate) async fn a_policy_that_adds_a_sidecar(ground: Ground) -> Result<()> {
    let added = "JSONPatch{op: 'add', path: '/spec/containers/0', \
                 value: Object.spec.containers{name: 'proxy', image: 'registry.test/proxy:1'}}";
    let spec = json!({
        "reinvocationPolicy": "Never",
        "matchConditions": [{
            "name": "once", "expression": "oldObject == null && !object.spec.containers.exists(c, c.name == 'proxy')",
        }],
        "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": format!("[{added}]") } }],
    });
    let law = Law {
        objects: policy(&ground, "MutatingAdmissionPolicy", ["", "pods"], &spec),
        in_effect: |trial| trial.as_ref().ok().is_some_and(|pod| container(pod, "proxy").is_some()),
        run: Ready,
        edit: Ready,
        scale: Ready,
        roll: Ready,
    };
    under(ground, law).await
}

/// As VerticalPodAutoscaler does in mode Initial: what it gives is told, and not fought over.
pub(crate) async fn a_policy_that_gives_other_requests(ground: Ground) -> Result<()> {
    let given = "JSONPatch{op: 'replace', path: '/spec/containers/0/resources/requests/cpu', value: '120m'}";
    let spec = json!({
        "reinvocationPolicy": "Never",
        "matchConditions": [{ "name": "new", "expression": "oldObject == null" }],
        "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": format!("[{given}]") } }],
    });
    let law = Law {
        objects: policy(&ground, "MutatingAdmissionPolicy", ["", "pods"], &spec),
        in_effect: |trial| trial.as_ref().ok().and_then(request) == Some("120m"),
        run: Ready,
        edit: Ready,
        scale: Ready,
        roll: Ready,
    };
    lay_down(&ground, &law).await?;
    ground.apply(&manifest()).await?;
    ground
        .wait_for("web", "tells what was changed", TOLD_WITHIN, |workload| {
            condition(workload, "QuotaEnforced").is_some_and(|found| {
                found.status == "False" && found.reason == "ChangedAtAdmission" && found.message.contains("120m")
            })
        })
        .await?;
    ready(&ground).await?;
    let pods = ground.staying_pods("web").await?;
    ensure!(pods.iter().all(|pod| request(pod) == Some("120m")), "they are left so");
    ensure!(pods.iter().all(|pod| pod.metadata.generation == Some(1)), "nobody wrote their specs");
    ground.quiet().await?;
    // A quota that is asked for later reaches them: that was no matter of admission.
    ground.patch("web", &json!({ "spec": { "quota": { "cpu": { "request": "110m" } } } })).await?;
    eventually("they have it", TOLD_WITHIN, || async {
        let pods = ground.staying_pods("web").await?;
        Ok(pods.iter().all(|pod| request(pod) == Some("110m")).then_some(()))
    })
    .await?;
    lift(&ground, &law).await?;
    let workloads: Api<ElasticWorkload> = ground.api();
    workloads.delete("web", &DeleteParams::default()).await?;
    eventually("all pods are gone", TOLD_WITHIN, || async {
        Ok(ground.staying_pods("web").await?.is_empty().then_some(()))
    })
    .await?;
    under(ground, law).await
}

/// A webhook for the new pods of one namespace.
fn webhook_for_pods(ground: &Ground, kind: &str, client: &Value) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": { "name": format!("{}-pods", ground.namespace) },
        "webhooks": [{
            "name": "pods.policy.example.com", "failurePolicy": "Fail", "sideEffects": "None",
            "timeoutSeconds": 2, "admissionReviewVersions": ["v1"], "clientConfig": client,
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
            }],
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": ground.namespace } },
        }],
    })
}

pub(crate) async fn a_webhook_for_pods_that_is_down(ground: Ground) -> Result<()> {
    let client = json!({ "service": { "name": "policy", "namespace": "policy-system", "path": "/validate" } });
    let law = Law {
        objects: vec![webhook_for_pods(&ground, "ValidatingWebhookConfiguration", &client)],
        in_effect: is_refused,
        run: Told("failed calling webhook"),
        edit: Ready,
        scale: Told("failed calling webhook"),
        roll: Told("failed calling webhook"),
    };
    under(ground, law).await
}

/// What a mesh and an image policy do, in one: it adds a container to new pods and refuses a tag.
fn of_a_mesh(request: &Value) -> Verdict {
    let containers = request["object"]["spec"]["containers"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    if containers.iter().any(|container| container["image"] == "registry.test/web:2") {
        return Verdict::Denied("tag 2 is not signed".to_owned());
    }
    let proxy = json!({ "name": "proxy", "image": "registry.test/proxy:1" });
    Verdict::Changed(json!([{ "op": "add", "path": "/spec/containers/0", "value": proxy }]))
}

pub(crate) async fn a_webhook_for_pods(ground: Ground) -> Result<()> {
    let webhook = Webhook::start(&ground.control_plane, of_a_mesh).await?;
    let law = Law {
        objects: vec![webhook_for_pods(&ground, "MutatingWebhookConfiguration", &webhook.client_config())],
        in_effect: is_refused,
        run: Ready,
        edit: Ready,
        scale: Ready,
        roll: Told("tag 2 is not signed"),
    };
    under(ground, law).await
}
