//! The garbage collector's view of KubeVirt's kinds.

use std::time::Duration;

use anyhow::Result;
use catamaran_crds::kubevirt::VirtualMachineInstanceReplicaSet;
use kube::{Api, api::PostParams};
use serde_json::json;

use crate::wait::eventually;

/// Waits until the garbage collector watches KubeVirt's kinds. A young one learns new kinds every 30 s; until then it
/// orphans nothing of them, and takes them for left behind later. The set has no VMI on purpose: an owner is known from
/// what it owns, watched or not.
///
/// # Errors
/// When that takes longer than a minute and a half.
pub async fn garbage_collected(sets: &Api<VirtualMachineInstanceReplicaSet>) -> Result<()> {
    let canary = serde_json::from_value(json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {
            "name": "canary",
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-4000-8000-000000000000"}],
        },
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "canary"}},
            "template": {
                "metadata": {"labels": {"app": "canary"}},
                "spec": {"domain": {"memory": {"guest": "64Mi"}, "devices": {}}},
            },
        },
    }))?;
    sets.create(&PostParams::default(), &canary).await?;
    eventually("a set whose owner is gone is collected", Duration::from_secs(90), || async {
        Ok(sets.get_opt("canary").await?.is_none().then_some(()))
    })
    .await
}
