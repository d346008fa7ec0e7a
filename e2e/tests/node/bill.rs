//! A bill for known CPU-seconds: containers restart, the agent is killed, the operator fails over, and nothing is lost
//! or charged twice.

use std::{env, time::Duration};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    installation::{Operator, SYSTEM, binary},
    node::{LOAD, Used},
    wait::eventually,
    workloads,
};
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::DaemonSet,
        core::v1::{Pod, Secret, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    agent::{says, used},
    ground::{Ground, NAMESPACE, POD_WITHIN},
};

/// The workload.
const NAME: &str = "billed";
/// Where the guest finds the loopback address of this host.
const HOST: &str = "10.200.0.1";
/// What the names of the Services begin with that lead to operators outside of the cluster.
const OUTSIDE: &str = "outside-";
/// By this share a bill may differ from what the kernel counted.
const TOLERANCE: f64 = 0.001;
/// And from what the program says.
const OF_KNOWN: f64 = 0.005;

const MANIFESTS: &str = r#"
apiVersion: catamaran.dev/v1alpha1
kind: WorkloadClass
metadata: {name: billed}
spec:
  quota: {cpu: {request: 100m}, memory: {request: 32Mi, limit: 128Mi}}
  # One euro a CPU-second.
  price: {currency: EUR, cpuHour: "3600", memoryGibHour: "0.01"}
---
apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: billed}
spec:
  className: billed
  container: {image: IMAGE, args: [serve]}
  replicas: 1
"#;

/// CPU-seconds to burn: 20, or what the environment says.
fn seconds() -> f64 {
    env::var("CATAMARAN_TEST_BILL_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(20.0)
}

pub(crate) async fn known_seconds_are_billed_over_restarts_and_a_failover(ground: &Ground) -> Result<()> {
    let mut leader = ground.operator.lock().await;
    let standby = ground.installation.start(&ground.control_plane, "standby").await?;
    lead_agents_to(ground, &[&leader, &standby]).await?;
    workloads::apply(&ground.client, NAMESPACE, &MANIFESTS.replace("IMAGE", LOAD)).await?;
    ground.ready(NAME, "Available").await?;
    for operator in [&*leader, &standby] {
        metered(operator).await?;
    }

    let part = seconds() / 5.0;
    let mut known = Known { burnt: 0.0, runtime: sandbox(ground).await? };
    burn(ground, part).await?;
    known.restart(ground).await?;
    burn(ground, part).await?;
    // The agent goes while something is used, and so does the operator that leads.
    let (burning, killed) = tokio::join!(burn(ground, part), kill_agent(ground));
    killed.and(burning)?;
    let (burning, killed) = tokio::join!(burn(ground, part), async { leader.kill() });
    // Before anything can fail: other tests need one that leads.
    *leader = standby;
    killed.and(burning)?;
    known.restart(ground).await?;
    burn(ground, part).await?;

    let pod = ground.pod_of(NAME).await?;
    ensure!(workloads::restarts(&pod) == 2, "{} restarts", workloads::restarts(&pod));
    known.add(ground.node.used(&pod).await?);
    let (billed, counted) = all_is_billed(ground, &leader).await?;
    let Known { burnt, runtime } = known;
    let off = billed / (burnt + runtime) - 1.0;
    println!(
        "the program used {burnt:.3} CPU-seconds, starting it three times and its pod {runtime:.3}; billed are {billed:.3} ({:+.3} %); the kernel counted {counted:.3} ({:+.4} %)",
        off * 100.0,
        (billed / counted - 1.0) * 100.0,
    );
    ensure!(burnt >= seconds(), "{burnt} s of {} were burnt", seconds());
    ensure!(off.abs() < OF_KNOWN, "{burnt} s and {runtime} s were used, {billed} s are billed");

    ground.kubectl(&["delete", "elasticworkload", NAME]).await?;
    ground.kubectl(&["delete", "workloadclass", "billed"]).await?;
    Ok(())
}

/// Waits until the bill is what the kernel counted for the pod: its programs, and what it took to start them. Gives
/// both.
///
/// The pod is frozen first, so that all three figures, and that of the operator's metrics, are read at rest.
async fn all_is_billed(ground: &Ground, operator: &Operator) -> Result<(f64, f64)> {
    let pod = ground.pod_of(NAME).await?;
    ground.set(NAME, json!({"state": "Frozen"})).await?;
    says(ground, &ground.node.cgroup_of(&pod, "main").await?, &[("cgroup.events", "frozen 1")]).await?;
    let counted = used(ground, &ground.node.cgroup_of_pod(&pod).await?).await? / 1e6;
    eventually("the bill has all of it", Duration::from_secs(30), || async move {
        let billed = bill(ground, operator).await?;
        ensure!((billed / counted - 1.0).abs() < TOLERANCE, "{billed} s are billed, the kernel counted {counted} s");
        let metered = counter(operator, "cpu_usage_seconds_total").await?;
        ensure!((metered / counted - 1.0).abs() < TOLERANCE, "{metered} s are metered, the kernel counted {counted} s");
        Ok(Some((billed, counted)))
    })
    .await
}

/// Makes agents stream to operators outside of the cluster: there is no DNS in it, so the name of the usage Service is
/// in their /etc/hosts, with one address for each operator.
async fn lead_agents_to(ground: &Ground, operators: &[&Operator]) -> Result<()> {
    let client = ground.client.clone();
    let (services, slices): (Api<Service>, Api<EndpointSlice>) =
        (Api::namespaced(client.clone(), SYSTEM), Api::namespaced(client.clone(), SYSTEM));
    let mut aliases = Vec::new();
    for (index, operator) in operators.iter().enumerate() {
        let name = format!("{OUTSIDE}{index}");
        let port = operator.usage().context("it takes usage")?.address.port();
        // Applied: another test may have led them to one of these before.
        let parameters = PatchParams::apply("test").force();
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name}, "spec": {"ports": [{"name": "usage", "port": 9443}]},
        });
        let service = services.patch(&name, &parameters, &Patch::Apply(service)).await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [HOST], "conditions": {"ready": true}}],
            "ports": [{"name": "usage", "port": port}],
        });
        slices.patch(&name, &parameters, &Patch::Apply(slice)).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("a Service has an address")?;
        aliases.push(json!({"ip": address, "hostnames": [format!("catamaran-usage.{SYSTEM}.svc")]}));
    }
    // Operators outside have a certificate of the control plane's authority, not of the chart's.
    let outside = operators.first().and_then(|operator| operator.usage()).context("one that takes usage")?;
    let authority = std::fs::read(&outside.ca_file)?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SYSTEM);
    let name = secrets.list(&ListParams::default()).await?.items.into_iter().find_map(|secret| {
        secret.data.as_ref().is_some_and(|data| data.contains_key("ca.crt")).then(|| secret.name_any())
    });
    let data = json!({"data": {"ca.crt": ByteString(authority)}});
    let name = name.context("the chart makes a Secret with ca.crt")?;
    secrets.patch(&name, &PatchParams::default(), &Patch::Merge(data)).await?;
    let agents: Api<DaemonSet> = Api::namespaced(client, SYSTEM);
    let template = json!({"spec": {"template": {"spec": {
        "hostAliases": aliases,
        // glibc takes the first line of a name otherwise.
        "containers": [{"name": "agent", "env": [
            {"name": "RESOLV_MULTI", "value": "on"},
            {"name": "CATAMARAN_USAGE_SERVER_NAME", "value": outside.server_name},
        ]}],
    }}}});
    agents.patch("catamaran-agent", &PatchParams::default(), &Patch::Strategic(template)).await?;
    Ok(())
}

/// The same to the operator that leads, unless that was done before.
pub(crate) async fn lead_agents_to_the_leader(ground: &Ground) -> Result<()> {
    // Two tests at once do it once.
    let leader = ground.operator.lock().await;
    let services: Api<Service> = Api::namespaced(ground.client.clone(), SYSTEM);
    match services.get_opt(&format!("{OUTSIDE}0")).await? {
        Some(_) => Ok(()),
        None => lead_agents_to(ground, &[&leader]).await,
    }
}

/// Waits until an operator's accounts have a reading of the workload.
async fn metered(operator: &Operator) -> Result<()> {
    eventually("an agent's readings are in the accounts", POD_WITHIN, || async {
        Ok((counter(operator, "metered_seconds_total").await? > 0.0).then_some(()))
    })
    .await
}

/// A counter of the workload, of the operator's metrics.
async fn counter(operator: &Operator, name: &str) -> Result<f64> {
    let metrics = operator.metrics().await?;
    let (name, of_workload) = (format!("catamaran_workload_{name}{{"), format!(r#"workload="{NAME}""#));
    let line = metrics.lines().find(|line| line.starts_with(&name) && line.contains(&of_workload));
    Ok(line.and_then(|line| line.rsplit(' ').next()).context("the counter")?.parse()?)
}

/// What a bill has to have, without a look at the pod's count in the kernel.
struct Known {
    /// By the program's own clock.
    burnt: f64,
    /// By the runtime, which starts sandbox and containers within the pod's cgroup; without KVM that takes most of a
    /// second each.
    runtime: f64,
}

impl Known {
    fn add(&mut self, used: Used) {
        self.burnt += used.program_seconds;
        self.runtime += used.before_seconds;
    }

    /// Notes what the container has used, and has it started again.
    async fn restart(&mut self, ground: &Ground) -> Result<()> {
        self.add(ground.node.used(&ground.pod_of(NAME).await?).await?);
        ground.restart(NAME).await.map(|_| ())
    }
}

/// CPU-seconds that the sandbox of the pod took: what the pod has used, but for its container.
async fn sandbox(ground: &Ground) -> Result<f64> {
    let pod = ground.pod_of(NAME).await?;
    let (all, container) = (ground.node.cgroup_of_pod(&pod).await?, ground.node.cgroup_of(&pod, "main").await?);
    Ok((used(ground, &all).await? - used(ground, &container).await?) / 1e6)
}

/// Burns CPU-seconds in the container.
async fn burn(ground: &Ground, seconds: f64) -> Result<()> {
    ground.node.burn_seconds(&ground.pod_of(NAME).await?, seconds).await
}

/// Kills the agent's pod without a last word, and waits for the next one.
async fn kill_agent(ground: &Ground) -> Result<()> {
    let agents: Api<Pod> = Api::namespaced(ground.client.clone(), SYSTEM);
    let old = ground.agent().await?;
    agents.delete(&old.name_any(), &DeleteParams::default().grace_period(0)).await?;
    eventually("another agent is ready", POD_WITHIN, || async {
        let agent = ground.agent().await?;
        Ok((agent.uid() != old.uid() && workloads::pod_is_ready(&agent)).then_some(()))
    })
    .await
}

/// CPU-seconds as the plugin bills them.
async fn bill(ground: &Ground, operator: &Operator) -> Result<f64> {
    let mut command = Command::new(binary("kubectl-catamaran")?);
    command
        .args(["bill", "billed", "--namespace", NAMESPACE, "--last", "3h", "--output", "json"])
        .args(["--operator-url", &format!("http://{}", operator.address())])
        .env("KUBECONFIG", ground.control_plane.kubeconfig());
    let output = command.output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let hours: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    ensure!(hours.iter().all(|hour| hour["currency"] == "EUR" && hour["class"] == "billed"), "{hours:?}");
    let cpu =
        |hour: &Value| -> Result<f64> { Ok(hour["cpuHours"].as_str().context("cpuHours")?.parse::<f64>()? * 3600.0) };
    let sum = hours.iter().map(cpu).sum::<Result<f64>>()?;
    let cost = hours.iter().map(|hour| Ok(hour["cost"].as_str().context("cost")?.parse::<f64>()?));
    let cost = cost.sum::<Result<f64>>()?;
    // A euro a CPU-second, and less than a cent for memory.
    ensure!((cost - sum).abs() < 0.01, "{cost} EUR for {sum} s");
    Ok(sum)
}
