//! How kubelets and runtimes name cgroups.
//!
//! A kubelet has one folder for all pods, `kubepods`, with one folder for each QoS class but Guaranteed, and in them
//! one for each pod. It may lie anywhere (kubelet's `cgroupRoot`, kind). Every name that is built here is one component
//! of a path: texts from the API become part of it only after a check.

/// One component of a path: no slash, not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Box<str>);

impl Name {
    /// A component; `None` when the text is none.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let component = !text.is_empty() && text.len() <= 255 && text != "." && text != "..";
        (component && !text.contains(['/', '\0'])).then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The uid of a pod: letters, digits and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Box<str>);

/// The id that a runtime gave to a container, without the runtime's name: letters, digits, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(Box<str>);

impl Uid {
    /// A uid; `None` when the text is none.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        identifier(text, |c| c == b'-').then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ContainerId {
    /// From a pod's status, such as `containerd://0123abc`; `None` when it is of another form.
    #[must_use]
    pub fn from_status(text: &str) -> Option<Self> {
        let (_, id) = text.split_once("://")?;
        identifier(id, |c| matches!(c, b'-' | b'_')).then(|| Self(id.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn identifier(text: &str, more: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.len() <= 128 && text.bytes().all(|c| c.is_ascii_alphanumeric() || more(c))
}

/// A kubelet's folder of all pods: how names in it are built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// The cgroupfs driver: `kubepods`.
    Cgroupfs,
    /// The systemd driver: `STEM.slice`, where the stem is `kubepods` or, under a kubelet's own root,
    /// `kubelet-kubepods`.
    Systemd {
        /// The name without `.slice`.
        stem: Name,
    },
}

/// QoS classes that have a folder of their own; pods of Guaranteed are directly in the base.
const QOS: [&str; 2] = ["burstable", "besteffort"];

impl Base {
    /// Whether a folder of this name is a base.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "kubepods" {
            return Some(Self::Cgroupfs);
        }
        let stem = name.strip_suffix(".slice")?;
        let base = stem == "kubepods" || stem.ends_with("-kubepods");
        if base { Name::new(stem).map(|stem| Self::Systemd { stem }) } else { None }
    }

    /// Whether a folder is a base, by what is in it: where a base itself is mounted its name is lost.
    #[must_use]
    pub fn of_children<'a>(children: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        children.into_iter().find_map(|child| {
            if QOS.contains(&child) {
                return Some(Self::Cgroupfs);
            }
            let stem = QOS.iter().find_map(|qos| child.strip_suffix(".slice")?.strip_suffix(qos)?.strip_suffix('-'))?;
            Self::from_name(&format!("{stem}.slice"))
        })
    }

    /// Where a pod's folder may be below the base, each as the components of a path.
    #[must_use]
    pub fn pods(&self, uid: &Uid) -> Vec<Vec<Name>> {
        let names: Vec<Vec<String>> = match self {
            Self::Cgroupfs => {
                let pod = format!("pod{}", uid.as_str());
                let classes = QOS.iter().map(|qos| vec![(*qos).to_owned(), pod.clone()]);
                classes.chain([vec![pod.clone()]]).collect()
            }
            Self::Systemd { stem } => {
                let stem = stem.as_str();
                // `-` is systemd's separator of slices.
                let uid = uid.as_str().replace('-', "_");
                let classes =
                    QOS.iter().map(|qos| vec![format!("{stem}-{qos}.slice"), format!("{stem}-{qos}-pod{uid}.slice")]);
                classes.chain([vec![format!("{stem}-pod{uid}.slice")]]).collect()
            }
        };
        names.into_iter().filter_map(|path| path.iter().map(|name| Name::new(name)).collect()).collect()
    }
}

/// What crun calls the cgroup that it makes below a container's scope, under the systemd driver, and moves the
/// processes to.
#[must_use]
pub fn inner() -> Option<Name> {
    Name::new("container")
}

/// What a container's folder may be called within its pod's. Other children of it (KubeVirt's `housekeeping`) are part
/// of it and are never looked for.
#[must_use]
pub fn containers(id: &ContainerId) -> Vec<Name> {
    let id = id.as_str();
    [
        // containerd, systemd driver.
        format!("cri-containerd-{id}.scope"),
        // containerd, cgroupfs driver.
        id.to_owned(),
        // CRI-O, either driver.
        format!("crio-{id}.scope"),
        format!("crio-{id}"),
        // Docker Engine by cri-dockerd, systemd driver.
        format!("docker-{id}.scope"),
    ]
    .iter()
    .filter_map(|name| Name::new(name))
    .collect()
}
