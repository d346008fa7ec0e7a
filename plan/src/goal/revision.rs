//! Revisions: one version of the template, named by a hash over it.

use catamaran_crds::{Hull, kubevirt::VirtualMachineInstanceTemplate};
use k8s_openapi::{api::core::v1::PodTemplateSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What the replicas of a revision are made from.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// Pods of a ReplicaSet.
    Container(Box<PodTemplateSpec>),
    /// VirtualMachineInstances of a VirtualMachineInstanceReplicaSet.
    VirtualMachine(Box<VirtualMachineInstanceTemplate>),
}

impl Template {
    /// What the replicas are.
    #[must_use]
    pub fn hull(&self) -> Hull {
        match self {
            Self::Container(_) => Hull::Container,
            Self::VirtualMachine(_) => Hull::VirtualMachine,
        }
    }

    /// The name of the revision: the same template gives the same name on any machine and in any release, so going back
    /// to an earlier spec finds its replica set again.
    #[must_use]
    pub fn revision(&self) -> String {
        self.hash("")
    }

    /// Another name for the same template, for where the plain one is taken by a replica set that cannot become like it
    /// in place.
    #[must_use]
    pub fn revision_beside(&self, number: usize) -> String {
        self.hash(&format!("#{number}"))
    }

    /// A hash over the hull, the template and a text.
    pub(crate) fn hash(&self, salt: &str) -> String {
        let body = match self {
            Self::Container(template) => serde_json::to_value(template),
            Self::VirtualMachine(template) => serde_json::to_value(template),
        }
        // The types hold string keys and plain values only.
        .unwrap_or_default();
        let mut hasher = Sha256::new();
        hasher.update(self.hull().as_str());
        canonical(&body, &mut hasher);
        hasher.update(salt);
        safe_text(&hasher.finalize())
    }

    /// Labels and annotations of the replicas.
    pub(crate) fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Container(pod) => pod.metadata.get_or_insert_default(),
            Self::VirtualMachine(machine) => machine.metadata.get_or_insert_default(),
        }
    }
}

/// Feeds JSON in one order of keys: `serde_json::Map` sorts or not, by a feature that any crate of a build may turn on.
fn canonical(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            hasher.update(b"{");
            for (name, value) in fields {
                hasher.update(Value::from(name.as_str()).to_string());
                hasher.update(b":");
                canonical(value, hasher);
                hasher.update(b",");
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            for item in items {
                canonical(item, hasher);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => hasher.update(value.to_string()),
    }
}

/// Ten characters that form no words: the alphabet of `k8s.io/apimachinery/pkg/util/rand`.
fn safe_text(hash: &[u8]) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.iter().take(10).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}
