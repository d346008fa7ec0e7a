//! Two virtual machines whose guests die at once, against the same template in a plain
//! VirtualMachineInstanceReplicaSet.

use std::time::Duration;

use anyhow::{Context, Result};
use catamaran_crds::kubevirt::VirtualMachineInstanceReplicaSet;
use catamaran_e2e::{
    control_plane::ControlPlane,
    installation::Installation,
    kubevirt::{self, Knobs, StandIn},
    wait::eventually,
    workloads::apply,
};
use jiff::Timestamp;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::report::{Figures, Outcome};

const OURS: &str = "ours";
const PEER: &str = "peer";
const WINDOW: Duration = Duration::from_secs(60);

pub(super) async fn run() -> Result<Outcome> {
    let control_plane = ControlPlane::builder().kwok_nodes(4).start().await?;
    let client = control_plane.client();
    let _kubevirt = StandIn::start(kubevirt::client(&control_plane).await?, Knobs::default()).await?;
    let installation = Installation::install(&control_plane, json!({})).await?;
    let _operator = installation.start(&control_plane, "operator").await?;
    control_plane.create_namespace(OURS).await?;
    control_plane.create_namespace(PEER).await?;

    // The stand-in's guests of a disk image with this tag die half a second after their boot.
    let workload = json!({
        "apiVersion": "catamaran.dev/v1alpha1",
        "kind": "ElasticWorkload",
        "metadata": {"name": "guests"},
        "spec": {
            "replicas": 2,
            "virtualMachine": {"image": "registry.test/guest:crash"},
            "quota": {"cpu": {"limit": "1"}, "memory": {"limit": "1Gi"}},
        },
    });
    let our_start = Timestamp::now();
    apply(&client, OURS, &serde_json::to_string(&workload)?).await?;
    let plain = plain_set(&client).await?;
    let their_start = Timestamp::now();
    apply(&client, PEER, &serde_json::to_string(&plain)?).await?;

    eprintln!("crash-loop: counting the virtual machines of {} s ...", WINDOW.as_secs());
    tokio::time::sleep(WINDOW + Duration::from_secs(1)).await;
    let created = |namespace: &str, start: Timestamp| -> Result<f64> {
        let mut writes = control_plane.audit().writes_between(start, start + WINDOW)?;
        writes.retain(|write| {
            let machine = write.resource == "virtualmachineinstances" && write.subresource.is_empty();
            machine && write.verb == "create" && write.namespace == namespace && write.took_effect()
        });
        Ok(f64::from(u32::try_from(writes.len())?))
    };
    let (ours, theirs) = (created(OURS, our_start)?, created(PEER, their_start)?);
    Ok(Outcome {
        name: "crash-loop",
        figures: Figures::from([("virtualMachinesInFirstMinute", ours)]),
        peer: "plain VirtualMachineInstanceReplicaSet",
        peer_figures: Figures::from([("virtualMachinesInFirstMinute", theirs)]),
        ratio: theirs / ours,
        ratio_of: "virtualMachinesInFirstMinute",
    })
}

/// The set that the operator made of the workload, as one would write it by hand.
async fn plain_set(client: &Client) -> Result<Value> {
    let sets: Api<VirtualMachineInstanceReplicaSet> = Api::namespaced(client.clone(), OURS);
    let set = eventually("the operator makes a set", Duration::from_secs(30), || async {
        Ok(sets.list(&Default::default()).await?.items.into_iter().next())
    })
    .await?;
    let template = serde_json::to_value(set.spec.template.context("the set has a template")?)?;
    Ok(json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {"name": "guests"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "guests"}},
            "template": {"metadata": {"labels": {"app": "guests"}}, "spec": template["spec"]},
        },
    }))
}
