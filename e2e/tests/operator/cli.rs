//! `kubectl catamaran` against a real control plane: the tree, the explanation and the usage of a scaled workload of
//! each hull.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    installation::{SYSTEM, binary},
    usage::world::Load,
    wait::eventually,
    workloads::{WITHIN, web},
};
use catamaran_protocol::usage::{UsageList, UsageSource};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    scaling::{AT_ONCE, CPU, containers, machines, settled},
    support::{Ground, SHOP},
};

/// The Service of the operator's HTTP port.
const SERVICE: &str = "catamaran-metrics";

/// The plugin as a person runs it, with a kubeconfig.
struct Plugin {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Plugin {
    fn new(kubeconfig: PathBuf) -> Result<Self> {
        Ok(Self { program: binary("kubectl-catamaran")?, kubeconfig })
    }

    async fn output(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("KUBECONFIG", &self.kubeconfig).env("HOME", "/nonexistent").kill_on_drop(true);
        Ok(command.output().await?)
    }

    /// What it prints, when all is well.
    async fn says(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments).await?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The one line that it fails with.
    async fn fails(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments).await?;
        ensure!(output.status.code() == Some(1), "{arguments:?}: {output:?}");
        ensure!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        let error = String::from_utf8(output.stderr)?;
        ensure!(error.starts_with("error: ") && error.lines().count() == 1, "{arguments:?}: {error}");
        Ok(error)
    }
}

/// Makes the operator reachable through its Service: nothing runs in pods here, and endpoints may not be on the
/// loopback address.
async fn serve_through_the_api_server(ground: &Ground) -> Result<AbortOnDropHandle<()>> {
    let listener = TcpListener::bind((own_address()?, 0)).await?;
    let address = listener.local_addr()?;
    let operator: SocketAddr = ground.operator.address().parse()?;
    let forward = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut operator) = TcpStream::connect(operator).await {
                    let _ = copy_bidirectional(&mut stream, &mut operator).await;
                }
            });
        }
    });
    let services: Api<Service> = Api::namespaced(ground.client.clone(), SYSTEM);
    let without = Patch::Merge(json!({"spec": {"selector": null}}));
    services.patch(SERVICE, &PatchParams::default(), &without).await?;
    // The proxy only goes to addresses of pods that exist. This one is on no node, so nobody else writes its status.
    let pods: Api<Pod> = Api::namespaced(ground.client.clone(), SYSTEM);
    let container = json!({"name": "operator", "image": "registry.test/operator:1"});
    let pod = json!({"metadata": {"name": "operator"}, "spec": {"schedulerName": "nobody", "containers": [container]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let status = json!({"status": {"phase": "Running", "podIP": address.ip(), "podIPs": [{"ip": address.ip()}]}});
    let pod = pods.patch_status("operator", &PatchParams::default(), &Patch::Merge(status)).await?;
    let target = json!({"kind": "Pod", "namespace": SYSTEM, "name": "operator", "uid": pod.metadata.uid});
    let endpoints: Api<Endpoints> = Api::namespaced(ground.client.clone(), SYSTEM);
    let wanted = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": SERVICE}, "subsets": [{
            "addresses": [{"ip": address.ip(), "targetRef": target}],
            "ports": [{"name": "http", "port": address.port(), "protocol": "TCP"}],
        }],
    });
    endpoints.patch(SERVICE, &PatchParams::apply("test").force(), &Patch::Apply(&wanted)).await?;
    Ok(AbortOnDropHandle::new(forward))
}

/// An address of this host that is not the loopback one. Connecting a datagram socket sends nothing.
fn own_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((Ipv4Addr::new(10, 255, 255, 255), 9))?;
    Ok(socket.local_addr()?.ip())
}

/// Runs a workload at a known load and looks at it by each command.
async fn looks_at(ground: Ground, manifest: fn(&str) -> String, hull: &str) -> Result<()> {
    let namespace = &ground.namespace;
    // 50m are asked for: 0.09 cores are two replicas at 90 %.
    ground.usage()?.load(namespace, "web", Load { base_cores: 0.0, noise: 0.0, ..Load::cores(0.09) });
    ground.apply(&manifest(&format!("minReplicas: 1, maxReplicas: 2, {CPU}, {AT_ONCE}"))).await?;
    let workload = settled(&ground, 2).await?;
    let plugin = Plugin::new(ground.control_plane.kubeconfig())?;

    let tree = plugin.says(&["status", "web", "-n", namespace]).await?;
    ensure!(tree.starts_with(&format!("{namespace}/web: {hull}, 2/2 ready, 2 available")), "{tree}");
    ensure!(tree.contains("Auto, 1 to 2 replicas, wants 2; "), "{tree}");
    let revision = tree.lines().find(|line| line.starts_with("└─ web-")).context(tree.clone())?;
    ensure!(revision.contains("1, current") && revision.contains("2/2"), "{tree}");
    let replicas = tree.lines().filter(|line| line.starts_with("   ├─ web-") || line.starts_with("   └─ web-"));
    let replicas: Vec<&str> = replicas.filter(|line| line.contains("Running") && line.contains("node-")).collect();
    ensure!(replicas.len() == 2, "{tree}");

    let url = format!("--operator-url=http://{}", ground.operator.address());
    let text = plugin.says(&["explain", "web", "-n", namespace, &url]).await?;
    let decision = workload.status.and_then(|status| status.scaling?.last_decision).context("a decision")?;
    for part in [
        &format!("ElasticWorkload {namespace}/web, as the operator that leads sees it"),
        "wanted 2, existing 2, of the wanted revision 2, ready 2, available 2",
        "bounds: at least 2 available, at most 3 in all",
        "= Ready True ",
        "Scaling: the last decision, ",
        "bounds: 1 to 2 replicas",
        "% of the request (",
        &decision.message,
    ] {
        ensure!(text.contains(part), "no {part:?} in:\n{text}");
    }

    // At most two replicas, so the count is steady. 3 s after the last change of the count the rates are those of two
    // replicas.
    let list = eventually("usage of both replicas", WITHIN, || async {
        let text = plugin.says(&["top", "web", "-n", namespace, "--replicas", "--json", &url]).await?;
        let list: UsageList = serde_json::from_str(&text)?;
        let [workload] = list.items.as_slice() else { anyhow::bail!("{text}") };
        let share = |cpu: Option<i64>| cpu.is_some_and(|cpu| (43..=47).contains(&cpu));
        let both = workload.each.len() == 2 && workload.each.iter().all(|replica| share(replica.usage.cpu_millicores));
        ensure!(both, "{text}");
        Ok(Some(list))
    })
    .await?;
    let [usage] = list.items.as_slice() else { anyhow::bail!("{list:?}") };
    ensure!((usage.replicas, usage.by_agent, usage.by_metrics_api) == (2, 2, 0), "{usage:?}");
    ensure!(usage.usage.cpu_millicores.is_some_and(|cpu| (86..=94).contains(&cpu)), "{usage:?}");
    ensure!(usage.usage.cpu_request_millicores == Some(100), "{usage:?}");
    // The simulator gives each container 64 MiB; of a launcher pod the guest's alone counts.
    ensure!(
        usage.usage.memory_bytes == Some(128 << 20) && usage.usage.memory_request_bytes == Some(64 << 20),
        "{usage:?}"
    );
    ensure!(usage.usage.cpu_pressure_percent.is_some() && usage.usage.throttled_percent.is_some(), "{usage:?}");
    ensure!(usage.each.len() == 2 && usage.each.iter().all(|replica| replica.ready), "{usage:?}");
    ensure!(usage.each.iter().all(|replica| replica.source == Some(UsageSource::Agent)), "{usage:?}");
    ensure!(usage.each.iter().all(|replica| tree.contains(&replica.name)), "{usage:?}\n{tree}");
    let table = plugin.says(&["top", "-A", &url]).await?;
    let row = table.lines().find(|line| line.starts_with(&format!("{namespace} "))).context(table.clone())?;
    ensure!(row.contains("128Mi") && row.contains(hull) && row.contains("agents"), "{table}");

    let nobody = plugin.fails(&["explain", "nobody", "-n", namespace, &url]).await?;
    ensure!(
        nobody.contains(&format!("the operator knows no ElasticWorkload nobody in namespace {namespace}")),
        "{nobody}"
    );
    let nobody = plugin.fails(&["status", "nobody", "-n", namespace]).await?;
    ensure!(nobody.contains(&format!("no ElasticWorkload nobody in namespace {namespace}")), "{nobody}");
    ground.quiet().await
}

pub(crate) async fn a_person_looks_at_containers(ground: Ground) -> Result<()> {
    looks_at(ground, containers, "container").await
}

pub(crate) async fn a_person_looks_at_virtual_machines(ground: Ground) -> Result<()> {
    looks_at(ground, machines, "virtualMachine").await
}

/// By RBAC on the proxy to one Service; as a plugin that kubectl finds on the PATH.
pub(crate) async fn the_operator_is_reached_through_the_api_server() -> Result<()> {
    let ground = Ground::start_with(json!({"rbac": {"pluginSubjects": [{"kind": "User", "name": "ops"}]}})).await?;
    ground.apply(&web("registry.test/web:1", 2, "")).await?;
    settled(&ground, 2).await?;
    let explain = ["explain", "web", "-n", SHOP];
    let admin = Plugin::new(ground.control_plane.kubeconfig())?;
    let silent = admin.fails(&explain).await?;
    ensure!(silent.contains("the operator does not answer: ") && silent.contains(SYSTEM), "{silent}");

    let _proxy = serve_through_the_api_server(&ground).await?;
    let text = eventually("the proxy knows the endpoint", Duration::from_secs(20), || async {
        Ok(Some(admin.says(&explain).await?))
    })
    .await?;
    ensure!(text.contains("there is no spec.scaling; the count is spec.replicas"), "{text}");
    let table = admin.says(&["top", "-n", SHOP]).await?;
    ensure!(table.lines().nth(1).is_some_and(|line| line.contains("2/2") && line.trim_end().ends_with('-')), "{table}");

    // Ops may ask the operator, and nothing else; others may not even that.
    let ops = Plugin::new(ground.control_plane.kubeconfig_for_user("ops", None)?)?;
    ensure!(ops.says(&explain).await?.contains("ElasticWorkload shop/web"), "ops may ask");
    let unread = ops.fails(&["status", "web", "-n", SHOP]).await?;
    ensure!(unread.contains("is forbidden: User \"ops\""), "{unread}");
    let eve = Plugin::new(ground.control_plane.kubeconfig_for_user("eve", None)?)?;
    let refused = eve.fails(&explain).await?;
    ensure!(
        refused.contains("not allowed to ask the operator") && refused.contains("Role catamaran-plugin"),
        "{refused}"
    );

    // As kubectl runs it.
    let folder = binary("kubectl-catamaran")?.parent().map(Path::to_owned).context("a folder")?;
    let path = std::env::join_paths([folder, PathBuf::from("/usr/bin")])?;
    let mut kubectl = ground.control_plane.kubectl()?;
    let output = kubectl.args(["catamaran", "status", "--namespace", SHOP]).env("PATH", path).output()?;
    let tree = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() && tree.starts_with("shop/web: container, 2/2 ready"), "{tree}");
    ground.quiet().await
}
