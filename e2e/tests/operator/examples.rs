//! The examples of the documentation work as they stand.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use catamaran_crds::ElasticWorkload;
use k8s_openapi::serde_json::Value;
use kube::{Api, ResourceExt};

use crate::support::Ground;

pub(crate) async fn every_example_gets_ready(ground: Ground) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let mut files: Vec<_> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    // The class is there before those that use it.
    files.sort_by_key(|file| (!file.ends_with("workload-class.yaml"), file.clone()));
    ensure!(files.len() >= 5, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file)?;
        ground.apply(&text).await.with_context(|| file.display().to_string())?;
        for document in text.split("\n---") {
            let value: Value = serde_saphyr::from_str(document)?;
            if value["kind"] == "ElasticWorkload" {
                let name = value["metadata"]["name"].as_str().context("a name")?;
                ground.wait_ready(name).await.with_context(|| file.display().to_string())?;
            }
        }
    }
    let workloads: Api<ElasticWorkload> = ground.api();
    for workload in workloads.list(&Default::default()).await? {
        let conditions = workload.status.clone().unwrap_or_default().conditions;
        ensure!(
            conditions.iter().all(|condition| condition.type_ != "Stalled"),
            "{}: {conditions:?}",
            workload.name_any()
        );
    }
    Ok(())
}
