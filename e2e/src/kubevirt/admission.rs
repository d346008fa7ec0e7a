//! What virt-api's webhooks refuse, as ValidatingAdmissionPolicies of the API server itself: no webhook server is
//! needed.
//!
//! Not reproduced: that an empty metadata map is refused only when it comes by server-side apply (here: always), that
//! reserved labels are refused, and that a status write by strangers is dropped without a word.

use std::time::Duration;

use anyhow::{Result, anyhow};
use catamaran_crds::kubevirt::{VirtualMachineInstanceReplicaSet, VirtualMachineInstanceReplicaSetSpec};
use kube::{
    Api, Client,
    api::{DynamicObject, ObjectMeta, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use super::USER;
use crate::wait::eventually;

/// Installs the policies and waits until they are in force.
///
/// # Errors
/// When the API server refuses them.
pub(super) async fn install(client: &Client) -> Result<()> {
    let template = "object.spec.template.spec.domain.devices";
    let disks = format!(
        "!has({template}.disks) || {template}.disks.all(disk, has(object.spec.template.spec.volumes) && object.spec.template.spec.volumes.exists(volume, volume.name == disk.name))"
    );
    let labels = "object.spec.?template.?metadata.?labels.orValue({})";
    let selector = format!(
        "object.spec.selector.?matchLabels.orValue({{}}).all(key, key in {labels} && {labels}[key] == object.spec.selector.matchLabels[key])"
    );
    let metadata = "object.spec.?template.?metadata";
    let empty = format!(
        "(!{metadata}.?annotations.hasValue() || size({metadata}.annotations.value()) > 0) && (!{metadata}.?labels.hasValue() || size({metadata}.labels.value()) > 0)"
    );
    policy(
        client,
        "virtualmachineinstancereplicasets",
        &json!([
            {"expression": selector, "message": "selector does not match labels."},
            {"expression": disks, "message": "spec.template.spec.domain.devices.disks: a disk has no volume of the same name"},
            {"expression": empty, "message": "spec.template.metadata: a map is null"},
        ]),
    )
    .await?;
    policy(
        client,
        "virtualmachineinstances",
        &json!([{
            "expression": format!("request.operation == 'CREATE' || request.userInfo.username == '{USER}' || object.spec == oldObject.spec"),
            "message": "update of VMI object is restricted",
        }]),
    )
    .await?;
    in_force(client).await
}

async fn policy(client: &Client, resource: &str, validations: &Value) -> Result<()> {
    let name = format!("{resource}.kubevirt.io");
    let rule = json!({
        "apiGroups": ["kubevirt.io"], "apiVersions": ["v1"], "resources": [resource],
        "operations": ["CREATE", "UPDATE"],
    });
    for (kind, spec) in [
        (
            "ValidatingAdmissionPolicy",
            json!({"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]}, "validations": validations}),
        ),
        ("ValidatingAdmissionPolicyBinding", json!({"policyName": name, "validationActions": ["Deny"]})),
    ] {
        let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let plural =
            if kind.ends_with('y') { "validatingadmissionpolicies" } else { "validatingadmissionpolicybindings" };
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let object = DynamicObject::new(&name, &resource).data(json!({"spec": spec}));
        api.patch(&name, &PatchParams::apply("virt-operator").force(), &Patch::Apply(&object)).await?;
    }
    Ok(())
}

/// Policies take effect a moment after they were written: asks with an object that they have to refuse.
async fn in_force(client: &Client) -> Result<()> {
    let api: Api<VirtualMachineInstanceReplicaSet> = Api::namespaced(client.clone(), "default");
    let spec = VirtualMachineInstanceReplicaSetSpec {
        selector: serde_json::from_value(json!({"matchLabels": {"no": "label"}}))?,
        template: Some(serde_json::from_value(json!({"spec": {"domain": {"devices": {}}}}))?),
        ..Default::default()
    };
    let wrong = VirtualMachineInstanceReplicaSet {
        metadata: ObjectMeta { name: Some("wrong".into()), ..Default::default() },
        spec,
        status: None,
    };
    let api = &api;
    let wrong = &wrong;
    eventually("KubeVirt's admission rules", Duration::from_secs(20), || async move {
        let dry_run = PostParams { dry_run: true, ..Default::default() };
        match api.create(&dry_run, wrong).await {
            Err(kube::Error::Api(status)) if status.message.contains("selector does not match") => Ok(Some(())),
            Err(error) => Err(anyhow!(error)),
            Ok(_) => Ok(None),
        }
    })
    .await
}
