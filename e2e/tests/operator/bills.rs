//! A bill by request charges what the scheduler reserves for the whole pod, of either hull.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use catamaran_e2e::{
    wait::eventually,
    workloads::{only_pod, wait_ready},
};
use catamaran_plan::quantity::bytes;

use crate::support::Ground;

/// An init container above the rest, a sidecar before one, and a virtual machine.
const WORKLOADS: &str = "
apiVersion: catamaran.dev/v1alpha1
kind: WorkloadClass
metadata: {name: billed}
spec:
  quota: {cpu: {request: 100m}, memory: {request: 128Mi}}
  price: {currency: EUR, cpuHour: '0.04', memoryGibHour: '0.005', ioGib: '0.01'}
---
apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: init}
spec:
  className: billed
  container:
    template:
      spec:
        initContainers:
        - {name: migrate, image: 'registry.test/m:1', resources: {requests: {cpu: '2', memory: 2Gi}}}
        containers: [{name: app, image: 'registry.test/web:1'}]
---
apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: sidecar}
spec:
  className: billed
  container:
    template:
      spec:
        initContainers:
        - name: proxy
          image: registry.test/p:1
          restartPolicy: Always
          resources: {requests: {cpu: 500m, memory: 1Gi}}
        - {name: migrate, image: 'registry.test/m:1', resources: {requests: {cpu: '1'}}}
        containers: [{name: app, image: 'registry.test/web:1'}]
---
apiVersion: catamaran.dev/v1alpha1
kind: ElasticWorkload
metadata: {name: guest}
spec:
  className: billed
  virtualMachine: {image: 'registry.test/vm:1'}
";

pub(crate) async fn a_bill_by_request_is_what_the_scheduler_reserves(ground: Ground) -> Result<()> {
    ground.apply(WORKLOADS).await?;
    for workload in ["init", "sidecar", "guest"] {
        wait_ready(&ground.client, &ground.namespace, workload).await?;
    }
    let launcher = only_pod(&ground.client, &ground.namespace, "guest").await?;
    let containers = launcher.spec.iter().flat_map(|spec| &spec.containers);
    let requests = containers.filter_map(|container| container.resources.as_ref()?.requests.as_ref()?.get("memory"));
    let memory: u64 = requests.map(|memory| bytes(memory).unwrap_or_default()).sum();
    ensure!(memory > 128 << 20, "KubeVirt's overhead is in {memory}");
    for (workload, cores, bytes) in
        [("init", 2.0, 2 << 30), ("sidecar", 1.5, (1 << 30) + (128 << 20)), ("guest", 0.1, memory)]
    {
        let told = eventually("the ledger has it", Duration::from_secs(30), || reserved(&ground, workload)).await?;
        let gib = u32::try_from(bytes >> 20).map(f64::from)? / 1024.0;
        ensure!(
            (told.0 - cores).abs() < 1e-3 && (told.1 - gib).abs() < 1e-3,
            "{workload}: {told:?}, not {cores} {gib}"
        );
    }
    ground.quiet().await
}

/// The cores and GiB that a replica had reserved all its life, as charged.
async fn reserved(ground: &Ground, workload: &str) -> Result<Option<(f64, f64)>> {
    let metrics = ground.operator.metrics().await?;
    let label = format!("namespace=\"{}\",workload=\"{workload}\"", ground.namespace);
    let total = |name: &str| -> Result<f64> {
        let of = |line: &&str| line.starts_with(&format!("catamaran_workload_{name}_total{{")) && line.contains(&label);
        let line = metrics.lines().find(of).with_context(|| format!("no {name} of {workload}"))?;
        Ok(line.rsplit(' ').next().context("a value")?.parse()?)
    };
    let seconds = total("replica_seconds")?;
    let both = (total("cpu_requested_seconds")? / seconds, total("memory_requested_gibibyte_seconds")? / seconds);
    Ok((seconds > 0.0).then_some(both))
}
