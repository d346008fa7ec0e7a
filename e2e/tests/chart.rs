//! The Helm chart on a real API server: what it refuses, what it may do, and what stays when it goes.
#![cfg(feature = "control-plane")]

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{control_plane::ControlPlane, helm::Helm, wait::eventually};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec},
        core::v1::{Namespace, Secret, ServiceAccount},
        rbac::v1::{ClusterRole, PolicyRule},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(30);
const SYSTEM: &str = "catamaran-system";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn chart() -> PathBuf {
    root().join("charts/catamaran")
}

/// Resources as `group/resource` (or `group/resource/name`), each with its verbs.
type Rights = &'static [(&'static str, &'static [&'static str])];

const CLASSES: Rights = &[("catamaran.dev/workloadclasses", &["list", "watch"])];

const WORKLOADS: Rights = &[
    ("catamaran.dev/elasticworkloads", &["list", "watch"]),
    ("catamaran.dev/elasticworkloads/status", &["patch"]),
    ("catamaran.dev/elasticworkloads/finalizers", &["update"]),
    ("apps/replicasets", &["get", "list", "watch", "create", "patch", "delete"]),
    ("/services", &["get", "list", "watch", "create", "patch", "delete"]),
    ("discovery.k8s.io/endpointslices", &["list", "watch"]),
    ("/pods", &["list", "watch", "patch"]),
    ("/pods/resize", &["patch"]),
    ("metrics.k8s.io/pods", &["list"]),
    ("custom.metrics.k8s.io/*", &["get"]),
    ("external.metrics.k8s.io/*", &["list"]),
    ("kubevirt.io/virtualmachineinstancereplicasets", &["get", "list", "watch", "create", "patch", "delete"]),
    ("kubevirt.io/virtualmachineinstances", &["list", "watch", "delete"]),
    ("subresources.kubevirt.io/virtualmachineinstances/pause", &["update"]),
    ("subresources.kubevirt.io/virtualmachineinstances/unpause", &["update"]),
    ("events.k8s.io/events", &["create", "patch"]),
];

const LEASE: Rights =
    &[("coordination.k8s.io/leases", &["create"]), ("coordination.k8s.io/leases catamaran", &["get", "update"])];

fn expand(tables: &[Rights]) -> BTreeSet<String> {
    tables
        .iter()
        .copied()
        .flatten()
        .flat_map(|(resource, verbs)| verbs.iter().map(move |verb| format!("{resource}: {verb}")))
        .collect()
}

fn expand_rules<'a>(rules: impl IntoIterator<Item = &'a PolicyRule>) -> BTreeSet<String> {
    let mut rights = BTreeSet::new();
    for rule in rules {
        let names: Vec<String> = match rule.resource_names.as_deref() {
            None | Some([]) => vec![String::new()],
            Some(names) => names.iter().map(|name| format!(" {name}")).collect(),
        };
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for name in &names {
                    for verb in &rule.verbs {
                        rights.insert(format!("{group}/{resource}{name}: {verb}"));
                    }
                }
            }
        }
    }
    rights
}

/// All that an account may do in a namespace, as the API server sees it.
async fn rights(control_plane: &ControlPlane, account: &str, namespace: &str) -> Result<BTreeSet<String>> {
    let config = control_plane.config_for_service_account(SYSTEM, account).await?;
    let reviews: Api<SelfSubjectRulesReview> = Api::all(Client::try_from(config)?);
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) },
        ..SelfSubjectRulesReview::default()
    };
    let status = reviews.create(&PostParams::default(), &review).await?.status.context("the review has a status")?;
    ensure!(!status.incomplete, "the list of rights is incomplete");
    let rules: Vec<PolicyRule> = status
        .resource_rules
        .into_iter()
        .map(|rule| PolicyRule {
            api_groups: rule.api_groups,
            resources: rule.resources,
            resource_names: rule.resource_names,
            verbs: rule.verbs,
            ..PolicyRule::default()
        })
        .collect();
    Ok(expand_rules(&rules))
}

/// Waits until the operator's account has exactly these rights beyond those that every account has. The API server
/// learns of new roles by a watch, so the first answers may be old.
async fn has_exactly(control_plane: &ControlPlane, namespace: &str, wanted: &[Rights]) -> Result<()> {
    account_has_exactly(control_plane, "catamaran", namespace, wanted).await
}

async fn account_has_exactly(
    control_plane: &ControlPlane,
    account: &str,
    namespace: &str,
    wanted: &[Rights],
) -> Result<()> {
    let wanted = expand(wanted);
    let wanted = &wanted;
    eventually(&format!("the rights of {account} in {namespace}"), WITHIN, || async move {
        let common = rights(control_plane, "nobody", namespace).await?;
        let all = rights(control_plane, account, namespace).await?;
        let own: BTreeSet<String> = all.difference(&common).cloned().collect();
        let missing: Vec<_> = wanted.difference(&own).collect();
        let surplus: Vec<_> = own.difference(wanted).collect();
        ensure!(missing.is_empty() && surplus.is_empty(), "missing {missing:?}, surplus {surplus:?}");
        Ok(Some(()))
    })
    .await
}

/// A ServiceAccount without any rights of its own, to compare with.
async fn nobody(control_plane: &ControlPlane) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(control_plane.client(), SYSTEM);
    let account = serde_json::from_value(json!({"metadata": {"name": "nobody"}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    Ok(())
}

/// The kinds of the objects that a rendered chart consists of.
async fn kinds(helm: &Helm, values: &Value) -> Result<BTreeSet<String>> {
    // Not helm.template(): it asks the API server, which does not know ServiceMonitors.
    let command = [OsStr::new("template"), OsStr::new("catamaran")];
    let manifests =
        helm.run(command.into_iter().chain([chart().as_os_str()]), &["--namespace", SYSTEM], Some(values)).await?;
    Ok(manifests.lines().filter_map(|line| line.strip_prefix("kind: ")).map(str::to_owned).collect())
}

#[tokio::test]
async fn wrong_values_are_refused_with_their_path() -> Result<()> {
    let control_plane = ControlPlane::builder().controller_manager(false).scheduler(false).start().await?;
    let helm = control_plane.helm()?;
    let cases = [
        (json!({"replicas": 3}), "'replicas' not allowed"),
        (json!({"replicaCount": -1}), "'/replicaCount': minimum"),
        (json!({"replicaCount": "two"}), "'/replicaCount': got string, want integer"),
        (json!({"log": {"level": "verbose"}}), "'/log/level': value must be one of 'error'"),
        (json!({"log": {"fromat": "json"}}), "'/log': additional properties 'fromat' not allowed"),
        (json!({"log": null}), "missing property 'log'"),
        (json!({"watchNamespace": "Shop_1"}), "'/watchNamespace': 'Shop_1' does not match pattern"),
        (json!({"workers": 0}), "'/workers': minimum"),
        (json!({"http": {"port": 80}}), "'/http/port': minimum"),
        (json!({"http": {"address": "[::]"}}), "'/http/address': '[::]' does not match pattern"),
        (json!({"image": {"pullPolicy": "Sometimes"}}), "'/image/pullPolicy': value must be one of"),
        (json!({"image": {"digest": "sha256:abc"}}), "'/image/digest': 'sha256:abc' does not match pattern"),
        (json!({"imagePullSecrets": ["name"]}), "'/imagePullSecrets/0': got string, want object"),
        (json!({"crds": {"keep": "maybe"}}), "'/crds/keep': got string, want boolean"),
        (json!({"extraArgs": ["workers=3"]}), "'/extraArgs/0': 'workers=3' does not match pattern"),
        (json!({"resources": {"memory": "1Gi"}}), "'/resources': additional properties 'memory' not allowed"),
        (
            json!({"podDisruptionBudget": {"minAvailable": "half"}}),
            "'/podDisruptionBudget/minAvailable': 'half' does not match",
        ),
        (json!({"networkPolicy": {"apiServerPorts": [70000]}}), "'/networkPolicy/apiServerPorts/0': maximum"),
        (json!({"networkPolicy": {"apiServerPorts": []}}), "'/networkPolicy/apiServerPorts': minItems"),
        (
            json!({"metrics": {"serviceMonitor": {"interval": "soon"}}}),
            "'/metrics/serviceMonitor/interval': 'soon' does not match",
        ),
        (
            json!({"metrics": {"prometheusRule": {"enable": true}}}),
            "'/metrics/prometheusRule': additional properties 'enable' not allowed",
        ),
        (
            json!({"metrics": {"prometheusRule": {"alertLabels": {"page": true}}}}),
            "'/metrics/prometheusRule/alertLabels/page': got boolean, want string",
        ),
        (
            json!({"metrics": {"prometheusRule": {"runbookUrl": "docs"}}}),
            "'/metrics/prometheusRule/runbookUrl': 'docs' does not match",
        ),
        (
            json!({"metrics": {"grafanaDashboard": {"namespace": "My_Grafana"}}}),
            "'/metrics/grafanaDashboard/namespace': 'My_Grafana' does not match",
        ),
        (json!({"fullnameOverride": "n".repeat(56)}), "'/fullnameOverride': maxLength"),
    ];
    for (values, message) in cases {
        let answer = helm.template("catamaran", &chart(), SYSTEM, &values).await;
        let error = answer.err().with_context(|| format!("{values} was accepted"))?;
        ensure!(format!("{error:#}").contains(message), "{values}: expected {message:?} in: {error:#}");
    }
    // What a parent chart passes down is no mistake.
    helm.template("catamaran", &chart(), SYSTEM, &json!({"enabled": true, "global": {"region": "eu"}})).await?;
    Ok(())
}

#[tokio::test]
async fn every_switch_has_its_objects() -> Result<()> {
    let control_plane = ControlPlane::builder().controller_manager(false).scheduler(false).start().await?;
    let helm = control_plane.helm()?;
    let on = json!({"enabled": true});
    let monitoring = json!({"serviceMonitor": on, "grafanaDashboard": on, "prometheusRule": on});
    let all = kinds(&helm, &json!({"metrics": monitoring})).await?;
    let default = kinds(&helm, &json!({})).await?;
    let without = |kinds: &[&str]| -> BTreeSet<String> {
        default.iter().filter(|kind| !kinds.contains(&kind.as_str())).cloned().collect()
    };
    ensure!(
        all.difference(&default).eq(["ConfigMap", "PrometheusRule", "ServiceMonitor"]),
        "{all:?} against {default:?}"
    );
    let cases: [(Value, &[&str]); 6] = [
        (json!({"crds": {"enabled": false}}), &["CustomResourceDefinition"]),
        (json!({"serviceAccount": {"create": false}}), &["ServiceAccount"]),
        (json!({"podDisruptionBudget": {"enabled": false}}), &["PodDisruptionBudget"]),
        (json!({"replicaCount": 1}), &["PodDisruptionBudget"]),
        (json!({"networkPolicy": {"enabled": false}}), &["NetworkPolicy"]),
        (
            json!({"rbac": {"create": false, "userRoles": false}}),
            &["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"],
        ),
    ];
    for (values, gone) in cases {
        let left = kinds(&helm, &values).await?;
        ensure!(left == without(gone), "{values} gives {left:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_operator_has_its_rights_and_no_more() -> Result<()> {
    let control_plane = ControlPlane::builder().scheduler(false).start().await?;
    control_plane.create_namespace("shop").await?;
    let helm = control_plane.helm()?;

    helm.install("catamaran", &chart(), SYSTEM, &json!({})).await?;
    nobody(&control_plane).await?;
    has_exactly(&control_plane, "shop", &[CLASSES, WORKLOADS]).await?;
    has_exactly(&control_plane, SYSTEM, &[CLASSES, WORKLOADS, LEASE]).await?;

    helm.upgrade("catamaran", &chart(), SYSTEM, &json!({"watchNamespace": "shop"})).await?;
    has_exactly(&control_plane, "shop", &[CLASSES, WORKLOADS]).await?;
    has_exactly(&control_plane, SYSTEM, &[CLASSES, LEASE]).await?;
    has_exactly(&control_plane, "default", &[CLASSES]).await?;

    helm.upgrade("catamaran", &chart(), SYSTEM, &json!({})).await?;
    has_exactly(&control_plane, "default", &[CLASSES, WORKLOADS]).await?;

    helm.upgrade("catamaran", &chart(), SYSTEM, &json!({"rbac": {"create": false}})).await?;
    has_exactly(&control_plane, SYSTEM, &[]).await
}

/// With the admission plugin that OpenShift turns on, a blocking owner reference needs a right on the owner's
/// finalizers. Helm makes the certificate of the intake once; the agents' account reads pods and its own DaemonSet, and
/// does nothing else.
#[tokio::test]
async fn agents_read_pods_and_the_certificate_stays() -> Result<()> {
    let control_plane = ControlPlane::builder().scheduler(false).start().await?;
    control_plane.create_namespace(SYSTEM).await?;
    let helm = control_plane.helm()?;
    let values = json!({"usage": {"enabled": true}, "agent": {"enabled": true}});
    helm.install("catamaran", &chart(), SYSTEM, &values).await?;
    nobody(&control_plane).await?;
    let pods: Rights = &[("/pods", &["list", "watch"])];
    let own_set: Rights = &[("apps/daemonsets catamaran-agent", &["get"])];
    account_has_exactly(&control_plane, "catamaran-agent", SYSTEM, &[pods, own_set]).await?;
    account_has_exactly(&control_plane, "catamaran-agent", "default", &[pods]).await?;
    let secrets: Api<Secret> = Api::namespaced(control_plane.client(), SYSTEM);
    let made = secrets.get("catamaran-usage-tls").await?;
    ensure!(made.data.iter().flatten().map(|(name, _)| name.as_str()).eq(["ca.crt", "tls.crt", "tls.key"]), "{made:?}");
    let more = json!({"usage": {"enabled": true}, "agent": {"enabled": true}, "workers": 3});
    helm.upgrade("catamaran", &chart(), SYSTEM, &more).await?;
    ensure!(secrets.get("catamaran-usage-tls").await?.data == made.data, "an upgrade made another certificate");
    let agents: Api<DaemonSet> = Api::namespaced(control_plane.client(), SYSTEM);
    let pod = agents.get("catamaran-agent").await?.spec.and_then(|spec| spec.template.spec).context("a pod")?;
    let host_paths = pod.volumes.iter().flatten().filter(|volume| volume.host_path.is_some()).count();
    let sharing = [pod.host_pid, pod.host_network, pod.host_ipc].into_iter().flatten().any(|shared| shared);
    ensure!(host_paths == 1 && !sharing, "{pod:?}");
    let wrong = json!({"agent": {"enabled": true}});
    let refused =
        helm.template("catamaran", &chart(), SYSTEM, &wrong).await.err().context("an agent without intake")?;
    ensure!(format!("{refused:#}").contains("/usage/enabled"), "{refused:#}");
    Ok(())
}

#[tokio::test]
async fn owner_references_pass_permission_enforcement() -> Result<()> {
    let control_plane = ControlPlane::builder()
        .scheduler(false)
        .argument(
            catamaran_e2e::tools::Tool::KubeApiserver,
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        )
        .start()
        .await?;
    control_plane.create_namespace("shop").await?;
    control_plane.helm()?.install("catamaran", &chart(), SYSTEM, &json!({})).await?;
    nobody(&control_plane).await?;
    has_exactly(&control_plane, "shop", &[CLASSES, WORKLOADS]).await?;

    let workloads: Api<DynamicObject> = Api::namespaced_with(
        control_plane.client(),
        "shop",
        &ApiResource::from_gvk(&GroupVersionKind::gvk("catamaran.dev", "v1alpha1", "ElasticWorkload")),
    );
    let workload = serde_json::from_value(json!({
        "apiVersion": "catamaran.dev/v1alpha1",
        "kind": "ElasticWorkload",
        "metadata": {"name": "web"},
        "spec": {"container": {"image": "registry.example/web:1"}},
    }))?;
    let workloads = &workloads;
    let workload = &workload;
    // The API server serves a new kind a moment after its definition is there.
    let owner = eventually("an ElasticWorkload", WITHIN, || async move {
        Ok(Some(workloads.create(&PostParams::default(), workload).await?))
    })
    .await?;

    let config = control_plane.config_for_service_account(SYSTEM, "catamaran").await?;
    let sets: Api<k8s_openapi::api::apps::v1::ReplicaSet> = Api::namespaced(Client::try_from(config)?, "shop");
    let labels = json!({"app": "web"});
    let set = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web-1", "ownerReferences": [{
            "apiVersion": "catamaran.dev/v1alpha1", "kind": "ElasticWorkload", "name": "web", "uid": owner.uid(),
            "controller": true, "blockOwnerDeletion": true,
        }]},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "x"}]},
        }},
    });
    let (sets, set) = (&sets, &set);
    // The plugin looks up kinds in a list that it refreshes now and then, so a new kind is unknown to it for up to 30
    // s.
    eventually("a ReplicaSet with an owner", 2 * WITHIN, || async move {
        let parameters = PatchParams::apply("catamaran");
        Ok(Some(sets.patch("web-1", &parameters, &Patch::Apply(set)).await?))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn people_get_their_rights_by_aggregation() -> Result<()> {
    let control_plane = ControlPlane::builder().scheduler(false).start().await?;
    control_plane.helm()?.install("catamaran", &chart(), SYSTEM, &json!({})).await?;
    const VIEW: Rights = &[
        ("catamaran.dev/elasticworkloads", &["get", "list", "watch"]),
        ("catamaran.dev/elasticworkloads/status", &["get"]),
        ("catamaran.dev/elasticworkloads/scale", &["get"]),
        ("catamaran.dev/workloadclasses", &["get", "list", "watch"]),
    ];
    const EDIT: Rights = &[
        ("catamaran.dev/elasticworkloads", &["create", "update", "patch", "delete", "deletecollection"]),
        ("catamaran.dev/elasticworkloads/scale", &["update", "patch"]),
    ];
    let roles: Api<ClusterRole> = Api::all(control_plane.client());
    let roles = &roles;
    for (name, wanted) in [("view", expand(&[VIEW])), ("edit", expand(&[VIEW, EDIT])), ("admin", expand(&[VIEW, EDIT]))]
    {
        let wanted = &wanted;
        eventually(&format!("the rights of {name}"), WITHIN, || async move {
            let role = roles.get(name).await?;
            let mut own = expand_rules(role.rules.iter().flatten());
            own.retain(|right| right.starts_with("catamaran.dev/"));
            ensure!(own == *wanted, "{own:?}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

/// What `kubectl catamaran explain`, `top` and `bill` ask for, and nothing else: the operator's port, and the classes
/// with their prices, which a RoleBinding to `view` does not show.
#[tokio::test]
async fn users_of_the_plugin_reach_the_operator_and_the_prices() -> Result<()> {
    let control_plane = ControlPlane::builder().scheduler(false).start().await?;
    control_plane.create_namespace("shop").await?;
    let subjects = json!([{"kind": "ServiceAccount", "name": "ann"}]);
    control_plane
        .helm()?
        .install("catamaran", &chart(), SYSTEM, &json!({"rbac": {"pluginSubjects": subjects}}))
        .await?;
    nobody(&control_plane).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(control_plane.client(), SYSTEM);
    let ann = serde_json::from_value(json!({"metadata": {"name": "ann"}}))?;
    accounts.create(&PostParams::default(), &ann).await?;
    const PRICES: Rights = &[("catamaran.dev/workloadclasses", &["get", "list"])];
    const PORT: Rights = &[("/services/proxy http:catamaran-metrics:http", &["get"])];
    account_has_exactly(&control_plane, "ann", SYSTEM, &[PRICES, PORT]).await?;
    account_has_exactly(&control_plane, "ann", "shop", &[PRICES]).await
}

#[tokio::test]
async fn the_definitions_outlive_the_release() -> Result<()> {
    let control_plane = ControlPlane::builder().scheduler(false).start().await?;
    let helm = control_plane.helm()?;
    let definitions: Api<CustomResourceDefinition> = Api::all(control_plane.client());
    let definitions = &definitions;
    let names = || async move {
        let list = definitions.list(&ListParams::default()).await?;
        Ok::<_, kube::Error>(list.items.iter().map(ResourceExt::name_any).collect::<BTreeSet<_>>())
    };
    let ours: BTreeSet<String> = catamaran_crds::definitions().iter().map(ResourceExt::name_any).collect();

    helm.install("catamaran", &chart(), SYSTEM, &json!({})).await?;
    ensure!(names().await? == ours, "installed: {:?}", names().await?);
    for generated in catamaran_crds::definitions() {
        // The server fills in defaults, so the comparison is on what Helm renders, not on what is stored.
        let rendered = helm.run(["get", "manifest", "catamaran"], &["--namespace", SYSTEM], None).await?;
        let documents: Vec<CustomResourceDefinition> = rendered
            .split("\n---\n")
            .filter(|document| document.contains("\nkind: CustomResourceDefinition\n"))
            .map(serde_saphyr::from_str)
            .collect::<Result<_, _>>()?;
        let own = documents
            .iter()
            .find(|document| document.name_any() == generated.name_any())
            .with_context(|| format!("{} is not in the chart", generated.name_any()))?;
        ensure!(own.spec == generated.spec, "{} in the chart is old: run `cargo xtask crds`", generated.name_any());
    }

    let second = helm.install("catamaran-two", &chart(), SYSTEM, &json!({})).await;
    let refusal = format!("{:#}", second.err().context("two releases own the same definitions")?);
    let owner = format!("belongs to release \"catamaran\" in namespace \"{SYSTEM}\"");
    ensure!(refusal.contains(&owner) && refusal.contains("--set crds.takeOver=true"), "{refusal}");
    let beside = json!({"crds": {"enabled": false}, "watchNamespace": SYSTEM, "rbac": {"userRoles": false}});
    helm.install("catamaran-two", &chart(), SYSTEM, &beside).await?;
    helm.uninstall("catamaran-two", SYSTEM).await?;

    helm.uninstall("catamaran", SYSTEM).await?;
    ensure!(names().await? == ours, "left: {:?}", names().await?);

    // Another name and namespace takes them over where it says so.
    let refused = helm.install("other", &chart(), "elsewhere", &json!({})).await;
    let refusal = format!("{:#}", refused.err().context("they are another release's")?);
    ensure!(refusal.contains("--take-ownership"), "{refusal}");
    let folder = chart();
    let install = ["install", "other"].map(OsStr::new).into_iter().chain([folder.as_os_str()]);
    let take = json!({"crds": {"takeOver": true}});
    helm.run(install, &["--namespace", "elsewhere", "--create-namespace", "--take-ownership"], Some(&take)).await?;
    helm.upgrade("other", &chart(), "elsewhere", &json!({})).await?;
    helm.uninstall("other", "elsewhere").await?;
    ensure!(names().await? == ours, "left again: {:?}", names().await?);

    // By hand, as the documentation says; without the switch they go with the release.
    for name in &ours {
        let notes = json!({"meta.helm.sh/release-name": "catamaran", "meta.helm.sh/release-namespace": SYSTEM});
        let by_hand = json!({"metadata": {"annotations": notes}});
        definitions.patch(name, &PatchParams::default(), &Patch::Merge(by_hand)).await?;
    }
    helm.install("catamaran", &chart(), SYSTEM, &json!({"crds": {"keep": false}})).await?;
    helm.uninstall("catamaran", SYSTEM).await?;
    eventually("the definitions are gone", WITHIN, || async move { Ok(names().await?.is_empty().then_some(())) }).await
}

#[tokio::test]
async fn its_pods_pass_the_restricted_pod_security_standard() -> Result<()> {
    let control_plane = ControlPlane::builder().scheduler(false).start().await?;
    let namespaces: Api<Namespace> = Api::all(control_plane.client());
    let namespace = serde_json::from_value(json!({"metadata": {
        "name": SYSTEM,
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
    }}))?;
    namespaces.create(&PostParams::default(), &namespace).await?;
    control_plane.helm()?.install("catamaran", &chart(), SYSTEM, &json!({})).await?;
    let deployments: Api<Deployment> = Api::namespaced(control_plane.client(), SYSTEM);
    let deployments = &deployments;
    eventually("two pods are made", WITHIN, || async move {
        let status = deployments.get("catamaran").await?.status.unwrap_or_default();
        ensure!(status.replicas == Some(2), "{:?}", status.conditions);
        Ok(Some(()))
    })
    .await
}

/// The paths of all values that are not maps with entries, such as `image.tag`.
fn leaves(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(&path, value, found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn every_value_is_in_the_reference() -> Result<()> {
    let values: Value = serde_saphyr::from_str(&fs::read_to_string(chart().join("values.yaml"))?)?;
    let reference = fs::read_to_string(root().join("docs/reference/chart.md"))?;
    let table: BTreeSet<String> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split(" |").next())
        .flat_map(|cell| cell.split(',').map(|name| name.trim().trim_matches('`').to_owned()))
        .collect();
    let mut paths = BTreeSet::new();
    leaves("", &values, &mut paths);
    let told = |path: &String| {
        // A value that is Kubernetes' own to explain stands in the table by its first name.
        table.contains(path) || path.split('.').next().is_some_and(|first| table.contains(first))
    };
    let missing: Vec<_> = paths.iter().filter(|path| !told(path)).collect();
    ensure!(missing.is_empty(), "docs/reference/chart.md lacks {missing:?}");
    Ok(())
}
