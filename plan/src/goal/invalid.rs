//! Why a spec cannot be run.

/// Why an ElasticWorkload cannot be run as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A field holds what cannot be done; the text says which and what to do.
    #[error("{field}: {message}")]
    Field {
        /// The path of the field.
        field: String,
        /// What is wrong and the way out.
        message: String,
    },
    /// The class does not exist (yet).
    #[error("spec.className: WorkloadClass {0:?} does not exist; create it, or name another")]
    ClassNotFound(String),
    /// The class is stored in a form that this version cannot read.
    #[error("spec.className: WorkloadClass {name:?} cannot be read: {message}; correct the class, or name another")]
    ClassUnreadable {
        /// The name of the class.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// The object is stored in a form that this version cannot read.
    #[error("the object cannot be read: {0}; correct the field and apply it again")]
    Unreadable(String),
}

impl Invalid {
    /// A wrong field.
    #[must_use]
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::Field { field: field.to_owned(), message: message.into() }
    }

    /// The reason of the condition Stalled.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } | Self::Unreadable(_) => "InvalidSpec",
            Self::ClassNotFound(_) => "WorkloadClassNotFound",
            Self::ClassUnreadable { .. } => "WorkloadClassUnreadable",
        }
    }
}
