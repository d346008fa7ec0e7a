//! The cgroups of a pod and its containers.

use std::{collections::VecDeque, io, path::PathBuf, time::Duration};

use crate::{
    cgroup::{CgroupFiles, Folder},
    files,
    layout::{self, Base, ContainerId, Uid},
};

/// How deep below the root a kubelet's folder is looked for: kind has `docker/ID/kubelet.slice/kubelet-kubepods.slice`.
const DEPTH: usize = 5;
/// Folders that are looked into; a node has some hundreds outside of pods.
const FOLDERS: usize = 10_000;
/// A search for kubelets' folders comes this long after the one before it, at least.
const SEARCH_EVERY: Duration = Duration::from_secs(10);

/// Finds cgroups below one root.
#[derive(Debug)]
pub struct Finder {
    root: PathBuf,
    bases: Vec<(Folder, Base)>,
    searched: Option<Duration>,
}

impl Finder {
    /// Nothing is looked for yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, bases: Vec::new(), searched: None }
    }

    /// How many kubelets' folders there are; usually one.
    #[must_use]
    pub fn bases(&self) -> usize {
        self.bases.len()
    }

    /// Looks for kubelets' folders if none is known, or `missing` says that a pod was not found in those that are; not
    /// more often than every ten seconds. `now` is the time of a steady clock.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn refresh(&mut self, missing: bool, now: Duration) -> io::Result<()> {
        let recent = self.searched.is_some_and(|searched| now.saturating_sub(searched) < SEARCH_EVERY);
        if recent || !(missing || self.bases.is_empty()) {
            return Ok(());
        }
        self.searched = Some(now);
        self.bases = search(&self.root)?;
        Ok(())
    }

    /// The cgroup of a pod.
    ///
    /// # Errors
    /// When a folder on the way cannot be opened.
    pub fn pod(&self, uid: &Uid) -> io::Result<Option<Folder>> {
        for (folder, base) in &self.bases {
            for path in base.pods(uid) {
                if let Some(pod) = folder.descend(&path)? {
                    return Ok(Some(pod));
                }
            }
        }
        Ok(None)
    }
}

/// The cgroup of a container of a pod.
///
/// # Errors
/// When it cannot be opened.
pub fn container(pod: &Folder, id: &ContainerId) -> io::Result<Option<Folder>> {
    for name in layout::containers(id) {
        if let Some(folder) = pod.folder(&name)? {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

/// The cgroup below a container's that holds its CPU limit, where the runtime put it there: crun's. What throttles the
/// container is in that one, and so are the counters of it; everything else works as well on the container's cgroup, as
/// children inherit it.
///
/// # Errors
/// When it cannot be opened or read.
pub fn inner_limit(container: &Folder) -> io::Result<Option<Folder>> {
    let Some(name) = layout::inner() else { return Ok(None) };
    let Some(inner) = container.folder(&name)? else { return Ok(None) };
    let cpu_max = inner.text("cpu.max")?.and_then(|text| files::cpu_max(&text));
    Ok(cpu_max.is_some_and(|cpu_max| cpu_max.quota_usec.is_some()).then_some(inner))
}

/// All kubelets' folders, breadth first.
fn search(root: &std::path::Path) -> io::Result<Vec<(Folder, Base)>> {
    let root = Folder::open(root)?;
    let children = root.folders()?;
    if let Some(base) = Base::of_children(children.iter().map(layout::Name::as_str)) {
        return Ok(vec![(root, base)]);
    }
    let (mut found, mut looked) = (Vec::new(), 0_usize);
    let mut queue = VecDeque::from([(root, children, DEPTH)]);
    while let Some((folder, children, depth)) = queue.pop_front() {
        for name in children {
            // What goes away in the meantime is not there.
            let Ok(Some(child)) = folder.folder(&name) else { continue };
            if let Some(base) = Base::from_name(name.as_str()) {
                found.push((child, base));
                continue;
            }
            looked = looked.saturating_add(1);
            if depth > 1 && looked < FOLDERS {
                let Ok(children) = child.folders() else { continue };
                queue.push_back((child, children, depth.saturating_sub(1)));
            }
        }
    }
    Ok(found)
}
