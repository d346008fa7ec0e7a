//! Where cgroups are, for each driver, runtime, QoS class and root.

use std::{fs, path::Path, time::Duration};

use catamaran_agent::{
    cgroup::{CgroupFiles, Folder},
    find::{self, Finder},
    layout::{Base, ContainerId, Name, Uid},
};
use proptest::prelude::*;

const UID: &str = "3f1c9a52-0d3e-4b8a-9a3e-1c2d3e4f5a6b";
const UID_: &str = "3f1c9a52_0d3e_4b8a_9a3e_1c2d3e4f5a6b";
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A container's folder with a file that names it.
fn make(root: &Path, path: &str) {
    fs::create_dir_all(root.join(path)).expect("a folder");
    fs::write(root.join(path).join("cpu.stat"), path).expect("a file");
}

/// What the container's cgroup is found to be, by the root that the agent is given.
fn found(root: &Path) -> Option<String> {
    let mut finder = Finder::new(root.to_owned());
    finder.refresh(false, Duration::ZERO).expect("a root");
    let pod = finder.pod(&Uid::new(UID).expect("a uid")).expect("readable")?;
    let id = ContainerId::from_status(&format!("containerd://{ID}")).expect("an id");
    let container = find::container(&pod, &id).expect("readable")?;
    container.text("cpu.stat").expect("readable")
}

#[test]
fn each_layout_is_found() {
    let systemd = |prefix: &str, stem: &str, qos: &str| match qos {
        "" => format!("{prefix}{stem}.slice/{stem}-pod{UID_}.slice"),
        qos => format!("{prefix}{stem}.slice/{stem}-{qos}.slice/{stem}-{qos}-pod{UID_}.slice"),
    };
    let cgroupfs = |prefix: &str, qos: &str| match qos {
        "" => format!("{prefix}kubepods/pod{UID}"),
        qos => format!("{prefix}kubepods/{qos}/pod{UID}"),
    };
    let mut paths = Vec::new();
    for qos in ["", "burstable", "besteffort"] {
        for leaf in [ID.to_owned(), format!("crio-{ID}"), format!("cri-containerd-{ID}.scope")] {
            paths.push(format!("{}/{leaf}", cgroupfs("", qos)));
        }
        for leaf in [format!("cri-containerd-{ID}.scope"), format!("crio-{ID}.scope"), format!("docker-{ID}.scope")] {
            paths.push(format!("{}/{leaf}", systemd("", "kubepods", qos)));
        }
        // kind, and a kubelet with cgroupRoot, with and without the node's container around them.
        paths.push(format!("{}/cri-containerd-{ID}.scope", systemd("kubelet.slice/", "kubelet-kubepods", qos)));
        let around = "docker/0a1b/kubelet.slice/";
        paths.push(format!("{}/cri-containerd-{ID}.scope", systemd(around, "kubelet-kubepods", qos)));
        paths.push(format!("{}/{ID}", cgroupfs("kubelet/", qos)));
        paths.push(format!("{}/{ID}", cgroupfs("system.slice/docker-0a1b.scope/kubelet/", qos)));
    }
    for path in paths {
        let root = tempfile::tempdir().expect("a folder");
        // What else is there: other pods and units, the sandbox, and conmon of CRI-O.
        make(root.path(), "system.slice/kubelet.service");
        let pod = path.rsplit_once('/').expect("a leaf").0;
        make(root.path(), &format!("{pod}/crio-conmon-{ID}.scope"));
        make(root.path(), &format!("{pod}/{}", "f".repeat(64)));
        make(root.path(), &format!("{path}/container"));
        make(root.path(), &path);
        assert_eq!(found(root.path()), Some(path.clone()), "{path}");
    }
}

#[test]
fn a_kubelets_folder_may_itself_be_the_root() {
    for (base, pod) in [
        ("kubepods", format!("burstable/pod{UID}/{ID}")),
        ("kubepods", format!("pod{UID}/{ID}")),
        ("kubepods.slice", format!("kubepods-pod{UID_}.slice/crio-{ID}.scope")),
        (
            "kubelet-kubepods.slice",
            format!("kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{UID_}.slice/crio-{ID}.scope"),
        ),
    ] {
        let root = tempfile::tempdir().expect("a folder");
        // Mounted at another place, the folder has lost its name. The kubelet makes the classes' folders at its start.
        let stem = base.strip_suffix(".slice");
        for qos in ["burstable", "besteffort"] {
            make(root.path(), &stem.map_or(qos.to_owned(), |stem| format!("{stem}-{qos}.slice")));
        }
        make(root.path(), &pod);
        assert_eq!(found(root.path()), Some(pod.clone()), "{base} {pod}");
    }
}

#[test]
fn a_kubelet_that_comes_later_is_found() {
    let root = tempfile::tempdir().expect("a folder");
    let mut finder = Finder::new(root.path().to_owned());
    finder.refresh(false, Duration::ZERO).expect("a root");
    assert_eq!(finder.bases(), 0);
    make(root.path(), "kubepods/burstable");
    // Not each second.
    finder.refresh(false, Duration::from_secs(9)).expect("a root");
    assert_eq!(finder.bases(), 0);
    finder.refresh(false, Duration::from_secs(10)).expect("a root");
    assert_eq!(finder.bases(), 1);
    make(root.path(), "kubelet/kubepods/burstable");
    finder.refresh(true, Duration::from_secs(20)).expect("a root");
    assert_eq!(finder.bases(), 2, "a pod that is missing is a reason to look for more");
}

#[test]
fn no_symbolic_link_is_followed() {
    let root = tempfile::tempdir().expect("a folder");
    make(root.path(), "elsewhere");
    make(root.path(), &format!("kubepods/burstable/pod{UID}"));
    std::os::unix::fs::symlink(
        root.path().join("elsewhere"),
        root.path().join(format!("kubepods/burstable/pod{UID}/{ID}")),
    )
    .expect("a link");
    assert_eq!(found(root.path()), None);
    let folder = Folder::open(&root.path().join("elsewhere")).expect("a folder");
    std::os::unix::fs::symlink("cpu.stat", root.path().join("elsewhere/pids.max")).expect("a link");
    assert!(folder.text("pids.max").is_ok_and(|text| text.is_none()));
    assert!(folder.write("pids.max", "1").is_err());
    assert!(folder.text("cpu.stat").is_ok_and(|text| text.as_deref() == Some("elsewhere")));
}

#[test]
fn what_is_no_name_leads_nowhere() {
    for text in ["", ".", "..", "a/b", "/", "a\0"] {
        assert_eq!(Name::new(text), None, "{text:?}");
    }
    for text in ["", "..", "../..", "a/b", "a b", "a\n", "ä"] {
        assert_eq!(Uid::new(text), None, "{text:?}");
        assert_eq!(ContainerId::from_status(&format!("containerd://{text}")), None, "{text:?}");
    }
    assert_eq!(ContainerId::from_status(ID), None);
    assert_eq!(Uid::new(&"a".repeat(129)), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn built_names_are_components(uid in any::<String>(), id in any::<String>(), base in any::<String>()) {
        let given = [Base::from_name(&base), Base::of_children([base.as_str()])];
        let bases = [Some(Base::Cgroupfs), Base::from_name("kubepods.slice")];
        for base in bases.into_iter().chain(given).flatten() {
            if let Some(uid) = Uid::new(&uid) {
                for path in base.pods(&uid) {
                    let is_component = |name: &str| !name.contains('/') && !name.starts_with('.');
                    prop_assert!(path.iter().all(|name| is_component(name.as_str())));
                }
            }
        }
        if let Some(id) = ContainerId::from_status(&format!("x://{id}")) {
            let names = catamaran_agent::layout::containers(&id);
            prop_assert!(names.iter().all(|name| !name.as_str().contains('/') && !name.as_str().starts_with('.')));
        }
    }
}
