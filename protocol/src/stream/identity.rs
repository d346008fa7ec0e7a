//! Which pods and containers readings are of.

use crate::stream::limits::{CONTAINER_NAME_CHARS, CONTAINERS_PER_POD, ID_CHARS, NAME_CHARS, NAMESPACE_CHARS};

/// A pod and those of its containers that are read. Every text in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentity {
    namespace: Box<str>,
    name: Box<str>,
    uid: Box<str>,
    containers: Box<[ContainerIdentity]>,
}

/// One life of a container: after a restart it has another id, and counters that start again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerIdentity {
    name: Box<str>,
    id: Box<str>,
}

/// Why something cannot be the identity of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// A name is empty, too long, or has characters that no Kubernetes name has.
    #[error("{0} is not a Kubernetes name")]
    Name(Field),
    /// A uid or id is empty, too long, or has characters other than letters, digits, `-`, `_`, `.` and `:`.
    #[error("{0} is not an id")]
    Id(Field),
    /// More containers than a pod may have.
    #[error("more than {CONTAINERS_PER_POD} containers")]
    TooManyContainers,
}

/// A text that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The node's name.
    Node,
    /// The boot id.
    BootId,
    /// The pod's namespace.
    Namespace,
    /// The pod's name.
    Pod,
    /// The pod's uid.
    Uid,
    /// A container's name.
    Container,
    /// A container's id.
    ContainerId,
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Node => "the node",
            Self::BootId => "the boot id",
            Self::Namespace => "the namespace",
            Self::Pod => "the pod's name",
            Self::Uid => "the pod's uid",
            Self::Container => "a container's name",
            Self::ContainerId => "a container's id",
        })
    }
}

impl PodIdentity {
    /// A pod, and its containers in the order in which they will be read.
    ///
    /// # Errors
    /// When a text cannot be what it is said to be, or there are too many containers.
    pub fn new(
        namespace: impl Into<Box<str>>,
        name: impl Into<Box<str>>,
        uid: impl Into<Box<str>>,
        containers: impl IntoIterator<Item = ContainerIdentity>,
    ) -> Result<Self, InvalidIdentity> {
        // One more than allowed is enough to know.
        let containers: Box<[_]> = containers.into_iter().take(CONTAINERS_PER_POD + 1).collect();
        if containers.len() > CONTAINERS_PER_POD {
            return Err(InvalidIdentity::TooManyContainers);
        }
        let identity = Self { namespace: namespace.into(), name: name.into(), uid: uid.into(), containers };
        check_name(&identity.namespace, Field::Namespace)?;
        check_name(&identity.name, Field::Pod)?;
        check_id(&identity.uid, Field::Uid)?;
        Ok(identity)
    }

    /// metadata.namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// metadata.name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// metadata.uid.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The containers, in the order of their readings.
    #[must_use]
    pub fn containers(&self) -> &[ContainerIdentity] {
        &self.containers
    }
}

impl ContainerIdentity {
    /// A container by its name in the pod and the runtime's id.
    ///
    /// # Errors
    /// When one of them cannot be that.
    pub fn new(name: impl Into<Box<str>>, id: impl Into<Box<str>>) -> Result<Self, InvalidIdentity> {
        let identity = Self { name: name.into(), id: id.into() };
        check_name(&identity.name, Field::Container)?;
        check_id(&identity.id, Field::ContainerId)?;
        Ok(identity)
    }

    /// The name in the pod's spec.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The runtime's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Checks that a text could be a Kubernetes name: lower case letters, digits, `-` and `.`, not too long.
///
/// # Errors
/// When it could not.
pub fn check_name(text: &str, field: Field) -> Result<(), InvalidIdentity> {
    let longest = match field {
        Field::Namespace => NAMESPACE_CHARS,
        Field::Container => CONTAINER_NAME_CHARS,
        Field::Node | Field::Pod => NAME_CHARS,
        Field::BootId | Field::Uid | Field::ContainerId => ID_CHARS,
    };
    let character = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    let valid = !text.is_empty() && text.len() <= longest && text.bytes().all(character);
    if valid { Ok(()) } else { Err(InvalidIdentity::Name(field)) }
}

/// Checks that a text could be an id: letters, digits, `-`, `_`, `.` and `:`, not too long.
///
/// # Errors
/// When it could not.
pub fn check_id(text: &str, field: Field) -> Result<(), InvalidIdentity> {
    let character = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':');
    let valid = !text.is_empty() && text.len() <= ID_CHARS && text.bytes().all(character);
    if valid { Ok(()) } else { Err(InvalidIdentity::Id(field)) }
}
