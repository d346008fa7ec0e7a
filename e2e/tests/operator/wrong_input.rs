//! Wrong manifests: each is refused by the API server, or gets a condition, that names the field and the way out. The
//! operator neither crashes nor spins, and other workloads go on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{
    installation::operator_user,
    wait::eventually,
    workloads::{WITHIN, condition, web},
};
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Service};
use kube::{Api, ResourceExt, api::DeleteParams};

use crate::support::Ground;

/// What is expected of a wrong manifest.
enum Expect {
    /// The API server refuses it, with these words in its answer.
    Refused(&'static [&'static str]),
    /// The workload is stalled for a reason, with these words in the message.
    Stalled(&'static str, &'static [&'static str]),
}

use Expect::{Refused, Stalled};

struct Case {
    what: &'static str,
    name: &'static str,
    spec: &'static str,
    expect: Expect,
}

const fn case(what: &'static str, spec: &'static str, expect: Expect) -> Case {
    Case { what, name: "wrong", spec, expect }
}

const CASES: &[Case] = &[
    case("no hull", "{replicas: 1}", Refused(&["exactly one of container and virtualMachine"])),
    case(
        "two hulls",
        "{container: {image: a}, virtualMachine: {image: b}, quota: {memory: {request: 64Mi}}}",
        Refused(&["exactly one of container and virtualMachine"]),
    ),
    case("an empty container", "{container: {}}", Refused(&["container", "image", "template"])),
    case(
        "an empty virtual machine",
        "{virtualMachine: {}, className: x}",
        Refused(&["virtualMachine", "image", "template"]),
    ),
    case("an empty image", "{container: {image: ''}}", Refused(&["spec.container.image"])),
    case(
        "image and template",
        "{container: {image: a, template: {spec: {containers: [{name: a, image: a}]}}}}",
        Refused(&["exactly one of image", "template"]),
    ),
    case(
        "short-form fields beside a template",
        "{container: {command: [x], template: {spec: {containers: [{name: a, image: a}]}}}}",
        Refused(&["template.spec.containers"]),
    ),
    case(
        "a template without containers",
        "{container: {template: {spec: {containers: []}}}}",
        Refused(&["at least one container"]),
    ),
    case(
        "a template without a spec",
        "{container: {template: {metadata: {labels: {a: b}}}}}",
        Refused(&["containers"]),
    ),
    case(
        "a restart policy that a replica set cannot have",
        "{container: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: a}]}}}}",
        Refused(&["restartPolicy must be Always"]),
    ),
    case("a misspelt field", "{container: {imagee: a}}", Refused(&["imagee"])),
    case("a number for an image", "{container: {image: 5}}", Refused(&["spec.container.image"])),
    case("an unknown state", "{container: {image: a}, state: Sleeping}", Refused(&["spec.state", "Stopped"])),
    case("negative replicas", "{container: {image: a}, replicas: -1}", Refused(&["spec.replicas"])),
    case("huge replicas", "{container: {image: a}, replicas: 2000000000}", Refused(&["spec.replicas"])),
    case("replicas as text", "{container: {image: a}, replicas: many}", Refused(&["spec.replicas"])),
    case(
        "negative CPU",
        "{container: {image: a}, quota: {cpu: {limit: -1}}}",
        Refused(&["quota.cpu.limit", "above 0"]),
    ),
    case(
        "no CPU at all",
        "{container: {image: a}, quota: {cpu: {limit: 0}}}",
        Refused(&["quota.cpu.limit", "above 0"]),
    ),
    case("huge CPU", "{container: {image: a}, quota: {cpu: {request: 1e9}}}", Refused(&["quota.cpu.request", "10000"])),
    case(
        "CPU that is no quantity",
        "{container: {image: a}, quota: {cpu: {limit: lots}}}",
        Refused(&["spec.quota.cpu.limit"]),
    ),
    case(
        "CPU request above its limit",
        "{container: {image: a}, quota: {cpu: {request: 2, limit: 500m}}}",
        Refused(&["quota.cpu.request", "quota.cpu.limit"]),
    ),
    case(
        "memory request above its limit",
        "{container: {image: a}, quota: {memory: {request: 1Gi, limit: 512Mi}}}",
        Refused(&["quota.memory.request", "quota.memory.limit"]),
    ),
    case(
        "negative memory",
        "{container: {image: a}, quota: {memory: {request: -1Gi}}}",
        Refused(&["quota.memory.request"]),
    ),
    case(
        "memory in millibytes",
        "{container: {image: a}, quota: {memory: {limit: 512m}}}",
        Refused(&["quota.memory.limit", "512Mi"]),
    ),
    case(
        "huge memory",
        "{container: {image: a}, quota: {memory: {limit: 5Ei}}}",
        Refused(&["quota.memory.limit", "1Pi"]),
    ),
    case(
        "an empty quota field",
        "{container: {image: a}, quota: {cpu: {limit: }}}",
        Refused(&["spec.quota.cpu.limit"]),
    ),
    case(
        "a burst above the limit",
        "{container: {image: a}, quota: {cpu: {limit: 500m, burst: 600m}}}",
        Refused(&["quota.cpu.burst", "quota.cpu.limit"]),
    ),
    case(
        "a burst without a limit",
        "{container: {image: a}, quota: {cpu: {request: 500m, burst: 100m}}}",
        Refused(&["quota.cpu.burst", "quota.cpu.limit"]),
    ),
    case("a weight of 0", "{container: {image: a}, quota: {cpu: {weight: 0}}}", Refused(&["spec.quota.cpu.weight"])),
    case(
        "memory.high above the limit",
        "{container: {image: a}, quota: {memory: {limit: 64Mi, high: 65Mi}}}",
        Refused(&["quota.memory.high", "quota.memory.limit"]),
    ),
    case(
        "negative swap",
        "{container: {image: a}, quota: {memory: {swap: -1}}}",
        Refused(&["quota.memory.swap", "from 0 to 1Pi"]),
    ),
    case("no processes at all", "{container: {image: a}, quota: {pids: 0}}", Refused(&["spec.quota.pids"])),
    case(
        "a path for a device",
        "{container: {image: a}, quota: {io: [{device: /dev/vda, readBytesPerSecond: 1Mi}]}}",
        Refused(&["quota.io[].device", "without /dev/"]),
    ),
    case(
        "a device without a limit",
        "{container: {image: a}, quota: {io: [{device: vda}]}}",
        Refused(&["quota.io[]", "readBytesPerSecond"]),
    ),
    case(
        "a device twice",
        "{container: {image: a}, quota: {io: [{device: vda, readBytesPerSecond: 1Mi}, {device: vda, writeBytesPerSecond: 1Mi}]}}",
        Refused(&["vda"]),
    ),
    case(
        "no bytes a second",
        "{container: {image: a}, quota: {io: [{device: '*', writeBytesPerSecond: 0}]}}",
        Refused(&["quota.io[].writeBytesPerSecond", "from 1 to 1Pi"]),
    ),
    case(
        "an annotation that is made from the quota",
        "{container: {template: {metadata: {annotations: {catamaran.dev/node-quota: '{}'}}, spec: {containers: [{name: a, image: a}]}}}}",
        Stalled("InvalidSpec", &["spec.container.template.metadata.annotations", "spec.quota"]),
    ),
    case(
        "memory.high below the guest's memory",
        "{virtualMachine: {image: a}, quota: {memory: {request: 1Gi, high: 512Mi}}}",
        Stalled("InvalidSpec", &["spec.quota.memory.high", "overhead"]),
    ),
    case(
        "scaling without an upper bound",
        "{container: {image: a}, scaling: {metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}}",
        Refused(&["spec.scaling.maxReplicas"]),
    ),
    case(
        "scaling by nothing",
        "{container: {image: a}, scaling: {maxReplicas: 3}}",
        Refused(&["scaling.metrics", "scaling.schedules"]),
    ),
    case(
        "crossed bounds of scaling",
        "{container: {image: a}, scaling: {minReplicas: 5, maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}}",
        Refused(&["scaling.minReplicas", "scaling.maxReplicas"]),
    ),
    case(
        "nothing that could wake it from zero",
        "{container: {image: a}, scaling: {minReplicas: 0, maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}}",
        Refused(&["minReplicas 0", "External"]),
    ),
    case(
        "a metric without the field of its type",
        "{container: {image: a}, scaling: {maxReplicas: 3, metrics: [{type: Pods, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}}",
        Refused(&["the one field that its type names"]),
    ),
    case(
        "a resource that nobody measures",
        "{container: {image: a}, scaling: {maxReplicas: 3, metrics: [{type: Resource, resource: {name: gpu, target: {type: Utilization, averageUtilization: 50}}}]}}",
        Refused(&["cpu or memory"]),
    ),
    case(
        "a target of another type",
        "{container: {image: a}, scaling: {maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {type: Value, value: 5}}}]}}",
        Refused(&["Utilization", "AverageValue"]),
    ),
    case(
        "a target of nothing",
        "{container: {image: a}, scaling: {maxReplicas: 3, metrics: [{type: External, external: {metric: {name: q}, target: {type: AverageValue, averageValue: 0}}}]}}",
        Stalled("InvalidSpec", &["spec.scaling", "above 0"]),
    ),
    case(
        "an activation where there is always demand",
        "{container: {image: a}, scaling: {maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}, activation: 5}]}}",
        Refused(&["activation", "External"]),
    ),
    case(
        "a rate without a limit",
        "{container: {image: a}, scaling: {maxReplicas: 3, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}], behavior: {scaleUp: {policies: [{type: Pods, value: 0, periodSeconds: 15}]}}}}",
        Refused(&["spec.scaling.behavior.scaleUp.policies"]),
    ),
    case(
        "a schedule that moves nothing",
        "{container: {image: a}, scaling: {maxReplicas: 3, schedules: [{name: a, start: '0 8 * * *', end: '0 9 * * *'}]}}",
        Refused(&["minReplicas, maxReplicas or both"]),
    ),
    case(
        "a schedule that is no cron expression",
        "{container: {image: a}, scaling: {maxReplicas: 3, schedules: [{name: a, start: 'at eight o clock', end: '0 9 * * *', minReplicas: 2}]}}",
        Refused(&["schedules[].start", "five fields"]),
    ),
    case(
        "a minute that no hour has",
        "{container: {image: a}, scaling: {maxReplicas: 3, schedules: [{name: a, start: '61 8 * * *', end: '0 9 * * *', minReplicas: 2}]}}",
        Stalled("InvalidSpec", &["spec.scaling.schedules[0]", "start", "five fields"]),
    ),
    case(
        "a schedule that ends as it starts",
        "{container: {image: a}, scaling: {maxReplicas: 3, schedules: [{name: a, start: '0 8 * * *', end: '0 8 * * *', minReplicas: 2}]}}",
        Refused(&["schedules[].start and end must not be the same"]),
    ),
    case(
        "a schedule above the maximum",
        "{container: {image: a}, scaling: {maxReplicas: 3, schedules: [{name: a, start: '0 8 * * *', end: '0 9 * * *', minReplicas: 4}]}}",
        Refused(&["schedules[].minReplicas must not be above scaling.maxReplicas"]),
    ),
    case(
        "an address without a host",
        "{container: {image: a}, scaling: {maxReplicas: 3, metrics: [{type: Prometheus, prometheus: {serverAddress: 'http://:9090', query: q, target: {value: 1}}}]}}",
        Refused(&["prometheus.serverAddress"]),
    ),
    case(
        "a target of nothing",
        "{container: {image: a}, scaling: {maxReplicas: 3, metrics: [{type: Prometheus, prometheus: {serverAddress: 'http://p:9090', query: q, target: {value: 0}}}]}}",
        Refused(&["target.value must be a quantity above 0"]),
    ),
    case(
        "a time zone that is nowhere",
        "{container: {image: a}, scaling: {maxReplicas: 3, schedules: [{name: a, timeZone: Mars/Base, start: '0 8 * * *', end: '0 9 * * *', minReplicas: 2}]}}",
        Refused(&["unknown time zone Mars/Base", "schedules[].timeZone"]),
    ),
    case(
        "nothing may change",
        "{container: {image: a}, rollout: {maxSurge: 0, maxUnavailable: 0%}}",
        Refused(&["maxSurge", "maxUnavailable"]),
    ),
    case(
        "more than all",
        "{container: {image: a}, rollout: {maxUnavailable: 150%}}",
        Refused(&["spec.rollout.maxUnavailable"]),
    ),
    case("a negative surge", "{container: {image: a}, rollout: {maxSurge: -1}}", Refused(&["spec.rollout.maxSurge"])),
    case(
        "a deadline below minReadySeconds",
        "{container: {image: a}, rollout: {minReadySeconds: 60, progressDeadlineSeconds: 30}}",
        Refused(&["progressDeadlineSeconds", "minReadySeconds"]),
    ),
    case(
        "an unknown policy",
        "{container: {image: a}, rollout: {onFailure: Panic}}",
        Refused(&["spec.rollout.onFailure", "Rollback"]),
    ),
    case("a Service without ports", "{container: {image: a}, service: {ports: []}}", Refused(&["spec.service.ports"])),
    case("a port beyond the last", "{container: {image: a}, service: {ports: [{port: 70000}]}}", Refused(&["port"])),
    case(
        "ports without names",
        "{container: {image: a}, service: {ports: [{port: 80}, {port: 81}]}}",
        Refused(&["service.ports[].name"]),
    ),
    case(
        "the same port twice",
        "{container: {image: a}, service: {ports: [{name: a, port: 80}, {name: b, port: 80}]}}",
        Refused(&["service.ports[].port must be unique"]),
    ),
    case(
        "a named port of a virtual machine",
        "{virtualMachine: {image: a}, quota: {memory: {request: 64Mi}}, service: {ports: [{port: 80, targetPort: http}]}}",
        Refused(&["targetPort must be a number"]),
    ),
    case(
        "a virtual machine without memory",
        "{virtualMachine: {image: a}}",
        Refused(&["guest memory", "quota.memory.request"]),
    ),
    case(
        "two sources of user data",
        "{virtualMachine: {image: a, cloudInit: {userData: x, userDataSecretRef: {name: z}}}, className: x}",
        Refused(&["cloudInit", "exactly one"]),
    ),
    case(
        "a probe without a handler",
        "{virtualMachine: {image: a, readinessProbe: {periodSeconds: 3}}, className: x}",
        Refused(&["httpGet", "guestAgentPing"]),
    ),
    case(
        "a virtual machine template without a domain",
        "{virtualMachine: {template: {spec: {}}}}",
        Refused(&["spec.virtualMachine.template.spec.domain"]),
    ),
    Case {
        what: "a name too long for a DNS label of its replicas",
        name: "a-name-that-is-much-too-long-for-the-names-of-its-replicas",
        spec: "{container: {image: a}}",
        expect: Refused(&["metadata.name", "46"]),
    },
    Case {
        what: "a name that cannot name a Service",
        name: "1.web",
        spec: "{container: {image: a}}",
        expect: Refused(&["metadata.name", "starts with a letter"]),
    },
    case(
        "an unknown class",
        "{container: {image: a}, className: none}",
        Stalled("WorkloadClassNotFound", &["spec.className", "none", "create it"]),
    ),
    case(
        "a request above the limit of the class",
        "{container: {image: a}, className: tiny, quota: {cpu: {request: 2}}}",
        Stalled("InvalidSpec", &["spec.quota.cpu.request", "lower the request"]),
    ),
    case(
        "a quota and resources for the same container",
        "{container: {template: {spec: {containers: [{name: a, image: a, resources: {limits: {cpu: 1}}}]}}}, quota: {cpu: {limit: 1}}}",
        Stalled("InvalidSpec", &["containers[0].resources", "leave one"]),
    ),
    case(
        "a placement that the template has as well",
        "{container: {template: {spec: {nodeSelector: {a: b}, containers: [{name: a, image: a}]}}}, placement: {nodeSelector: {c: d}}}",
        Stalled("InvalidSpec", &["spec.placement.nodeSelector", "leave it out"]),
    ),
    case(
        "a label that is ours",
        "{container: {template: {metadata: {labels: {catamaran.dev/workload: x}}, spec: {containers: [{name: a, image: a}]}}}}",
        Stalled("InvalidSpec", &["catamaran.dev/workload", "leave it out"]),
    ),
    case(
        "a pod that the API server refuses",
        "{container: {template: {spec: {containers: [{name: 'Not A Name', image: a}]}}}}",
        Stalled("Refused", &["spec.template.spec.containers[0].name"]),
    ),
    case(
        "a default container that is none",
        "{container: {template: {metadata: {annotations: {kubectl.kubernetes.io/default-container: b}}, spec: {containers: [{name: a, image: a}]}}}}",
        Stalled("InvalidSpec", &["default-container", "\"b\""]),
    ),
];

/// Wrong prices of a WorkloadClass, and words of the API server's refusal.
const PRICES: &[(&str, &str, &[&str])] = &[
    ("no currency", "{cpuHour: '1'}", &["spec.price.currency", "Required"]),
    ("a currency in small letters", "{currency: eur, cpuHour: '1'}", &["spec.price", "ISO 4217", "EUR"]),
    ("a currency that is too long", "{currency: EURO, cpuHour: '1'}", &["spec.price.currency"]),
    ("a sign for a currency", "{currency: '€', cpuHour: '1'}", &["spec.price.currency"]),
    ("no amount", "{currency: EUR}", &["spec.price", "set cpuHour, memoryGibHour or ioGib"]),
    ("a number without quotes", "{currency: EUR, cpuHour: 0.04}", &["spec.price.cpuHour", "string"]),
    ("a negative amount", "{currency: EUR, cpuHour: '-1'}", &["price.cpuHour must be a decimal number"]),
    ("an amount with an exponent", "{currency: EUR, memoryGibHour: '1e9'}", &["price.memoryGibHour must be", "0.005"]),
    ("an amount with a comma", "{currency: EUR, ioGib: '0,04'}", &["price.ioGib must be", "0.01"]),
    ("an amount of two lines", "{currency: EUR, ioGib: \"0.01\\n\"}", &["price.ioGib must be"]),
    ("an empty amount", "{currency: EUR, cpuHour: ''}", &["price.cpuHour must be"]),
    ("no number at all", "{currency: EUR, cpuHour: 'NaN'}", &["price.cpuHour must be"]),
    ("a huge amount", "{currency: EUR, cpuHour: '1000000000'}", &["price.cpuHour must be", "9 digits"]),
    (
        "more digits than there may be",
        "{currency: EUR, cpuHour: '0.0000000000000000000004'}",
        &["spec.price.cpuHour", "20"],
    ),
    ("a misspelt amount", "{currency: EUR, cpuHour: '1', memoryHour: '1'}", &["memoryHour"]),
];

pub(crate) async fn wrong_manifests_are_answered_with_the_field_and_the_way_out(ground: Ground) -> Result<()> {
    ground.apply(&web("registry.test/web:1", 2, "")).await?;
    // Classes have no namespace: no other test has one of this name.
    ground
        .apply("apiVersion: catamaran.dev/v1alpha1\nkind: WorkloadClass\nmetadata: {name: tiny}\nspec: {quota: {cpu: {limit: 100m}}}\n")
        .await?;
    ground.wait_ready("web").await?;
    let api: Api<ElasticWorkload> = ground.api();
    let mut wrong = Vec::new();
    for Case { what, name, spec, expect } in CASES {
        let yaml = format!(
            "apiVersion: catamaran.dev/v1alpha1\nkind: ElasticWorkload\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        );
        match (ground.apply(&yaml).await, expect) {
            (Err(error), Refused(words)) => {
                let text = error.to_string();
                if let Some(word) = words.iter().find(|word| !text.contains(**word)) {
                    wrong.push(format!("{what}: no {word:?} in: {text}"));
                }
            }
            (Ok(()), Stalled(reason, words)) => {
                let workload = ground
                    .wait_for(name, &format!("is stalled: {what}"), WITHIN, |workload| {
                        condition(workload, "Stalled").is_some()
                    })
                    .await?;
                let stalled = condition(&workload, "Stalled").context("just seen")?;
                if stalled.reason != *reason {
                    wrong.push(format!("{what}: stalled by {} ({})", stalled.reason, stalled.message));
                }
                if let Some(word) = words.iter().find(|word| !stalled.message.contains(**word)) {
                    wrong.push(format!("{what}: no {word:?} in: {}", stalled.message));
                }
                api.delete(name, &DeleteParams::default()).await?;
            }
            (Ok(()), Refused(_)) => {
                wrong.push(format!("{what}: accepted"));
                api.delete(name, &DeleteParams::default()).await?;
            }
            (Err(error), Stalled(..)) => wrong.push(format!("{what}: refused: {error}")),
        }
    }
    for (what, price, words) in PRICES {
        let class = format!(
            "apiVersion: catamaran.dev/v1alpha1\nkind: WorkloadClass\nmetadata: {{name: wrong}}\nspec: {{quota: {{cpu: {{limit: 1}}}}, price: {price}}}\n"
        );
        match ground.apply(&class).await {
            Ok(()) => wrong.push(format!("{what}: accepted")),
            Err(error) => {
                let text = error.to_string();
                let missing = words.iter().find(|word| !text.contains(**word));
                wrong.extend(missing.map(|word| format!("{what}: no {word:?} in: {text}")));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), CASES.len() + PRICES.len(), wrong.join("\n"));
    ensure!(ground.operator.probe("/healthz").await?.0 == 200, "the operator runs");
    let log = std::fs::read_to_string(ground.operator.log())?;
    let panics: Vec<_> = log.lines().filter(|line| line.contains("panicked")).collect();
    ensure!(panics.is_empty(), "{panics:?}");
    ground.apply(&web("registry.test/web:2", 3, "")).await?;
    ground.wait_ready("web").await?;
    ground.quiet().await
}

pub(crate) async fn strangers_of_the_same_name_are_left_alone(ground: Ground) -> Result<()> {
    ground.apply(&web("registry.test/web:1", 2, "")).await?;
    let workload = ground.wait_ready("web").await?;
    let revision = workload.status.unwrap_or_default().update_revision.unwrap_or_default();
    ground.api::<ElasticWorkload>().delete("web", &DeleteParams::default()).await?;
    let sets: Api<ReplicaSet> = ground.api();
    let services: Api<Service> = ground.api();
    eventually("everything is gone", Duration::from_secs(90), || async {
        let left =
            sets.list(&Default::default()).await?.items.len() + services.list(&Default::default()).await?.items.len();
        Ok((left == 0).then_some(()))
    })
    .await?;
    // A stranger's replica set has the name, without any label of ours; and a Service without a selector.
    ground
        .apply(&format!(
            "apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: web-{revision}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: stranger}}}}
  template: {{metadata: {{labels: {{app: stranger}}}}, spec: {{containers: [{{name: a, image: a}}]}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{ports: [{{name: other, port: 81}}]}}
"
        ))
        .await?;
    let before = (sets.get(&format!("web-{revision}")).await?, services.get("web").await?);
    ground.apply(&web("registry.test/web:1", 2, "")).await?;
    let stalled = ground.wait_stalled("web", "NameTaken").await?;
    let message = condition(&stalled, "Stalled").map(|c| c.message.clone()).unwrap_or_default();
    ensure!(message.contains("metadata.name") && message.contains(&format!("web-{revision}")), "{message}");
    let mark = ground.control_plane.audit().mark()?;
    tokio::time::sleep(Duration::from_secs(12)).await;
    let writes = ground.control_plane.audit().writes_since(mark)?;
    let ours =
        writes.iter().filter(|write| write.user == operator_user() && write.namespace == ground.namespace).count();
    ensure!(ours < 10, "{ours} writes in 12 s: the operator spins");
    let after = (sets.get(&format!("web-{revision}")).await?, services.get("web").await?);
    ensure!(before.0.spec == after.0.spec && after.0.owner_references().is_empty(), "the replica set is untouched");
    ensure!(before.1.spec == after.1.spec && after.1.owner_references().is_empty(), "the Service is untouched");
    Ok(())
}
