//! Sampling and enforcing on a folder that looks like a node's cgroup tree.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use catamaran_agent::{
    enforce::{Enforcer, Round},
    hold::Why,
    layout::{ContainerId, Uid},
    node::Cgroups,
    pods::{Annotation, Container, Pod, PodObject},
    sample::{Sampled, Sampler},
};
use catamaran_protocol::node_quota::NodeQuota;
use catamaran_protocol::stream::{
    Counters,
    proto::{Knob, PodTotals, Pressure, QuotaState, Throttling},
};

/// A node.
struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = Self { folder };
        tree.write("cgroup/cgroup.controllers", "cpu io memory pids\n");
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).expect("a file").trim().to_owned()
    }

    /// The files of a pod's own cgroup and of a container in it.
    fn pod(&self, name: &str, container: &str) {
        for (file, text) in [
            ("cpu.stat", "usage_usec 900\n"),
            ("cpu.max", "50000 100000\n"),
            ("cpu.max.burst", "0\n"),
            ("memory.current", "9000\n"),
            ("memory.events", "oom 0\noom_kill 0\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2\n"),
            ("memory.peak", "9999\n"),
        ] {
            self.write(&format!("{}/{file}", pod_path(name)), text);
        }
        for (file, text) in [
            ("cpu.stat", "usage_usec 500\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2\n"),
            ("cpu.max", "50000 100000\n"),
            ("cpu.max.burst", "0\n"),
            ("cpu.weight", "20\n"),
            ("memory.current", "8000\n"),
            ("memory.stat", "anon 1\ninactive_file 1000\n"),
            ("memory.high", "max\n"),
            ("memory.swap.max", "0\n"),
            ("pids.max", "max\n"),
            ("io.max", ""),
            ("cgroup.freeze", "0\n"),
            ("cpu.pressure", "some avg10=0 total=1\nfull avg10=0 total=2\n"),
            ("memory.pressure", "some avg10=0 total=3\nfull avg10=0 total=4\n"),
            ("io.pressure", "some avg10=0 total=5\nfull avg10=0 total=6\n"),
        ] {
            self.write(&container_path(name, container, file), text);
        }
    }

    fn enforcer(&self) -> Enforcer {
        Enforcer::new(self.path("cgroup"), self.path("block"))
    }

    fn sampler(&self) -> Sampler {
        Sampler::new(self.path("cgroup"))
    }
}

fn pod_path(name: &str) -> String {
    format!("cgroup/kubepods/burstable/pod{name}")
}

fn container_path(pod: &str, container: &str, file: &str) -> String {
    format!("{}/{container}/{file}", pod_path(pod))
}

fn pod_with(name: &str, containers: &[(&str, &str)], quota: Option<&str>) -> Arc<Pod> {
    let containers = containers.iter().map(|(name, id)| Container {
        name: (*name).into(),
        id: ContainerId::from_status(&format!("containerd://{id}")).expect("an id"),
        cpu_limit_millicores: Some(500),
    });
    let annotation = quota.map(|text| Annotation {
        fingerprint: 7,
        quota: NodeQuota::parse(text).map_err(|error| error.to_string().into()),
    });
    Arc::new(Pod {
        namespace: "shop".into(),
        name: name.into(),
        uid: Uid::new(name).expect("a uid"),
        terminating: false,
        containers: containers.collect(),
        annotation,
    })
}

fn sample(sampler: &mut Sampler, pods: &[Arc<Pod>], second: u64) -> Sampled {
    sampler.sample(pods, &foldhash::HashMap::default(), Duration::from_secs(second), 5)
}

/// What was read of the only pod.
fn only(sampled: &Sampled) -> (Vec<(String, u64)>, PodTotals) {
    let [reading] = sampled.snapshot.pods.as_slice() else { panic!("one pod: {sampled:?}") };
    let identities = reading.pod().containers().iter().map(|container| container.id().to_owned());
    let usage = reading.counters().iter().map(|counters| counters.cpu_usage_usec);
    (identities.zip(usage).collect(), *reading.totals().expect("totals"))
}

#[test]
fn what_the_files_say_is_in_the_snapshot() {
    let tree = Tree::new();
    tree.pod("p1", "c1");
    let mut sampler = tree.sampler();
    let pods = [pod_with("p1", &[("main", "c1")], None)];
    let quota = QuotaState { fingerprint: 3, ..QuotaState::default() };
    let quotas = [(Uid::new("p1").expect("a uid"), quota.clone())].into_iter().collect();
    let sampled = sampler.sample(&pods, &quotas, Duration::from_secs(1), 5);
    let [reading] = sampled.snapshot.pods.as_slice() else { panic!("one pod") };
    let expected = Counters {
        cpu_usage_usec: 500,
        memory_working_set_bytes: 7000,
        throttling: Some(Throttling { nr_periods: 4, nr_throttled: 3, throttled_usec: 2 }),
        pressure: Some(Pressure {
            cpu_some_usec: 1,
            cpu_full_usec: 2,
            memory_some_usec: 3,
            memory_full_usec: 4,
            io_some_usec: 5,
            io_full_usec: 6,
        }),
    };
    assert_eq!(reading.counters(), [expected]);
    let totals = PodTotals {
        cpu_usage_usec: Some(900),
        memory_current_bytes: Some(9000),
        io_read_bytes: Some(10),
        io_write_bytes: Some(20),
        io_read_operations: Some(1),
        io_write_operations: Some(2),
        oom_kills: Some(0),
        memory_peak_bytes: None,
    };
    assert_eq!((reading.totals(), reading.quota()), (Some(&totals), Some(&quota)));
    assert_eq!((sampled.snapshot.taken, sampled.snapshot.unix_usec), (Duration::from_secs(1), 5));
    assert_eq!((sampled.errors, sampled.missing, sampled.containers, sampled.bases), (0, 0, 1, 1));
    // Read again on the same descriptors.
    tree.write(&container_path("p1", "c1", "cpu.stat"), "usage_usec 700\n");
    tree.write(&format!("{}/memory.events", pod_path("p1")), "oom 1\noom_kill 1\n");
    let (containers, totals) = only(&sample(&mut sampler, &pods, 2));
    assert_eq!(containers, [("c1".to_owned(), 700)]);
    assert_eq!((totals.oom_kills, totals.memory_peak_bytes), (Some(1), Some(9999)));
}

#[test]
fn a_container_that_restarts_is_another_one() {
    let tree = Tree::new();
    tree.pod("p1", "c1");
    tree.pod("p1", "s1");
    let mut sampler = tree.sampler();
    let both = [("main", "c1"), ("sidecar", "s1")];
    let first = sample(&mut sampler, &[pod_with("p1", &both, None)], 1);
    assert_eq!(only(&first).0.len(), 2);
    // The new one is known before its cgroup is there.
    let restarted = pod_with("p1", &[("main", "c2"), ("sidecar", "s1")], None);
    let between = sample(&mut sampler, std::slice::from_ref(&restarted), 2);
    assert_eq!((only(&between).0, between.missing), (vec![("s1".to_owned(), 500)], 1));
    tree.pod("p1", "c2");
    tree.write(&container_path("p1", "c2", "cpu.stat"), "usage_usec 1\n");
    let after = sample(&mut sampler, std::slice::from_ref(&restarted), 3);
    let (containers, totals) = only(&after);
    assert_eq!(containers, [("c2".to_owned(), 1), ("s1".to_owned(), 500)]);
    assert_eq!(totals.cpu_usage_usec, Some(900), "the pod's own counter goes on");
    // Nothing changed: it is the very same identity, so that it is not told again.
    let again = sample(&mut sampler, &[restarted], 4);
    let identity = |sampled: &Sampled| sampled.snapshot.pods.first().map(|pod| pod.pod().clone()).expect("a pod");
    assert!(Arc::ptr_eq(&identity(&after), &identity(&again)));
}

#[test]
fn what_containers_used_at_last_is_read_after_their_end() {
    let tree = Tree::new();
    tree.pod("p1", "c1");
    let mut sampler = tree.sampler();
    assert_eq!(only(&sample(&mut sampler, &[pod_with("p1", &[("main", "c1")], None)], 1)).0.len(), 1);
    tree.write(&format!("{}/cpu.stat", pod_path("p1")), "usage_usec 950\n");
    let ended = pod_with("p1", &[], None);
    let (containers, totals) = only(&sample(&mut sampler, std::slice::from_ref(&ended), 2));
    assert_eq!((containers.len(), totals.cpu_usage_usec), (0, Some(950)));
    // Another container starts, and ends, before the cgroup goes.
    tree.pod("p1", "c2");
    tree.write(&format!("{}/cpu.stat", pod_path("p1")), "usage_usec 990\n");
    let (containers, totals) = only(&sample(&mut sampler, &[pod_with("p1", &[("main", "c2")], None)], 3));
    assert_eq!((containers.len(), totals.cpu_usage_usec), (1, Some(990)));
    tree.write(&format!("{}/cpu.stat", pod_path("p1")), "");
    assert!(sample(&mut sampler, &[ended], 4).snapshot.pods.is_empty());
}

#[test]
fn a_pod_that_is_gone_is_in_no_snapshot() {
    let tree = Tree::new();
    tree.pod("p1", "c1");
    let mut sampler = tree.sampler();
    assert_eq!(sample(&mut sampler, &[pod_with("p1", &[("main", "c1")], None)], 1).snapshot.pods.len(), 1);
    assert!(sample(&mut sampler, &[], 2).snapshot.pods.is_empty());
    let missing = sample(&mut sampler, &[pod_with("p2", &[("main", "c1")], None)], 3);
    assert_eq!((missing.snapshot.pods.len(), missing.missing, missing.errors), (0, 1, 0));
    // A pod whose containers all ended has no reading.
    assert!(sample(&mut sampler, &[pod_with("p1", &[], None)], 4).snapshot.pods.is_empty());
}

#[test]
fn a_file_of_another_form_is_an_error_and_no_reading() {
    let tree = Tree::new();
    tree.pod("p1", "c1");
    tree.pod("p1", "s1");
    let mut sampler = tree.sampler();
    tree.write(&container_path("p1", "c1", "memory.current"), "lots\n");
    fs::remove_file(tree.path(&container_path("p1", "s1", "io.pressure"))).expect("a file");
    let sampled = sample(&mut sampler, &[pod_with("p1", &[("main", "c1"), ("sidecar", "s1")], None)], 1);
    assert_eq!((only(&sampled).0, sampled.errors), (vec![("s1".to_owned(), 500)], 1));
    let reading = sampled.snapshot.pods.first().expect("a pod");
    assert_eq!(reading.counters().first().expect("one").pressure, None, "a kernel without PSI");
}

const QUOTA: &str = concat!(
    r#"{"container":"main","cpuBurstUsec":30000,"cpuWeight":300,"memoryHighBytes":4194304,"memorySwapMaxBytes":4096,"#,
    r#""pidsMax":64,"io":[{"device":"vda","wbps":1000}],"frozen":true}"#
);

fn with_disk(tree: &Tree) {
    tree.write("block/vda/dev", "254:0\n");
    tree.write("block/vda/size", "2048\n");
    tree.write("block/loop0/dev", "7:0\n");
    tree.write("block/loop0/size", "10\n");
}

fn round(enforcer: &mut Enforcer, pods: &[Arc<Pod>], second: u64) -> Round {
    enforcer.round(pods, Duration::from_secs(second))
}

fn state(round: &Round, pod: &str) -> QuotaState {
    round.states.get(&Uid::new(pod).expect("a uid")).cloned().expect("a state")
}

#[test]
fn a_quota_is_applied_reasserted_and_undone() {
    let tree = Tree::new();
    with_disk(&tree);
    tree.pod("p1", "c1");
    tree.pod("p2", "c1");
    let mut enforcer = tree.enforcer();
    let other = pod_with("p2", &[("main", "c1")], None);
    let pods = [pod_with("p1", &[("main", "c1")], Some(QUOTA)), other.clone()];
    let applied = round(&mut enforcer, &pods, 1);
    assert_eq!(state(&applied, "p1"), QuotaState { fingerprint: 7, ..QuotaState::default() }, "all of it is held");
    assert_eq!((applied.writes.len(), applied.held), (8, 8));
    let file = |name: &str| tree.read(&container_path("p1", "c1", name));
    assert_eq!(
        ["cpu.max.burst", "cpu.weight", "memory.high", "memory.swap.max", "pids.max", "io.max", "cgroup.freeze"]
            .map(file),
        ["30000", "300", "4194304", "4096", "64", "254:0 wbps=1000", "1"]
    );
    assert_eq!(tree.read(&format!("{}/cpu.max.burst", pod_path("p1"))), "30000", "or the pod would stop the container");
    // What is the kubelet's stays the kubelet's.
    assert_eq!(file("cpu.max"), "50000 100000");
    assert_eq!(tree.read(&container_path("p2", "c1", "cpu.weight")), "20");

    assert_eq!(round(&mut enforcer, &pods, 2).writes, []);
    tree.write(&container_path("p1", "c1", "pids.max"), "max\n");
    let reasserted = round(&mut enforcer, &pods, 3);
    assert_eq!(
        reasserted.writes.iter().map(|(slot, why)| (slot.file(), *why)).collect::<Vec<_>>(),
        [("pids.max", Why::Reassert)]
    );
    assert_eq!(file("pids.max"), "64");

    let undone = round(&mut enforcer, &[pod_with("p1", &[("main", "c1")], None), other], 4);
    assert!(undone.states.is_empty() && undone.held == 0);
    assert_eq!(
        ["cpu.max.burst", "cpu.weight", "memory.high", "memory.swap.max", "pids.max", "io.max", "cgroup.freeze"]
            .map(file),
        ["0", "20", "max", "0", "max", "254:0 wbps=max", "0"]
    );
    assert_eq!(tree.read(&format!("{}/cpu.max.burst", pod_path("p1"))), "0");
}

/// crun, systemd driver: the processes and the CPU limit are in a cgroup below the container's.
#[test]
fn a_limit_in_an_inner_cgroup_gets_its_burst_there_and_is_read_there() {
    let tree = Tree::new();
    with_disk(&tree);
    tree.pod("p1", "c1");
    tree.write(&container_path("p1", "c1", "cpu.max"), "max 100000\n");
    let inner = |file: &str| container_path("p1", "c1", &format!("container/{file}"));
    tree.write(&inner("cpu.max"), "50000 100000\n");
    tree.write(&inner("cpu.max.burst"), "0\n");
    tree.write(&inner("cpu.stat"), "usage_usec 500\nnr_periods 40\nnr_throttled 30\nthrottled_usec 20\n");
    let pods = [pod_with("p1", &[("main", "c1")], Some(QUOTA))];
    let mut enforcer = tree.enforcer();
    let held = round(&mut enforcer, &pods, 1);
    assert_eq!(state(&held, "p1").unenforced, []);
    assert_eq!(tree.read(&inner("cpu.max.burst")), "30000");
    assert_eq!(tree.read(&container_path("p1", "c1", "cpu.max.burst")), "0", "nothing is limited there");
    assert_eq!(tree.read(&container_path("p1", "c1", "pids.max")), "64", "children inherit the rest");
    let sampled = sample(&mut tree.sampler(), &pods, 1);
    let counters = sampled.snapshot.pods.first().and_then(|pod| pod.counters().first()).copied().expect("a container");
    let throttling = Throttling { nr_periods: 40, nr_throttled: 30, throttled_usec: 20 };
    assert_eq!((counters.cpu_usage_usec, counters.throttling), (500, Some(throttling)));
    enforcer.release();
    assert_eq!(tree.read(&inner("cpu.max.burst")), "0");
    // A runtime that limits both: each throttles, so each has the burst.
    tree.write(&container_path("p1", "c1", "cpu.max"), "50000 100000\n");
    round(&mut tree.enforcer(), &pods, 2);
    assert_eq!(
        [inner("cpu.max.burst"), container_path("p1", "c1", "cpu.max.burst")].map(|file| tree.read(&file)),
        ["30000", "30000"]
    );
}

#[test]
fn a_container_that_restarts_is_held_again() {
    let tree = Tree::new();
    with_disk(&tree);
    tree.pod("p1", "c1");
    let mut enforcer = tree.enforcer();
    round(&mut enforcer, &[pod_with("p1", &[("main", "c1")], Some(QUOTA))], 1);
    let restarted = [pod_with("p1", &[("main", "c2")], Some(QUOTA))];
    let waiting = round(&mut enforcer, &restarted, 2);
    assert!(state(&waiting, "p1").unenforced.iter().any(|part| part.reason.contains("not found")));
    fs::remove_dir_all(tree.path(&format!("{}/c1", pod_path("p1")))).expect("a folder");
    tree.pod("p1", "c2");
    let held = round(&mut enforcer, &restarted, 3);
    assert_eq!(state(&held, "p1").unenforced, []);
    assert_eq!(tree.read(&container_path("p1", "c2", "pids.max")), "64");
}

#[test]
fn an_agent_that_comes_after_another_sets_back_what_is_left() {
    let tree = Tree::new();
    with_disk(&tree);
    tree.pod("p1", "c1");
    // Killed: nothing is set back.
    round(&mut tree.enforcer(), &[pod_with("p1", &[("main", "c1")], Some(QUOTA))], 1);
    let mut next = tree.enforcer();
    let undone = round(&mut next, &[pod_with("p1", &[("main", "c1")], None)], 1);
    assert!(undone.writes.iter().all(|(_, why)| *why == Why::Undo) && undone.writes.len() == 8, "{undone:?}");
    assert_eq!(tree.read(&container_path("p1", "c1", "cpu.weight")), "20");
    assert_eq!(tree.read(&container_path("p1", "c1", "cgroup.freeze")), "0");
}

#[test]
fn an_agent_that_stops_leaves_nothing_behind() {
    let tree = Tree::new();
    with_disk(&tree);
    tree.pod("p1", "c1");
    let mut enforcer = tree.enforcer();
    round(&mut enforcer, &[pod_with("p1", &[("main", "c1")], Some(QUOTA))], 1);
    let released = enforcer.release();
    assert_eq!((released.writes.len(), released.held), (8, 0));
    assert_eq!(tree.read(&container_path("p1", "c1", "memory.high")), "max");
}

#[test]
fn what_cannot_be_held_is_told() {
    let tree = Tree::new();
    with_disk(&tree);
    tree.pod("p1", "c1");
    fs::remove_file(tree.path(&container_path("p1", "c1", "memory.swap.max"))).expect("a file");
    tree.write(&container_path("p1", "c1", "cpu.max"), "max 100000\n");
    let quota = QUOTA.replace("vda", "nvme0n1");
    let told = round(&mut tree.enforcer(), &[pod_with("p1", &[("main", "c1")], Some(&quota))], 1);
    let knobs: Vec<_> = state(&told, "p1").unenforced.iter().map(|part| part.knob()).collect();
    assert_eq!(knobs, [Knob::CpuBurst, Knob::IoMax, Knob::MemorySwapMax]);
    let reasons: Vec<_> = state(&told, "p1").unenforced.into_iter().map(|part| part.reason).collect();
    assert!(reasons.iter().all(|reason| reason.starts_with("main: ")), "{reasons:?}");
}

#[test]
fn a_hostile_annotation_changes_nothing_and_is_told() {
    let tree = Tree::new();
    with_disk(&tree);
    tree.pod("p1", "c1");
    let mut enforcer = tree.enforcer();
    for quota in [
        r#"{"container":"main","cpuWeight":99999999999999999999}"#,
        r#"{"container":"main","pidsMax":-1}"#,
        r#"{"container":"../../system.slice","pidsMax":1}"#,
        r#"{"container":"main","pidsMax":1,"io":[{"device":"../../../etc/passwd","rbps":1}]}"#,
        &format!(r#"{{"container":"main","pidsMax":1,"x":"{}"}}"#, "x".repeat(10_000)),
    ] {
        let told = round(&mut enforcer, &[pod_with("p1", &[("main", "c1")], Some(quota))], 1);
        let state = state(&told, "p1");
        assert!(!state.refused.is_empty() && state.refused.len() <= 256, "{quota:.60}: {state:?}");
        assert_eq!((told.writes.len(), told.refused, told.held), (0, 1, 0));
    }
    assert_eq!(tree.read(&container_path("p1", "c1", "pids.max")), "max");
    // A quota for a container that does not run is told as well.
    let quota = r#"{"container":"other","pidsMax":1}"#;
    let told = round(&mut enforcer, &[pod_with("p1", &[("main", "c1")], Some(quota))], 2);
    assert!(state(&told, "p1").unenforced.iter().any(|part| part.reason.contains("no container other")));
}

#[test]
fn a_pod_that_is_deleted_thaws() {
    let tree = Tree::new();
    tree.pod("p1", "c1");
    let mut enforcer = tree.enforcer();
    let pod = pod_with("p1", &[("main", "c1")], Some(r#"{"container":"main","frozen":true}"#));
    round(&mut enforcer, std::slice::from_ref(&pod), 1);
    assert_eq!(tree.read(&container_path("p1", "c1", "cgroup.freeze")), "1");
    round(&mut enforcer, &[Arc::new(Pod { terminating: true, ..(*pod).clone() })], 2);
    assert_eq!(tree.read(&container_path("p1", "c1", "cgroup.freeze")), "0");
}

#[test]
fn all_disks_are_those_with_a_medium() {
    let tree = Tree::new();
    with_disk(&tree);
    tree.write("block/sda/dev", "8:0\n");
    tree.write("block/sda/size", "0\n");
    tree.pod("p1", "c1");
    let quota = r#"{"container":"main","io":[{"device":"*","riops":5}]}"#;
    let applied = round(&mut tree.enforcer(), &[pod_with("p1", &[("main", "c1")], Some(quota))], 1);
    assert_eq!(applied.writes.len(), 1);
    assert_eq!(tree.read(&container_path("p1", "c1", "io.max")), "254:0 riops=5");
}

#[test]
fn a_pod_is_read_from_its_object() {
    let object = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut object = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": "shop", "name": "web-1", "uid": "u1", "managedFields": [{"manager": "x"}],
                "labels": {"catamaran.dev/workload": "web"},
                "annotations": {"catamaran.dev/node-quota": r#"{"container":"main","pidsMax":9}"#},
            },
            "spec": {"nodeName": "n1", "containers": [
                {"name": "main", "image": "x", "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}}},
                {"name": "late", "image": "x"},
            ]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "main", "containerID": "containerd://abc", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
                {"name": "late", "state": {"waiting": {"reason": "ContainerCreating"}}},
            ], "initContainerStatuses": [
                {"name": "init", "containerID": "containerd://def", "state": {"terminated": {"exitCode": 0}}},
            ]},
        });
        change(&mut object);
        serde_json::from_value::<PodObject>(object).expect("a pod")
    };
    let pod = Pod::from_object(&object(&|_| {})).expect("a pod");
    let [container] = pod.containers.as_slice() else { panic!("{pod:?}") };
    assert_eq!((&*container.name, container.id.as_str(), container.cpu_limit_millicores), ("main", "abc", Some(1500)));
    let annotation = pod.annotation.expect("an annotation");
    assert_eq!(annotation.quota.map(|quota| quota.pids_max), Ok(Some(9)));
    let unlabelled =
        Pod::from_object(&object(&|pod| pod["metadata"]["labels"] = serde_json::json!({}))).expect("a pod");
    assert!(unlabelled.annotation.is_some_and(|annotation| annotation.quota.is_err()), "only our own pods are held");
    let mirror = object(&|pod| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x".into());
    assert_eq!(Pod::from_object(&mirror), None);
    let hostile = object(&|pod| pod["metadata"]["uid"] = "../..".into());
    assert_eq!(Pod::from_object(&hostile), None);
    let hostile = object(&|pod| pod["status"]["containerStatuses"][0]["containerID"] = "containerd://../x".into());
    assert_eq!(Pod::from_object(&hostile).map(|pod| pod.containers.len()), Some(0));
}

#[test]
fn the_version_of_cgroups_is_seen() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(Cgroups::at(folder.path()), Cgroups::None);
    fs::create_dir_all(folder.path().join("memory")).expect("a folder");
    fs::create_dir_all(folder.path().join("unified")).expect("a folder");
    assert_eq!(Cgroups::at(folder.path()), Cgroups::V1, "hybrid: the controllers are under v1");
    let tree = Tree::new();
    assert_eq!(Cgroups::at(&tree.path("cgroup")), Cgroups::V2);
}
