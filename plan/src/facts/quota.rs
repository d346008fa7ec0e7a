//! The quota of a template and of a pod, as they are there.

use crate::goal::quota::Quota;

/// The quota in the template of a replica set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TemplateQuota {
    /// The annotation for node agents.
    pub annotation: Option<String>,
    /// Whether that is the only annotation: where it goes, the map has to go with it (see
    /// [`SetQuota`](crate::plan::SetQuota)).
    pub lone: bool,
    /// CPU and memory by container, as the spec has them.
    pub containers: Containers,
}

/// The quota of a pod, and how far its kubelet is with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodQuota {
    /// The annotation for its node agent.
    pub annotation: Option<String>,
    /// CPU and memory by container, as the spec has them.
    pub containers: Containers,
    /// CPU and memory of the template that it was made from, as [`Quota`] writes it; `None` when its spec may have
    /// changed since (`metadata.generation`, KEP-5067), and for one from before that was noted.
    pub template: Option<String>,
    /// How far the kubelet is.
    pub resize: Resize,
}

/// A pod as it is made from a template.
impl From<TemplateQuota> for PodQuota {
    fn from(TemplateQuota { annotation, lone: _, containers }: TemplateQuota) -> Self {
        Self { annotation, containers, ..Self::default() }
    }
}

impl PodQuota {
    /// Whether it is as it was created, from a template with this quota.
    #[must_use]
    pub fn was_created_for(&self, quota: Quota) -> bool {
        self.template.as_ref().is_some_and(|template| *template == quota.to_string())
    }
}

/// CPU and memory by container. A pod has few, and there are many pods: this takes no more room than they need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Containers(Box<[(Box<str>, Quota)]>);

impl Containers {
    /// The quota of a container.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Quota> {
        self.iter().find(|(container, _)| *container == name).map(|(_, quota)| quota)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Quota)> {
        self.0.iter().map(|(container, quota)| (&**container, *quota))
    }

    /// The same with another quota for a container, which may be new.
    #[must_use]
    pub fn with(&self, name: &str, quota: Quota) -> Self {
        self.iter().filter(|(container, _)| *container != name).chain([(name, quota)]).collect()
    }
}

impl<Name: Into<Box<str>>> FromIterator<(Name, Quota)> for Containers {
    fn from_iter<T: IntoIterator<Item = (Name, Quota)>>(containers: T) -> Self {
        Self(containers.into_iter().map(|(name, quota)| (name.into(), quota)).collect())
    }
}

/// A resize that the API server refused, since the node can never do it: Kubernetes 1.36 tells by admission what a
/// kubelet told before by its status.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefusedResize {
    /// What was asked for.
    pub quota: Quota,
    /// What the API server said.
    pub message: String,
}

/// How far the kubelet is with a pod's spec (conditions PodResizePending and PodResizeInProgress).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resize {
    /// The pod has what its spec says.
    #[default]
    Settled,
    /// On the way, or not seen yet.
    InProgress,
    /// The kubelet fails to; it tries again.
    Failing(String),
    /// The node has no room for it now; the kubelet tries again.
    Deferred(String),
    /// The node can never do it.
    Infeasible(String),
}
