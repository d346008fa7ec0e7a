//! What a client asks for, in Kubernetes' own words, and how a rule picks it.

use http::{Method, header, request};
use serde_json::Value;

/// What is done, as the audit log calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// One object is read.
    Get,
    /// Many are read.
    List,
    /// Changes are followed.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
    /// DELETE of one object.
    Delete,
    /// DELETE of many.
    DeleteCollection,
}

impl Verb {
    /// All that change something.
    pub const WRITES: [Self; 5] = [Self::Create, Self::Update, Self::Patch, Self::Delete, Self::DeleteCollection];
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is done.
    pub verb: Verb,
    /// The path without its query.
    pub path: String,
    /// The resource in the plural with its subresource, such as `pods/status`; empty for a path that names none.
    pub resource: String,
    /// The namespace; empty where there is none.
    pub namespace: String,
    /// The object's name, also of one to be made; empty where there is none.
    pub name: String,
    /// What the client calls itself.
    pub user_agent: String,
}

impl Call {
    /// Reads it from the head of a request, and the name of a new object from its body.
    pub(super) fn new(head: &request::Parts, body: &[u8]) -> Self {
        let path = head.uri.path();
        let (resource, namespace, name) = parse(path);
        let watches = head.uri.query().is_some_and(|query| {
            form_urlencoded::parse(query.as_bytes())
                .any(|(key, value)| key == "watch" && matches!(&*value, "true" | "1"))
        });
        let verb = match head.method {
            Method::POST => Verb::Create,
            Method::PUT => Verb::Update,
            Method::PATCH => Verb::Patch,
            Method::DELETE if name.is_empty() => Verb::DeleteCollection,
            Method::DELETE => Verb::Delete,
            _ if watches => Verb::Watch,
            _ if name.is_empty() && !resource.is_empty() => Verb::List,
            _ => Verb::Get,
        };
        let name = match verb {
            Verb::Create if name.is_empty() => name_in(body),
            _ => name,
        };
        let user_agent = head.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        let user_agent = user_agent.unwrap_or_default().to_owned();
        Self { verb, path: path.to_owned(), resource, namespace, name, user_agent }
    }
}

/// Resource with subresource, namespace and name of an API path.
fn parse(path: &str) -> (String, String, String) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let rest = match parts.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => return Default::default(),
    };
    let (namespace, rest) = match rest {
        // What lies in a namespace, and not the namespace itself or a subresource of it.
        ["namespaces", namespace, rest @ ..] if !matches!(rest, [] | ["status" | "finalize"]) => (*namespace, rest),
        rest => ("", rest),
    };
    let Some((resource, rest)) = rest.split_first() else { return Default::default() };
    let (name, subresource) =
        rest.split_first().map_or(("", [].as_slice()), |(name, subresource)| (*name, subresource));
    let resource = [&[*resource], subresource].concat().join("/");
    (resource, namespace.to_owned(), name.to_owned())
}

/// `metadata.name` of a JSON body.
fn name_in(body: &[u8]) -> String {
    let object: Option<Value> = serde_json::from_slice(body).ok();
    object.and_then(|object| object["metadata"]["name"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// Which calls a rule is for; by default all.
#[derive(Clone, Debug, Default)]
pub struct Match {
    verbs: Vec<Verb>,
    resources: Vec<String>,
    namespace: Option<String>,
    name: Option<String>,
    user_agent: Option<String>,
    except: Vec<String>,
}

impl Match {
    /// Every call, and every new connection before it has said anything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// One verb.
    #[must_use]
    pub fn verb(verb: Verb) -> Self {
        Self { verbs: vec![verb], ..Self::default() }
    }

    /// Everything that changes something.
    #[must_use]
    pub fn writes() -> Self {
        Self { verbs: Verb::WRITES.to_vec(), ..Self::default() }
    }

    /// The watch of a resource, such as `pods`.
    #[must_use]
    pub fn watch(resource: &str) -> Self {
        Self::verb(Verb::Watch).resource(resource)
    }

    /// Of a resource in the plural, such as `pods` or `pods/status`; said again, of this one, too.
    #[must_use]
    pub fn resource(mut self, resource: &str) -> Self {
        self.resources.push(resource.to_owned());
        self
    }

    /// In a namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Of a name; `web-*` is every name that begins with `web-`.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// By clients whose user agent contains this.
    #[must_use]
    pub fn user_agent(mut self, part: &str) -> Self {
        self.user_agent = Some(part.to_owned());
        self
    }

    /// But not of this resource.
    #[must_use]
    pub fn except(mut self, resource: &str) -> Self {
        self.except.push(resource.to_owned());
        self
    }

    /// Whether it holds for whatever a connection may bring.
    pub(super) fn is_all(&self) -> bool {
        let Self { verbs, resources, namespace, name, user_agent, except } = self;
        let lists_empty = verbs.is_empty() && resources.is_empty() && except.is_empty();
        lists_empty && namespace.is_none() && name.is_none() && user_agent.is_none()
    }

    pub(super) fn covers(&self, call: &Call) -> bool {
        let Self { verbs, resources, namespace, name, user_agent, except } = self;
        (verbs.is_empty() || verbs.contains(&call.verb))
            && (resources.is_empty() || resources.contains(&call.resource))
            && namespace.as_ref().is_none_or(|namespace| *namespace == call.namespace)
            && name.as_ref().is_none_or(|name| match name.strip_suffix('*') {
                Some(start) => call.name.starts_with(start),
                None => *name == call.name,
            })
            && user_agent.as_ref().is_none_or(|part| call.user_agent.contains(part))
            && !except.contains(&call.resource)
    }
}
