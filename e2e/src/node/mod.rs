//! A real node: a kernel, containerd and a kubelet in a QEMU guest that joins a control plane.
//!
//! ```no_run
//! # async fn example(control_plane: &catamaran_e2e::control_plane::ControlPlane) -> anyhow::Result<()> {
//! use catamaran_e2e::node::{Node, NodeOptions};
//!
//! let node = Node::boot(control_plane, NodeOptions::default()).await?;
//! assert_eq!(node.shell("cat /sys/fs/cgroup/kubepods/cgroup.type").await?.trim(), "domain");
//! # Ok(())
//! # }
//! ```
//!
//! Everything comes from Go modules, a Debian archive and this repository, and is kept in the cache: see `disk.rs` and
//! `docs/adr/0012-real-node.md`.

mod accelerator;
mod debian;
mod disk;
mod dns;
mod files;
pub mod image;
mod images;
mod load;
mod machine;
mod network;
pub mod product;
mod ramdisk;
mod requests;
mod shell;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use k8s_openapi::api::{
    core::v1::{Node as NodeObject, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::{control_plane::ControlPlane, wait::eventually};
use disk::Prepared;
pub use disk::{lacks, prepare};
pub use images::{BUSYBOX, HELLO, LOAD, PAUSE};
pub use load::Used;
use machine::{Machine, Parts, empty_disk};
use network::Addresses;
pub use network::GATEWAY;
use ramdisk::Archive;
pub use shell::Output;

/// How long a guest may take until it is Ready; alone on two cores, in software, it takes 15 s.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// How long a command in the guest may take by default.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);
/// How long a service may take to be back after a restart.
const BACK_WITHIN: Duration = Duration::from_secs(90);
/// MiB of `/data`, a file system of its own on `/dev/vdb`: for limits of block devices.
const DATA: u64 = 1024;
/// MiB of swap on `/dev/vdc`.
const SWAP: u64 = 512;

/// What a guest is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// Its name; by default `guest-N`.
    pub name: Option<String>,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// Whether there is swap. Pods get none of it unless somebody raises their memory.swap.max.
    pub swap: bool,
    /// Labels in addition to those that the kubelet sets.
    pub labels: Vec<(String, String)>,
    /// The key of a taint that keeps away pods which neither tolerate it nor name the node.
    pub taint: Option<String>,
    /// Whether pods ask the cluster's DNS, which [`Node::serve_names`] starts; otherwise no name has an address.
    pub dns: bool,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { name: None, cpus: 2, memory: 1024, swap: true, labels: Vec::new(), taint: None, dns: false }
    }
}

/// A guest that has joined a control plane. QEMU ends when this is dropped, and with this process.
pub struct Node {
    name: String,
    machine: Machine,
    nodes: Api<NodeObject>,
    kubelet: Client,
    took: Duration,
}

impl Node {
    /// Boots a guest and waits until its node is Ready.
    ///
    /// # Errors
    /// When this host cannot run guests (the message says what it lacks), or the node does not get Ready; then the
    /// message shows the guest's console and the kubelet's log.
    pub async fn boot(control_plane: &ControlPlane, options: NodeOptions) -> Result<Self> {
        let prepared = disk::prepared().await?;
        let number = control_plane.node_numbers(1).start;
        let name = options.name.clone().unwrap_or_else(|| format!("guest-{number}"));
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let joining = Joining { control_plane, options: &options, name: &name, number, port };
        let nodes: Api<NodeObject> = Api::all(control_plane.client());
        joining.announce(&nodes).await?;
        joining.serve_api().await?;
        let start = Instant::now();
        let machine = match joining.start(&prepared).await {
            Ok(machine) => machine,
            // Seen in a few of a hundred starts: the emulated processors lock up before the guest's first answer.
            Err(error) => {
                eprintln!("warning: the guest is started once more: {error:#}");
                joining.start(&prepared).await?
            }
        };
        if let Err(error) = control_plane.node_ready(&name, READY_WITHIN).await {
            let log = machine.shell().run("tail -n 30 /var/log/kubelet.log", &[], COMMAND_WITHIN).await;
            let log = log.map_or_else(|error| format!("{error:#}"), |output| output.stdout);
            return Err(error.context(format!("its console:\n{}\nthe kubelet's log:\n{log}", machine.console())));
        }
        let kubelet = Client::try_from(control_plane.config_at(&format!("https://127.0.0.1:{port}"))?)?;
        Ok(Self { name, machine, nodes, kubelet, took: start.elapsed() })
    }

    /// Its name as a Node object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From the start of QEMU until the node was Ready.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Runs a command by `sh -c` as root in the guest, and gives its standard output.
    ///
    /// # Errors
    /// When it takes longer than a minute, or ends with another status than 0.
    pub async fn shell(&self, command: &str) -> Result<String> {
        let output = self.run(command, &[], COMMAND_WITHIN).await?;
        ensure!(
            output.code == 0,
            "in the guest {command} ended with {}:\n{}{}",
            output.code,
            output.stdout,
            output.stderr
        );
        Ok(output.stdout)
    }

    /// The same with something on standard input and another time limit, at which the command is killed with all that
    /// it started. Any number may run at once.
    ///
    /// # Errors
    /// When it takes longer than that, or the guest is gone. Another status than 0 is none.
    pub async fn run(&self, command: &str, input: &[u8], within: Duration) -> Result<Output> {
        self.machine.shell().run(command, input, within).await
    }

    /// Gives an image, as an OCI or docker archive, to containerd. Pods then need `imagePullPolicy: IfNotPresent` or
    /// `Never`.
    ///
    /// # Errors
    /// What containerd says.
    pub async fn import(&self, archive: &[u8]) -> Result<()> {
        disk::import_into(&self.machine, archive).await
    }

    /// Runs the cluster's DNS in a pod: CoreDNS, behind the Service `kube-dns`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub async fn serve_names(control_plane: &ControlPlane) -> Result<()> {
        dns::serve(control_plane).await
    }

    /// The folder of a pod's cgroup in the guest.
    ///
    /// # Errors
    /// When there is none.
    pub async fn cgroup_of_pod(&self, pod: &Pod) -> Result<String> {
        let uid = pod.uid().context("a pod of the API server has a uid")?;
        self.cgroup(&format!("pod{uid}")).await
    }

    /// The folder of a container's cgroup in the guest. `pod` has to be as it is now: the id in its status counts.
    ///
    /// # Errors
    /// When the container does not run.
    pub async fn cgroup_of(&self, pod: &Pod, container: &str) -> Result<String> {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let id = statuses
            .filter(|status| status.name == container)
            .find_map(|status| status.container_id.as_deref()?.split_once("://"))
            .with_context(|| format!("the pod {} has no container {container} that runs", pod.name_any()))?
            .1;
        self.cgroup(id).await
    }

    async fn cgroup(&self, name: &str) -> Result<String> {
        // It fails where a cgroup goes while it looks, after it has told of the others.
        let found = self.shell(&format!("find /sys/fs/cgroup -type d -name '{name}' 2>/dev/null || true")).await?;
        let mut lines = found.lines();
        match (lines.next(), lines.next()) {
            (Some(only), None) => Ok(only.to_owned()),
            _ => Err(anyhow!("{name} has not one cgroup in the guest: {found:?}")),
        }
    }

    /// What the kubelet answers to a GET as an administrator, such as of `/stats/summary` or `/metrics/cadvisor`.
    ///
    /// # Errors
    /// When it does not answer, or not by success.
    pub async fn kubelet(&self, path: &str) -> Result<String> {
        Ok(self.kubelet.request_text(http::Request::get(path).body(Vec::new())?).await?)
    }

    /// Kills the kubelet (SIGKILL), and waits until the next one serves.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn restart_kubelet(&self) -> Result<()> {
        self.restart("kubelet").await?;
        eventually("the kubelet serves again", BACK_WITHIN, || async { Ok(Some(self.kubelet("/healthz").await?)) })
            .await?;
        Ok(())
    }

    /// Kills containerd (SIGKILL), and waits until the next one serves. Containers go on.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn restart_containerd(&self) -> Result<()> {
        self.restart("containerd").await?;
        self.run("until ctr version >/dev/null 2>&1; do sleep 0.1; done", &[], BACK_WITHIN).await?;
        Ok(())
    }

    /// Kills a service, and waits until process 1 has started it again.
    async fn restart(&self, service: &str) -> Result<()> {
        let command = format!(
            "old=$(pidof {service}) && kill -9 $old && until new=$(pidof {service}) && [ \"$new\" != \"$old\" ]; do sleep 0.1; done"
        );
        self.shell(&command).await?;
        Ok(())
    }

    /// The Node object.
    ///
    /// # Errors
    /// What the API server answers.
    pub async fn object(&self) -> Result<NodeObject> {
        Ok(self.nodes.get(&self.name).await?)
    }

    /// Ends the guest at once, as by a power cut. The Node object stays.
    ///
    /// # Errors
    /// When QEMU had ended by itself.
    pub fn power_cut(&mut self) -> Result<()> {
        self.machine.process().kill()?;
        Ok(())
    }
}

/// A guest on its way into a control plane.
struct Joining<'a> {
    control_plane: &'a ControlPlane,
    options: &'a NodeOptions,
    name: &'a str,
    number: u32,
    port: u16,
}

impl Joining<'_> {
    /// Makes the Node object with its addresses, as a cloud provider does: that the kubelet is reached at the host's
    /// loopback address only the host can know.
    async fn announce(&self, nodes: &Api<NodeObject>) -> Result<()> {
        // One of a guest before it would still say that it is Ready.
        if nodes.get_opt(self.name).await?.is_some() {
            nodes.delete(self.name, &DeleteParams::default()).await?;
        }
        let labels: serde_json::Map<String, serde_json::Value> =
            self.options.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let taints: Vec<_> = self.options.taint.iter().map(|key| json!({"key": key, "effect": "NoSchedule"})).collect();
        let node = json!({"metadata": {"name": self.name, "labels": labels}, "spec": {"taints": taints}});
        let node: NodeObject = serde_json::from_value(node)?;
        nodes
            .create(&PostParams::default(), &node)
            .await
            .with_context(|| format!("cannot make the node {}", self.name))?;
        let addresses = json!({"status": {"addresses": [
            {"type": "InternalIP", "address": Addresses::numbered(self.number).node},
            {"type": "ExternalIP", "address": Ipv4Addr::LOCALHOST},
            {"type": "Hostname", "address": self.name},
        ]}});
        nodes.patch_status(self.name, &PatchParams::default(), &Patch::Merge(addresses)).await?;
        Ok(())
    }

    /// Makes the Service `kubernetes` lead pods to the API server, which has no address of its own that an endpoint
    /// could have.
    async fn serve_api(&self) -> Result<()> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.control_plane.client(), "default");
        let port = self.control_plane.config().cluster_url.port_u16().context("the API server has a port")?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [GATEWAY], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        });
        slices.patch("kubernetes", &PatchParams::apply("e2e").force(), &Patch::Apply(&slice)).await?;
        Ok(())
    }

    async fn start(&self, prepared: &Prepared) -> Result<Machine> {
        let folder = self.control_plane.dir().join(self.name);
        fs::create_dir_all(&folder)?;
        let (ramdisk, data, swap) = (folder.join("ramdisk"), folder.join("data"), folder.join("swap"));
        let mut content = fs::read(&prepared.ramdisk)?;
        content.extend(self.seed()?);
        fs::write(&ramdisk, content)?;
        empty_disk(&data, DATA)?;
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&data).status().context("cannot run mkfs.ext4")?;
        ensure!(made.success(), "mkfs.ext4 failed ({made})");
        empty_disk(&swap, SWAP)?;
        let disks = if self.options.swap { vec![data, swap] } else { vec![data] };
        let parts = Parts {
            name: self.name,
            accelerator: prepared.accelerator,
            cpus: self.options.cpus,
            memory: self.options.memory,
            kernel: &prepared.kernel,
            ramdisk: &ramdisk,
            disk: &prepared.disk,
            keep: false,
            disks: &disks,
            forwarded: Some((Addresses::numbered(self.number).node, &[self.port])),
            folder: &folder,
        };
        parts.start(|command| self.control_plane.spawn(&format!("qemu-{}", self.name), command)).await
    }

    /// The files of this node.
    fn seed(&self) -> Result<Vec<u8>> {
        let addresses = Addresses::numbered(self.number);
        let keys = self.control_plane.node_keys(self.name, &GATEWAY.to_string())?;
        let mut archive = Archive::default();
        archive.folder("seed")?;
        archive.folder("seed/cni")?;
        archive.file("seed/setup", files::setup(self.name, addresses, self.options.swap).as_bytes())?;
        archive.file("seed/services", files::services(self.name, addresses).as_bytes())?;
        archive.file("seed/kubeconfig", keys.kubeconfig.as_bytes())?;
        archive.file("seed/kube-proxy.kubeconfig", keys.proxy_kubeconfig.as_bytes())?;
        archive.file("seed/kube-proxy.json", files::kube_proxy().to_string().as_bytes())?;
        archive.file("seed/ca.crt", keys.authority.as_bytes())?;
        archive.file("seed/kubelet.crt", keys.certificate.as_bytes())?;
        archive.file("seed/kubelet.key", keys.key.as_bytes())?;
        archive.file("seed/kubelet.json", files::kubelet(self.port, self.options.dns).to_string().as_bytes())?;
        archive.file("seed/cni/10-pods.conflist", files::network(addresses).to_string().as_bytes())?;
        archive.finish()
    }
}
