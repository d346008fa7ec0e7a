//! `cargo xtask manifests`: what it prints installs the operator without Helm.
#![cfg(feature = "control-plane")]

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use catamaran_e2e::{control_plane::ControlPlane, installation::binary, wait::eventually};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client};

const NAMESPACE: &str = "elsewhere";

fn manifests(values: &str) -> Result<(bool, String, String)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("values.yaml");
    fs::write(&file, values)?;
    let mut command = Command::new(binary("xtask")?);
    let output = command.args(["manifests", "--namespace", NAMESPACE, "--values"]).arg(&file).output()?;
    Ok((output.status.success(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_manifests_install_the_operator_in_their_namespace() -> Result<()> {
    let (made, text, error) = manifests("replicaCount: 0")?;
    ensure!(made, "{error}");
    let control_plane = ControlPlane::builder().start().await?;
    let file = control_plane.dir().join("manifests.yaml");
    fs::write(&file, &text)?;
    let kubectl = |arguments: &[&str]| -> Result<(bool, String)> {
        let output = control_plane.kubectl()?.args(arguments).arg("-f").arg(&file).output()?;
        let told = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&told).into_owned()))
    };
    let (applied, told) = kubectl(&["apply", "--server-side"])?;
    ensure!(applied, "{told}");
    let definitions = ["wait", "crd", "--all", "--for=condition=Established", "--timeout=30s"];
    let output = control_plane.kubectl()?.args(definitions).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Nothing was dropped or changed on the way in.
    let (same, difference) = kubectl(&["diff", "--server-side"])?;
    ensure!(same, "{difference}");

    let deployments: Api<Deployment> = Api::namespaced(control_plane.client(), NAMESPACE);
    let spec = deployments.get("catamaran").await?.spec.context("a Deployment has a spec")?;
    ensure!(spec.replicas == Some(0), "the values count: {:?}", spec.replicas);
    let account = spec.template.spec.and_then(|pod| pod.service_account_name).context("it names its account")?;
    let config = control_plane.config_for_service_account(NAMESPACE, &account).await?;
    let workloads: Api<ElasticWorkload> = Api::all(Client::try_from(config)?);
    // RBAC and new kinds reach the API server's caches a moment later.
    eventually("the account may list workloads", Duration::from_secs(10), || async {
        Ok(Some(workloads.list(&Default::default()).await?))
    })
    .await?;
    Ok(())
}

#[test]
fn wrong_values_are_refused_by_name() -> Result<()> {
    let (made, text, error) = manifests("replicaCount: many")?;
    ensure!(!made && text.is_empty(), "{text}");
    ensure!(error.contains("replicaCount"), "{error}");
    Ok(())
}
