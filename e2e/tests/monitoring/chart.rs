//! What Helm makes of the chart, as objects.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use catamaran_e2e::tools::{Tool, Tools};
use serde_json::Value;

/// Where the release is.
pub const NAMESPACE: &str = "catamaran-system";

/// The root of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A rendered chart.
pub struct Chart {
    objects: Vec<Value>,
}

impl Chart {
    /// Renders the chart with some values, as the release `catamaran`.
    pub fn render(values: &Value) -> Result<Self> {
        let tools = Tools::prepare(&[Tool::Helm])?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("values.json");
        fs::write(&file, values.to_string())?;
        let output = Command::new(tools.path(Tool::Helm)?)
            .args(["template", "catamaran", "--namespace", NAMESPACE, "--values"])
            .args([&file, &root().join("charts/catamaran")])
            .output()?;
        ensure!(output.status.success(), "helm: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let documents = text.split("\n---\n").filter(|document| document.contains("\nkind: "));
        let objects = documents.map(|document| Ok(serde_saphyr::from_str(document)?)).collect::<Result<_>>()?;
        Ok(Self { objects })
    }

    /// All objects of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The only object of a kind.
    pub fn only<'a>(&'a self, kind: &'a str) -> Result<&'a Value> {
        let found: Vec<&Value> = self.of_kind(kind).collect();
        let [one] = found[..] else { anyhow::bail!("{} objects of kind {kind}", found.len()) };
        Ok(one)
    }

    /// The rules as a file of Prometheus has them.
    pub fn groups(&self) -> Result<Value> {
        Ok(self.only("PrometheusRule")?["spec"].clone())
    }

    /// The alerts by name.
    pub fn alerts(&self) -> Result<BTreeMap<String, Value>> {
        let groups = self.groups()?;
        let groups = groups["groups"].as_array().context("groups")?;
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
        rules.map(|rule| Ok((rule["alert"].as_str().context("an alert's name")?.to_owned(), rule.clone()))).collect()
    }
}
