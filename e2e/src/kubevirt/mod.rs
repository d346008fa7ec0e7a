//! A stand-in for KubeVirt's controllers, which cannot run here: they need nodes with a kubelet, containers and KVM.
//!
//! It does what virt-api, virt-controller and virt-handler were seen to do for VMIRS -> VMI -> launcher pod, and
//! nothing else of KubeVirt; see `docs/adr/0009-kubevirt-stand-in.md`. Guests are simulated; the launcher pods run on
//! KWOK's nodes, where nothing runs in them, or on a real node, with a load in the place of a guest.

mod admission;
mod definitions;
mod garbage;
mod guest;
mod informer;
mod instances;
mod knobs;
mod launcher;
mod real_node;
mod replica_set;
mod sets;
mod subresources;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use catamaran_crds::kubevirt::VirtualMachineInstance;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::task::JoinSet;

pub use garbage::garbage_collected;
pub use knobs::{Knobs, PREFIX};
pub use real_node::make_schedulable;

use crate::control_plane::ControlPlane;

/// The user that the stand-in is to act as; it alone may change the spec of a VMI.
pub const USER: &str = "kubevirt-stand-in";

/// A running stand-in; it ends when this is dropped.
pub struct StandIn {
    client: Client,
    paused: Paused,
    tasks: JoinSet<()>,
}

/// Guests that are paused, by namespace and name.
type Paused = Arc<Mutex<HashSet<(String, String)>>>;

/// A client for [`StandIn::start`], of the user [`USER`].
///
/// # Errors
/// When no certificate can be made.
pub async fn client(control_plane: &ControlPlane) -> Result<Client> {
    let config = control_plane.config_for_user(USER, Some("system:masters")).await?;
    Ok(Client::try_from(config)?)
}

/// KubeVirt's own CustomResourceDefinitions, where they are at hand: the folder in `CATAMARAN_KUBEVIRT_CRDS`, else the
/// one that is shared beside this repository.
#[must_use]
pub fn own_definitions() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/kubevirt-crds");
    let folder = std::env::var_os("CATAMARAN_KUBEVIRT_CRDS").map_or_else(beside, PathBuf::from);
    folder.join("virtualmachineinstances.json").exists().then_some(folder)
}

impl StandIn {
    /// Starts a stand-in on a control plane, as the user [`USER`] and with virt-api's subresources.
    ///
    /// # Errors
    /// When the API server refuses something, or does not reach the subresources.
    pub async fn run(control_plane: &ControlPlane, knobs: Knobs) -> Result<Self> {
        let mut stand_in = Self::start(client(control_plane).await?, knobs).await?;
        stand_in.serve(control_plane).await?;
        Ok(stand_in)
    }

    /// Installs the CustomResourceDefinitions and admission rules, and starts the controllers as tasks of this process.
    ///
    /// # Errors
    /// When the API server refuses something.
    pub async fn start(client: Client, knobs: Knobs) -> Result<Self> {
        definitions::install(&client, knobs.definitions.as_deref()).await.context("KubeVirt's definitions")?;
        admission::install(&client).await.context("KubeVirt's admission rules")?;
        let paused = Paused::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(sets::run(client.clone(), knobs.cache_lag));
        tasks.spawn(instances::run(client.clone(), knobs, paused.clone()));
        Ok(Self { client, paused, tasks })
    }

    /// Serves virt-api's subresources as well, behind the API server.
    ///
    /// # Errors
    /// When the API server does not reach them.
    pub async fn serve(&mut self, control_plane: &ControlPlane) -> Result<()> {
        let serving = subresources::serve(control_plane, self.client.clone(), self.paused.clone()).await?;
        self.tasks.spawn(serving);
        Ok(())
    }

    /// Pauses or unpauses a guest, as its users do with virtctl.
    ///
    /// # Errors
    /// When there is no such VMI.
    pub async fn pause(&self, namespace: &str, name: &str, paused: bool) -> Result<()> {
        set_paused(&self.client, &self.paused, namespace, name, paused).await
    }
}

async fn set_paused(client: &Client, all: &Paused, namespace: &str, name: &str, paused: bool) -> Result<()> {
    let key = (namespace.to_owned(), name.to_owned());
    {
        let mut set = all.lock().unwrap_or_else(PoisonError::into_inner);
        let _: bool = if paused { set.insert(key) } else { set.remove(&key) };
    }
    // A change of the object, so that the loop looks at it.
    let touch = json!({"metadata": {"annotations": {format!("{PREFIX}paused"): paused.to_string()}}});
    let api: Api<VirtualMachineInstance> = Api::namespaced(client.clone(), namespace);
    api.patch(name, &PatchParams::default(), &Patch::Merge(&touch)).await?;
    Ok(())
}
