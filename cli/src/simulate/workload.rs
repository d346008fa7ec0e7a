//! What is simulated: the ElasticWorkload of a manifest, and the WorkloadClass that it names, as far as its replicas'
//! count, capacity and cost go.

use std::collections::BTreeMap;

use catamaran_autoscale::{
    Policy,
    pods::{Container, InitContainer, Requests},
    policy::Mode,
};
use catamaran_crds::{ElasticWorkload, ScalingMode, State, WorkloadClass};
use catamaran_plan::{
    Goal, Invalid,
    goal::{quota::Quota, revision::Template},
    quantity::{bytes, millicores},
    resolve,
};
use k8s_openapi::{
    api::core::v1::{self as core, PodTemplateSpec},
    apimachinery::pkg::api::resource::Quantity,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

/// The annotation that names the container of a pod that counts.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// The container of a launcher pod that a guest runs in.
const GUEST_CONTAINER: &str = "compute";

/// A workload, ready to be simulated.
#[derive(Clone, Debug)]
pub struct Workload {
    /// `metadata.name`.
    pub name: String,
    /// The count to start with.
    pub replicas: i32,
    /// How the count is made.
    pub control: Control,
    /// What one replica is.
    pub replica: Replica,
}

/// How the count is made.
#[derive(Clone, Debug)]
pub enum Control {
    /// It stays: there is no `spec.scaling`, or its mode is Off.
    Fixed,
    /// It is decided, and carried out in mode Auto.
    Decided(Box<Policy>),
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The container that serves the demand.
    pub main: String,
    /// What it can use at most, in millicores; `None`: all that comes.
    pub limit: Option<i64>,
    /// The containers that run as long as the replica.
    pub containers: Vec<Container>,
    /// The init containers.
    pub init_containers: Vec<InitContainer>,
    /// What it asks for as a whole (`spec.resources.requests` of a pod).
    pub whole: Requests,
    /// What it asks for in all: what it costs. `None` for a resource that a container does not ask for.
    pub requests: Requests,
}

/// Why a manifest cannot be simulated.
#[derive(Debug, Error)]
pub enum InvalidManifest {
    /// It is no YAML.
    #[error("no YAML: {0}")]
    Yaml(String),
    /// A document is no such object.
    #[error("document {document}: {kind}: {message}")]
    Object {
        /// Which document, counted from 1.
        document: usize,
        /// Its kind.
        kind: &'static str,
        /// What is wrong.
        message: String,
    },
    /// It has not exactly one workload.
    #[error("{0}; write one ElasticWorkload, and the WorkloadClass that it names")]
    Workloads(String),
    /// The workload cannot be run as it is written.
    #[error("{name}: {error}")]
    Invalid {
        /// The workload.
        name: String,
        /// What the operator would say of it.
        error: Invalid,
    },
}

/// Reads a manifest of one or more YAML documents. Kinds other than ElasticWorkload and WorkloadClass are passed over.
///
/// # Errors
/// When it has not exactly one ElasticWorkload, when one has fields that there are not, or when the operator would
/// refuse it.
pub fn read(manifest: &str) -> Result<Workload, InvalidManifest> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(manifest).map_err(|error| InvalidManifest::Yaml(error.to_string()))?;
    let (mut workloads, mut classes) = (Vec::new(), BTreeMap::new());
    for (index, document) in documents.into_iter().enumerate() {
        let document_number = index + 1;
        match kind(&document) {
            Some("ElasticWorkload") => {
                workloads.push(object::<ElasticWorkload>(document, document_number, "ElasticWorkload")?);
            }
            Some("WorkloadClass") => {
                let class = object::<WorkloadClass>(document, document_number, "WorkloadClass")?;
                classes.insert(class.metadata.name.clone().unwrap_or_default(), class);
            }
            Some(_) | None => {}
        }
    }
    let workload = match workloads.as_slice() {
        [workload] => workload,
        [] => return Err(InvalidManifest::Workloads("there is no ElasticWorkload of catamaran.dev".to_owned())),
        several => {
            let names: Vec<&str> = several.iter().filter_map(|one| one.metadata.name.as_deref()).collect();
            return Err(InvalidManifest::Workloads(format!(
                "there are several ElasticWorkloads: {}",
                names.join(", ")
            )));
        }
    };
    let class = workload.spec.class_name.as_ref().and_then(|name| classes.get(name));
    simulated(workload, class)
        .map_err(|error| InvalidManifest::Invalid { name: workload.metadata.name.clone().unwrap_or_default(), error })
}

/// The kind of a document, if it is of ours.
fn kind(document: &Value) -> Option<&str> {
    let version = document.get("apiVersion")?.as_str()?;
    version.starts_with("catamaran.dev/").then(|| document.get("kind")?.as_str()).flatten()
}

/// Reads an object, and refuses fields that there are not: as `kubectl apply` does.
fn object<T: DeserializeOwned>(document: Value, number: usize, kind: &'static str) -> Result<T, InvalidManifest> {
    let wrong = |message: String| InvalidManifest::Object { document: number, kind, message };
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| {
        let path = path.to_string();
        if !["apiVersion", "kind"].contains(&path.as_str()) {
            unknown.push(path.replace(".?", ""));
        }
    };
    let reader = serde_ignored::Deserializer::new(document, &mut note);
    let object = serde_path_to_error::deserialize(reader).map_err(|error| wrong(error.to_string()))?;
    match unknown.as_slice() {
        [] => Ok(object),
        fields => Err(wrong(format!("unknown field {}; see docs/reference/api.md", fields.join(", ")))),
    }
}

fn simulated(workload: &ElasticWorkload, class: Option<&WorkloadClass>) -> Result<Workload, Invalid> {
    let Goal { name, state, template, scaling, .. } = resolve(workload, class)?;
    let nothing = |state: &str| {
        Err(Invalid::field("spec.state", format!("is {state}: nothing runs, so there is nothing to simulate")))
    };
    match state {
        State::Running => {}
        State::Frozen => return nothing("Frozen"),
        State::Stopped => return nothing("Stopped"),
    }
    let fixed = workload.spec.replicas.unwrap_or(1);
    let mode = workload.spec.scaling.as_ref().map(|scaling| scaling.mode.unwrap_or_default());
    let (replicas, control) = match (scaling, mode) {
        (None, _) | (_, None | Some(ScalingMode::Off)) => (fixed, Control::Fixed),
        (Some(policy), Some(ScalingMode::Recommend | ScalingMode::Hold)) => {
            (fixed, Control::Decided(Box::new((*policy).clone())))
        }
        (Some(policy), Some(ScalingMode::Auto)) => {
            (workload.spec.replicas.unwrap_or(policy.min), Control::Decided(Box::new((*policy).clone())))
        }
    };
    let replica = match &template {
        Template::Container(pod) => pod_of(pod)?,
        Template::VirtualMachine(machine) => {
            let quota = Quota::resolve(workload.spec.quota.as_ref(), class.map(|class| &class.spec))?;
            guest_of(&machine.spec, quota)?
        }
    };
    Ok(Workload { name, replicas, control, replica })
}

impl Workload {
    /// What has to be said about how the count is made.
    pub fn note(&self) -> Option<String> {
        match &self.control {
            Control::Fixed => Some(format!(
                "{}: no scaling (none in the spec, or mode Off); the count stays at spec.replicas, {}",
                self.name, self.replicas
            )),
            Control::Decided(policy) if matches!(policy.mode, Mode::Recommend | Mode::Hold) => Some(format!(
                "{}: mode {:?}; the count stays at spec.replicas, {}, and wanted is what would be right for it",
                self.name, policy.mode, self.replicas
            )),
            Control::Decided(_) => None,
        }
    }
}

fn pod_of(template: &PodTemplateSpec) -> Result<Replica, Invalid> {
    let field = "spec.container.template.spec";
    let annotations = template.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
    let chosen = annotations.and_then(|annotations| annotations.get(DEFAULT_CONTAINER));
    let spec = template.spec.as_ref();
    let main = spec.and_then(|spec| match chosen {
        Some(name) => spec.containers.iter().find(|container| container.name == *name),
        None => spec.containers.first(),
    });
    let (Some(spec), Some(main)) = (spec, main) else {
        return Err(Invalid::field(&format!("{field}.containers"), "needs at least one container"));
    };
    let container = |container: &core::Container| -> Result<Container, Invalid> {
        Ok(Container { name: container.name.clone(), requests: requests(container.resources.as_ref(), field)? })
    };
    let limit = main.resources.as_ref().and_then(|resources| resources.limits.as_ref()?.get("cpu"));
    let containers = spec.containers.iter().map(container).collect::<Result<Vec<_>, _>>()?;
    let init_containers = spec.init_containers.iter().flatten().map(|init| {
        let restart_always = init.restart_policy.as_deref() == Some("Always");
        Ok(InitContainer { restart_always, container: container(init)? })
    });
    let init_containers = init_containers.collect::<Result<Vec<_>, Invalid>>()?;
    let whole = requests(spec.resources.as_ref(), field)?;
    let lasting = || {
        let sidecars = init_containers.iter().filter(|init| init.restart_always).map(|init| &init.container);
        containers.iter().chain(sidecars).map(|container| container.requests)
    };
    let sum = |of: fn(Requests) -> Option<i64>| {
        of(whole).or_else(|| lasting().try_fold(0_i64, |sum, requests| Some(sum.saturating_add(of(requests)?))))
    };
    Ok(Replica {
        main: main.name.clone(),
        limit: limit.map(|limit| cpu(limit, field)).transpose()?,
        requests: Requests { cpu: sum(|requests| requests.cpu), memory: sum(|requests| requests.memory) },
        whole,
        containers,
        init_containers,
    })
}

/// A guest: it asks for what its quota says, and can use what its vCPUs give. A long form without a quota says both
/// itself.
fn guest_of(spec: &serde_json::Map<String, Value>, quota: Quota) -> Result<Replica, Invalid> {
    let field = "spec.virtualMachine.template.spec.domain";
    let domain = spec.get("domain");
    let at = |path: &str| domain.and_then(|domain| domain.pointer(path));
    let quantity = |path: &str| {
        at(path).and_then(|value| match value {
            Value::String(text) => Some(Quantity(text.clone())),
            Value::Number(number) => Some(Quantity(number.to_string())),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        })
    };
    let ask = |of_quota: Option<u64>, path: &str, read: fn(&Quantity, &str) -> Result<i64, Invalid>| match of_quota {
        Some(value) => Ok(i64::try_from(value).ok()),
        None => quantity(path).map(|quantity| read(&quantity, field)).transpose(),
    };
    let factor = |name: &str| at(&format!("/cpu/{name}")).and_then(Value::as_i64).unwrap_or(1).max(1);
    let vcpus = factor("sockets").saturating_mul(factor("cores")).saturating_mul(factor("threads"));
    let limit = ask(quota.cpu_limit, "/resources/limits/cpu", cpu)?;
    let requests = Requests {
        cpu: ask(quota.cpu_request.or(quota.cpu_limit), "/resources/requests/cpu", cpu)?,
        memory: match ask(quota.memory_request.or(quota.memory_limit), "/resources/requests/memory", memory)? {
            Some(request) => Some(request),
            None => quantity("/memory/guest").map(|guest| memory(&guest, field)).transpose()?,
        },
    };
    Ok(Replica {
        main: GUEST_CONTAINER.to_owned(),
        limit: Some(limit.unwrap_or_else(|| vcpus.saturating_mul(1000))),
        containers: vec![Container { name: GUEST_CONTAINER.to_owned(), requests }],
        init_containers: Vec::new(),
        whole: Requests::default(),
        requests,
    })
}

/// What a container asks for. Kubernetes itself takes a missing request from the limit.
fn requests(resources: Option<&core::ResourceRequirements>, field: &str) -> Result<Requests, Invalid> {
    let of = |name: &str| {
        let resources = resources?;
        let find = |all: Option<&BTreeMap<String, Quantity>>| all.and_then(|all| all.get(name)).cloned();
        find(resources.requests.as_ref()).or_else(|| find(resources.limits.as_ref()))
    };
    Ok(Requests {
        cpu: of("cpu").map(|quantity| cpu(&quantity, field)).transpose()?,
        memory: of("memory").map(|quantity| memory(&quantity, field)).transpose()?,
    })
}

fn cpu(quantity: &Quantity, field: &str) -> Result<i64, Invalid> {
    signed(millicores(quantity).map_err(|error| Invalid::field(field, error.to_string()))?)
}

fn memory(quantity: &Quantity, field: &str) -> Result<i64, Invalid> {
    signed(bytes(quantity).map_err(|error| Invalid::field(field, error.to_string()))?)
}

fn signed(value: u64) -> Result<i64, Invalid> {
    Ok(i64::try_from(value).unwrap_or(i64::MAX))
}
