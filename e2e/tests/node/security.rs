//! What somebody can do who takes over a node's agent, and what the agent does about a hostile pod.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use catamaran_crds::names::{NODE_QUOTA_ANNOTATION, WORKLOAD_LABEL};
use catamaran_e2e::{installation::SYSTEM, node::BUSYBOX, wait::eventually};
use catamaran_protocol::stream::reporter::{Config, Replicas, Reporter};
use k8s_openapi::api::{
    authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec},
    core::v1::{Node, Pod, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::AuthInfo,
};
use serde_json::{Value, json};

use crate::{
    agent::{agent_metric, says},
    ground::Ground,
};

/// A token out of a volume of the agent's pod, as root on the node finds it.
async fn token(ground: &Ground, volume: &str) -> Result<String> {
    let uid = ground.agent().await?.uid().context("a uid")?;
    let volumes = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected");
    Ok(ground.node.shell(&format!("cat {volumes}/{volume}/token")).await?.trim().to_owned())
}

/// The API server as whoever has the token sees it.
fn client_with(ground: &Ground, token: String) -> Result<Client> {
    let mut config = ground.control_plane.config().clone();
    config.auth_info = AuthInfo { token: Some(token.into()), ..AuthInfo::default() };
    Ok(Client::try_from(config)?)
}

fn code<T>(answer: kube::Result<T>) -> Option<u16> {
    match answer {
        Err(kube::Error::Api(status)) => Some(status.code),
        Ok(_) | Err(_) => None,
    }
}

pub(crate) async fn the_agents_token_reads_pods_and_does_nothing_else(ground: &Ground) -> Result<()> {
    let stolen = client_with(ground, token(ground, "kube-api-access-*").await?)?;
    // As `kubectl auth can-i --list` asks. What every account may do is to ask about itself and to read what the server
    // is.
    let reviews: Api<SelfSubjectRulesReview> = Api::all(stolen.clone());
    let spec = SelfSubjectRulesReviewSpec { namespace: Some("shop".to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
    let rules = reviews.create(&PostParams::default(), &review).await?.status.context("rules")?;
    let mut rights: Vec<String> = rules
        .resource_rules
        .iter()
        .flat_map(|rule| {
            let resources = rule.resources.clone().unwrap_or_default();
            resources.into_iter().flat_map(|resource| rule.verbs.iter().map(move |verb| format!("{verb} {resource}")))
        })
        .filter(|right| !right.starts_with("create selfsubject"))
        .collect();
    rights.sort();
    ensure!(rights == ["list pods", "watch pods"], "{rights:?}");
    let verbs = rules.non_resource_rules.iter().flat_map(|rule| &rule.verbs);
    ensure!(verbs.into_iter().all(|verb| verb == "get"), "{:?}", rules.non_resource_rules);

    // And really: it reads pods.
    let pods: Api<Pod> = Api::namespaced(stolen.clone(), "shop");
    let own = ListParams::default().fields(&format!("spec.nodeName={}", ground.node.name()));
    pods.list(&own).await?;
    // All else is refused.
    let create = PostParams::default();
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"name": "intruder"}, "spec": {"containers": [{"name": "main", "image": BUSYBOX}]}}),
    )?;
    let patch = Patch::Merge(json!({"metadata": {"annotations": {NODE_QUOTA_ANNOTATION: "{}"}}}));
    let secrets: Api<Secret> = Api::namespaced(stolen.clone(), SYSTEM);
    let nodes: Api<Node> = Api::all(stolen.clone());
    let workloads = catamaran_e2e::workloads::workloads(&stolen, "shop");
    let parameters = PatchParams::default();
    for (what, found) in [
        ("create a pod", code(pods.create(&create, &pod).await)),
        ("annotate a pod", code(pods.patch_metadata("any", &parameters, &patch).await)),
        ("write a pod's status", code(pods.patch_status("any", &parameters, &patch).await)),
        ("delete a pod", code(pods.delete("any", &DeleteParams::default()).await)),
        ("run in a pod", code(pods.create_subresource::<_, Value>("exec", "any", &create, &json!({})).await)),
        ("evict a pod", code(pods.evict("any", &kube::api::EvictParams::default()).await)),
        ("read Secrets", code(secrets.list(&ListParams::default()).await)),
        ("read nodes", code(nodes.list(&ListParams::default()).await)),
        ("write its node", code(nodes.patch_metadata(ground.node.name(), &parameters, &patch).await)),
        ("read workloads", code(workloads.list(&ListParams::default()).await)),
        ("write workloads", code(workloads.patch_metadata("any", &parameters, &patch).await)),
    ] {
        ensure!(found == Some(403), "{what}: {found:?}");
    }
    // The token for the intake is none for the API server.
    let usage = client_with(ground, token(ground, "usage-token").await?)?;
    let pods: Api<Pod> = Api::namespaced(usage, "shop");
    ensure!(code(pods.list(&own).await) == Some(401));
    Ok(())
}

pub(crate) async fn usage_of_another_node_is_refused(ground: &Ground) -> Result<()> {
    let usage = ground.operator.lock().await.usage().context("the operator takes usage")?.clone();
    let folder = tempfile::tempdir()?;
    for (node, volume, expected) in [
        ("another-node", "usage-token", "PermissionDenied: the token is bound to the node"),
        (ground.node.name(), "kube-api-access-*", "Unauthenticated"),
    ] {
        let token_file = folder.path().join("token");
        fs::write(&token_file, token(ground, volume).await?)?;
        let reporter = Reporter::start(Config {
            node: node.to_owned(),
            boot_id: "boot".to_owned(),
            replicas: Replicas::Addresses(vec![usage.address]),
            server_name: usage.server_name.clone(),
            ca_file: usage.ca_file.clone(),
            token_file,
        });
        let reporter = &reporter;
        let error = eventually("the intake answers", Duration::from_secs(60), || async move {
            Ok(reporter.status().get(&usage.address).and_then(|status| status.last_error.clone()))
        })
        .await?;
        ensure!(error.starts_with(expected), "{error} should start with {expected}");
        ensure!(reporter.status().values().all(|status| status.acknowledged == 0), "nothing was taken");
    }
    Ok(())
}

/// No other test runs meanwhile, so all that the agent refuses is of this pod.
pub(crate) async fn hostile_annotations_are_refused_and_told(ground: &Ground) -> Result<()> {
    let good = json!({"container": "main", "pidsMax": 64}).to_string();
    let (labels, annotations) = (json!({WORKLOAD_LABEL: "hostile"}), json!({NODE_QUOTA_ANNOTATION: good}));
    let command = ["sleep", "100000"];
    let pod = json!({
        "metadata": {"name": "hostile", "labels": labels, "annotations": annotations},
        "spec": {
            "containers": [{"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": command}],
            "terminationGracePeriodSeconds": 1,
        },
    });
    let pods = ground.pods();
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let pod = ground
        .wait_for("hostile", "runs", |pod| {
            pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
        })
        .await?;
    let cgroup = ground.node.cgroup_of(&pod, "main").await?;
    let refused = "catamaran_agent_refused_annotations";
    let with = |part: &str| format!(r#"{{"container": "main", "pidsMax": 5{part}}}"#);
    for hostile in [
        with(&format!(r#", "note": "{}""#, "x".repeat(200_000))),
        format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)),
        with(&" ".repeat(5000)),
        r#"{"container": "main", "pidsMax": -5}"#.to_owned(),
        r#"{"container": "main", "pidsMax": 1e99}"#.to_owned(),
        r#"{"container": "main", "memoryHighBytes": 18446744073709551616}"#.to_owned(),
        r#"{"container": "main", "cpuBurstUsec": "9\u0000"}"#.to_owned(),
        r#"{"container": "../../system.slice", "pidsMax": 5}"#.to_owned(),
        with(r#", "io": [{"device": "../../vda", "wbps": 1}]"#),
        with(r#", "io": [{"device": "/dev/vdb", "wbps": 1}]"#),
        with(r#", "io": [{"device": "8:0 rbps=1\n8:16", "wbps": 1}]"#),
        with(r#", "cgroup.procs": 1"#),
        "\u{7f}\u{1b}[2J".to_owned(),
    ] {
        let set = async |text: &str| {
            let patch = json!({"metadata": {"annotations": {NODE_QUOTA_ANNOTATION: text}}});
            pods.patch_metadata("hostile", &PatchParams::default(), &Patch::Merge(patch)).await
        };
        set(&good).await?;
        says(ground, &cgroup, &[("pids.max", "64")]).await?;
        agent_metric(ground, refused, |value| value == 0.0).await?;
        set(&hostile).await?;
        let shown: String = hostile.chars().take(60).collect();
        agent_metric(ground, refused, |value| value == 1.0).await.with_context(|| shown.clone())?;
        // Nothing of it is followed, and what was held before is not held on.
        says(ground, &cgroup, &[("pids.max", "max"), ("memory.high", "max"), ("io.max", "")]).await.context(shown)?;
    }
    ensure!(ground.node.shell("cat /sys/fs/cgroup/kubepods/cgroup.freeze").await?.trim() == "0");
    ground.delete("hostile").await
}
