//! Tests of the ground itself: a failure here says that the others cannot be trusted.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    audit::{Write, count},
    control_plane::{ControlPlane, sweep},
    process::signal,
    wait::eventually,
};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

const WITHIN: Duration = Duration::from_secs(60);

fn deployment(name: &str, replicas: u32, image: &str) -> Deployment {
    serde_json::from_value(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
        },
    }))
    .expect("a valid Deployment")
}

async fn pods(client: &Client, app: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let params = ListParams::default().labels(&format!("app={app}"));
    Ok(pods.list(&params).await?.items)
}

fn condition(pod: &Pod, kind: &str) -> bool {
    pod.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

fn waiting_reason(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

/// Whole seconds from the kubelet's first word on a pod until its container ran.
fn start_up(pod: &Pod) -> Option<i64> {
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.as_ref()?.first()?;
    let running = container.state.as_ref()?.running.as_ref()?;
    let start = status.start_time.as_ref()?.0;
    Some(running.started_at.as_ref()?.0.duration_since(start).as_secs())
}

async fn all_ready(client: &Client, app: &str, count: usize) -> Result<Vec<Pod>> {
    eventually(&format!("{count} ready pods of {app}"), WITHIN, || async {
        let pods = pods(client, app).await?;
        let ready = pods.iter().filter(|pod| condition(pod, "Ready")).count();
        Ok((pods.len() == count && ready == count).then_some(pods))
    })
    .await
}

#[tokio::test]
async fn pods_of_a_deployment_get_ready_and_a_broken_image_does_not() -> Result<()> {
    let control_plane = ControlPlane::builder().kwok_nodes(3).start().await?;
    let client = control_plane.client();
    control_plane.default_service_account("default").await?;
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let create = PostParams::default();

    deployments.create(&create, &deployment("web", 6, "nginx:1.29")).await?;
    deployments.create(&create, &deployment("stuck", 1, "nginx:broken")).await?;
    deployments.create(&create, &deployment("looping", 1, "nginx:crash")).await?;

    let web = all_ready(&client, "web", 6).await?;
    ensure!(web.iter().all(|pod| pod.status.as_ref().is_some_and(|s| s.pod_ip.is_some())));

    eventually("the broken image is not pulled", WITHIN, || async {
        let pods = pods(&client, "stuck").await?;
        let stuck = pods.iter().any(|pod| waiting_reason(pod) == Some("ImagePullBackOff"));
        ensure!(!pods.iter().any(|pod| condition(pod, "Ready")), "a pod with a broken image is ready");
        Ok(stuck.then_some(()))
    })
    .await?;
    eventually("the crashing container is in backoff, then started again", WITHIN, || async {
        let pods = pods(&client, "looping").await?;
        let restarted = pods.iter().any(|pod| {
            let status = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()?.first());
            status.is_some_and(|status| status.restart_count > 0)
        });
        Ok(restarted.then_some(()))
    })
    .await?;

    // Deleted pods go away, and are replaced.
    let gone = web[0].name_any();
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    api.delete(&gone, &DeleteParams::default()).await?;
    eventually("the deleted pod is gone", WITHIN, || async { Ok(api.get_opt(&gone).await?.is_none().then_some(())) })
        .await?;
    all_ready(&client, "web", 6).await?;
    Ok(())
}

#[tokio::test]
async fn a_readiness_gate_holds_readiness_and_launcher_pods_are_left_alone() -> Result<()> {
    const GATE: &str = "kubevirt.io/virtual-machine-unpaused";
    let control_plane = ControlPlane::builder().kwok_nodes(1).start().await?;
    let client = control_plane.client();
    control_plane.default_service_account("default").await?;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let launcher: Pod = serde_json::from_value(json!({
        "metadata": {"name": "launcher", "labels": {"kubevirt.io": "virt-launcher"}},
        "spec": {
            "restartPolicy": "Never",
            "readinessGates": [{"conditionType": GATE}],
            "containers": [{"name": "compute", "image": "virt-launcher:1"}],
        },
    }))?;
    pods.create(&PostParams::default(), &launcher).await?;
    let pods = &pods;
    let reaches = |what: &'static str, ready: bool| async move {
        eventually(what, WITHIN, || async {
            let pod = pods.get("launcher").await?;
            let running = condition(&pod, "ContainersReady");
            Ok((running && condition(&pod, "Ready") == ready).then_some(()))
        })
        .await
    };
    let gate = |status: &'static str| async move {
        let patch = json!({"status": {"conditions": [{"type": GATE, "status": status}]}});
        pods.patch_status("launcher", &PatchParams::default(), &Patch::Strategic(patch)).await
    };

    reaches("the launcher runs and is not ready", false).await?;
    gate("True").await?;
    reaches("the open gate makes it ready", true).await?;
    gate("False").await?;
    reaches("the closed gate makes it unready", false).await?;

    // Nothing but the KubeVirt stand-in ends it: it outlives a plain pod that is deleted after it.
    pods.delete("launcher", &DeleteParams::default()).await?;
    let plain: Pod = serde_json::from_value(json!({
        "metadata": {"name": "plain", "annotations": {"kwok.catamaran.dev/start-delay": "4s"}},
        "spec": {"containers": [{"name": "main", "image": "nginx"}]},
    }))?;
    pods.create(&PostParams::default(), &plain).await?;
    let plain = eventually("the plain pod is ready", WITHIN, || async {
        let pod = pods.get("plain").await?;
        Ok(condition(&pod, "Ready").then_some(pod))
    })
    .await?;
    let took = start_up(&plain).context("a running pod has times")?;
    ensure!((3..8).contains(&took), "told to take 4 s to start, it took {took} s");
    pods.delete("plain", &DeleteParams::default()).await?;
    eventually("the plain pod is gone", WITHIN, || async { Ok(pods.get_opt("plain").await?.is_none().then_some(())) })
        .await?;
    let launcher = pods.get("launcher").await?;
    ensure!(launcher.metadata.deletion_timestamp.is_some(), "the launcher is being deleted");
    Ok(())
}

#[tokio::test]
async fn a_lost_node_makes_its_pods_unready_and_they_are_replaced() -> Result<()> {
    let control_plane = ControlPlane::builder().kwok_nodes(2).eviction_after(Duration::from_secs(2)).start().await?;
    let client = control_plane.client();
    control_plane.default_service_account("default").await?;
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &deployment("web", 4, "nginx")).await?;
    all_ready(&client, "web", 4).await?;

    control_plane.fail_node("node-0").await?;
    eventually("four ready pods on the other node", WITHIN, || async {
        let pods = pods(&client, "web").await?;
        let elsewhere = pods.iter().filter(|pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            condition(pod, "Ready") && node == Some("node-1")
        });
        Ok((elsewhere.count() == 4).then_some(()))
    })
    .await?;

    control_plane.restore_node("node-0").await?;
    all_ready(&client, "web", 4).await?;
    Ok(())
}

#[tokio::test]
async fn two_control_planes_run_side_by_side() -> Result<()> {
    let (one, two) = tokio::join!(
        ControlPlane::builder().kwok_nodes(1).start(),
        ControlPlane::builder().controller_manager(false).scheduler(false).start(),
    );
    let (one, two) = (one?, two?);
    ensure!(one.server() != two.server());
    let create = PostParams::default();
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "only-here"}}))?;
    Api::default_namespaced(one.client()).create(&create, &map).await?;
    let there: Api<ConfigMap> = Api::default_namespaced(two.client());
    ensure!(there.get_opt("only-here").await?.is_none(), "each has data of its own");

    let folder = one.dir().to_owned();
    one.stop();
    ensure!(!folder.exists() && processes_of(&folder)?.is_empty());
    // The other is not touched by that.
    there.create(&create, &map).await?;
    Ok(())
}

/// The processes whose command line names a folder.
fn processes_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let folder = folder.to_str().context("a UTF-8 path")?;
    Ok(fs::read_dir("/proc")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|process| {
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(folder)
        })
        .collect())
}

/// Runs itself a second time as a child, and kills that.
#[tokio::test]
async fn nothing_outlives_a_killed_test_process() -> Result<()> {
    const VICTIM: &str = "CATAMARAN_GROUND_VICTIM";
    const FOLDER: &str = "folder of the victim: ";
    if env::var_os(VICTIM).is_some() {
        let control_plane = ControlPlane::builder().kwok_nodes(1).start().await?;
        // Written past the test harness, which holds back what tests print.
        println!("\n{FOLDER}{}", control_plane.dir().display());
        return std::future::pending().await;
    }

    let mut victim = Command::new(env::current_exe()?)
        .args(["nothing_outlives_a_killed_test_process", "--exact", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = victim.stdout.take().context("its output is piped")?;
    let folder = BufReader::new(output)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix(FOLDER).map(PathBuf::from))
        .context("the victim did not start")?;
    let before = processes_of(&folder)?.len();
    ensure!(before == 5, "five programs run, found {before}");

    signal(victim.id(), "KILL")?;
    victim.wait()?;
    eventually("the programs of the killed process end", Duration::from_secs(5), || async {
        Ok(processes_of(&folder)?.is_empty().then_some(()))
    })
    .await?;
    ensure!(folder.exists(), "nobody was there to remove the folder");
    sweep()?;
    ensure!(!folder.exists(), "the sweep removes it");
    Ok(())
}

#[tokio::test]
async fn the_audit_log_counts_the_writes_of_a_client() -> Result<()> {
    let control_plane = ControlPlane::builder().kwok_nodes(1).start().await?;
    control_plane.default_service_account("default").await?;
    let audit = control_plane.audit();
    let config = control_plane.config_for_user("alice", Some("system:masters")).await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(Client::try_from(config)?);
    let mark = audit.mark()?;

    for number in 0..3 {
        let map = serde_json::from_value(json!({"metadata": {"name": format!("map-{number}")}}))?;
        maps.create(&PostParams::default(), &map).await?;
    }
    let patch = json!({"data": {"key": "value"}});
    maps.patch("map-0", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    maps.delete("map-1", &DeleteParams::default()).await?;
    maps.list(&ListParams::default()).await?;
    let refused = maps.delete("map-1", &DeleteParams::default()).await;
    ensure!(refused.is_err());

    let writes = eventually("all writes of alice are logged", WITHIN, || async {
        let mut writes = audit.writes_since(mark)?;
        writes.retain(|write| write.user == "alice");
        Ok((writes.len() >= 6).then_some(writes))
    })
    .await?;
    let counts = count(writes.iter().filter(|write| write.took_effect()));
    let of = |verb: &str| counts.get(&("alice".to_owned(), verb.to_owned(), "configmaps".to_owned()));
    ensure!(writes.len() == 6, "{writes:?}");
    ensure!((of("create"), of("patch"), of("delete")) == (Some(&3), Some(&1), Some(&1)), "{counts:?}");

    // An account without rights is refused, and that is in the log too.
    let config = control_plane.config_for_service_account("default", "default").await?;
    let refused: Api<ConfigMap> = Api::default_namespaced(Client::try_from(config)?);
    ensure!(refused.delete("map-0", &DeleteParams::default()).await.is_err());
    let is_refusal = |write: &Write| write.user == "system:serviceaccount:default:default" && write.code == 403;
    eventually("the refusal is logged", WITHIN, || async {
        Ok(audit.writes_since(mark)?.iter().any(is_refusal).then_some(()))
    })
    .await?;

    // The check for quiet sees a write, and sees quiet.
    let from = Timestamp::now();
    maps.patch("map-0", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "other"}}))).await?;
    let to = Timestamp::now();
    ensure!(audit.assert_quiet(from, to, |write| write.user != "alice").await.is_err());
    ensure!(audit.assert_quiet(from, to, |_| true).await.is_ok());
    let to = Timestamp::now() + jiff::SignedDuration::from_secs(6);
    audit.assert_quiet(Timestamp::now(), to, |_| false).await
}

#[tokio::test]
async fn helm_installs_upgrades_and_removes_a_chart() -> Result<()> {
    let control_plane = ControlPlane::builder().scheduler(false).start().await?;
    let helm = control_plane.helm()?;
    let chart = tempfile::tempdir()?;
    fs::create_dir(chart.path().join("templates"))?;
    fs::write(chart.path().join("Chart.yaml"), "{apiVersion: v2, name: tiny, version: 1.0.0}\n")?;
    fs::write(
        chart.path().join("templates/map.yaml"),
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: tiny}, data: {greeting: {{ .Values.greeting | quote }}}}\n",
    )?;
    let maps: Api<ConfigMap> = Api::namespaced(control_plane.client(), "tiny");
    let greeting = || async {
        let map = maps.get_opt("tiny").await?;
        anyhow::Ok(map.and_then(|map| map.data?.remove("greeting")))
    };

    let printed = helm.template("tiny", chart.path(), "tiny", &json!({"greeting": "hi"})).await?;
    ensure!(printed.contains("greeting: \"hi\""), "{printed}");
    helm.install("tiny", chart.path(), "tiny", &json!({"greeting": "hello"})).await?;
    ensure!(greeting().await?.as_deref() == Some("hello"));
    helm.upgrade("tiny", chart.path(), "tiny", &json!({"greeting": "good day"})).await?;
    ensure!(greeting().await?.as_deref() == Some("good day"));
    let again = helm.install("tiny", chart.path(), "tiny", &json!({})).await;
    let refusal = again.expect_err("a release cannot be installed twice").to_string();
    ensure!(refusal.contains("cannot reuse a name"), "{refusal}");
    helm.uninstall("tiny", "tiny").await?;
    ensure!(greeting().await?.is_none());
    Ok(())
}
