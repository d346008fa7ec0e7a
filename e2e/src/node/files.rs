//! The files of a node: those that are the same on every disk, and those of one node, which the initial RAM disk brings
//! to `/run/node`.

use serde_json::{Value, json};

use super::network::{Addresses, NETWORK, PREFIX};
use crate::control_plane::{DNS_IP, SERVICE_RANGE};

/// containerd's configuration: `/etc/containerd/config.toml`.
pub(super) const CONTAINERD: &str = r#"version = 3
# There is one snapshotter here, and nobody to send traces to.
disabled_plugins = [
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.native",
  "io.containerd.differ.v1.erofs", "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "catamaran.test/pause:1"

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/run/node/cni"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

# There is no systemd: cgroups are made as folders. The kubelet asks containerd which way it is.
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
"#;

/// What process 1 keeps running on every disk: `/etc/node/services`.
pub(super) const SERVICES: &str = "containerd containerd --config /etc/containerd/config.toml\n";

/// What process 1 keeps running on a node that has joined.
///
/// An external cloud provider is somebody who has written the node's addresses: `ControlPlane` here. It knows that the
/// kubelet is reached at a port of the host.
pub(super) fn services(name: &str, addresses: Addresses) -> String {
    format!(
        "kubelet kubelet --config=/run/node/kubelet.json --kubeconfig=/run/node/kubeconfig --hostname-override={name} --node-ip={} --cloud-provider=external
kube-proxy kube-proxy --config=/run/node/kube-proxy.json --hostname-override={name}\n",
        addresses.node
    )
}

/// What process 1 runs once, before any service.
///
/// There is no default route: QEMU would lead what goes there out into the host's network. Processes of the node need a
/// route to Services, though it is never taken: the packet filter leads to a pod first.
pub(super) fn setup(name: &str, addresses: Addresses, swap: bool) -> String {
    let node = addresses.node;
    let mut script = format!(
        "hostname {name}
echo '127.0.0.1 localhost' > /etc/hosts
echo '{node} {name}' >> /etc/hosts
tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
ip link set lo up
ip address add {node}/{PREFIX} dev eth0
# QEMU waits a second for an answer about a pod's address, and by default the kernel takes most of that.
echo 0 > /proc/sys/net/ipv4/neigh/eth0/proxy_delay
ip link set eth0 up
ip route add {SERVICE_RANGE} dev eth0
mount -t ext4 /dev/vdb /data
"
    );
    if swap {
        script += "mkswap /dev/vdc > /dev/null\nswapon /dev/vdc\n";
    }
    script
}

/// How pods are connected: each by a pair of interfaces to the node, which routes.
pub(super) fn network(addresses: Addresses) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni",
                "ranges": [[{"subnet": addresses.pod_network()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

/// The kubelet's configuration. What is not said is as in the product: cgroup v2 with pods below QoS classes, CPU
/// limits by quota, in-place changes.
pub(super) fn kubelet(port: u16, dns: bool) -> Value {
    let mut configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "port": port,
        "tlsCertFile": "/run/node/kubelet.crt",
        "tlsPrivateKeyFile": "/run/node/kubelet.key",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/run/node/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "failSwapOn": false,
        // Nothing here translates addresses by iptables.
        "makeIPTablesUtilChains": false,
        "resolvConf": "/etc/resolv.conf",
        // The images are all there are: none may be collected.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    });
    if dns {
        configuration["clusterDNS"] = json!([DNS_IP]);
        configuration["clusterDomain"] = json!("cluster.local");
    }
    configuration
}

/// kube-proxy's configuration.
pub(super) fn kube_proxy() -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": "/run/node/kube-proxy.kubeconfig"},
        "mode": "nftables",
        "clusterCIDR": NETWORK,
        "healthzBindAddress": "",
        "metricsBindAddress": "127.0.0.1:10249",
        // The kernel's own limits will do.
        "conntrack": {"maxPerCore": 0},
    })
}
