//! The metrics of a case: what is measured, and against which target.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::autoscaling::v2::{
        ContainerResourceMetricSource, CrossVersionObjectReference, ExternalMetricSource, MetricIdentifier, MetricSpec,
        MetricTarget, ObjectMetricSource, PodsMetricSource, ResourceMetricSource,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector},
};

use super::{
    draw::Draw,
    format::{Case, Sample},
    samples::{self, Aim, Measured, Resource},
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Resource,
    ContainerResource,
    Pods,
    Object,
    External,
}

/// Kinds that work from zero as well.
const BESIDE_PODS: [(u32, Kind); 2] = [(1, Kind::Object), (1, Kind::External)];
const ANY: [(u32, Kind); 5] =
    [(5, Kind::Resource), (4, Kind::ContainerResource), (3, Kind::Pods), (3, Kind::Object), (3, Kind::External)];

/// What a target asks for, in the unit of its metric or in percent.
#[derive(Clone, Copy)]
enum Target {
    Utilization(i32),
    AverageValue(&'static str, i64),
    Value(&'static str, i64),
}

/// Quantities with their thousandths.
const COUNTS: [(&str, i64); 13] = [
    ("1", 1_000),
    ("10", 10_000),
    ("15", 15_000),
    ("100", 100_000),
    ("1m", 1),
    ("3m", 3),
    ("100m", 100),
    ("2500m", 2_500),
    ("0.5", 500),
    ("1k", 1_000_000),
    ("1e3", 1_000_000),
    ("1500u", 2),
    ("1Ki", 1_024_000),
];
const CORES: [(&str, i64); 8] =
    [("1m", 1), ("10m", 10), ("100m", 100), ("250m", 250), ("400m", 400), ("1", 1_000), ("1.5", 1_500), ("0.3", 300)];
const BYTES: [(&str, i64); 6] = [
    ("1", 1_000),
    ("64Mi", 67_108_864_000),
    ("100M", 100_000_000_000),
    ("128974848", 128_974_848_000),
    ("1Gi", 1_073_741_824_000),
    ("500m", 500),
];
/// Quantities at the end of 64 bits; their thousandths do not fit, and need not be right here.
const VAST: [(&str, i64); 5] = [
    ("9223372036854775807", i64::MAX),
    ("9223372036854775807m", i64::MAX),
    ("9007199254740993m", (1 << 53) + 1),
    ("8E", i64::MAX),
    ("1n", 1),
];

/// Draws the metrics of a case and what the metrics API answers for them.
pub(super) fn draw(case: &mut Case, draw: &mut Draw) {
    if draw.percent(1) {
        // The API server then sets cpu at 80 %, and no API answers for it.
        case.tag("no-metrics");
        return;
    }
    let beside_pods = ["from-zero", "to-zero"].iter().any(|tag| case.tags.contains(tag)) && draw.percent(85);
    let count = draw.weighted(&[(70, 1), (17, 2), (9, 3), (4, 4)]);
    let mut series = BTreeSet::new();
    for number in 0..count {
        let kind = if beside_pods { draw.weighted(&BESIDE_PODS) } else { draw.weighted(&ANY) };
        let (spec, measured, name) = metric(case, draw, kind, number);
        // No two metrics of a case ask for the same series.
        if !series.insert(name) {
            continue;
        }
        let spec = if draw.percent(2) { odd(case, draw, spec) } else { spec };
        let sample = if draw.percent(if count > 1 { 8 } else { 3 }) {
            case.tag("metric-error");
            if draw.percent(50) { Sample::Failed { error: "it is not there".to_owned() } } else { Sample::Empty {} }
        } else {
            let aim = Aim::draw(case, draw);
            samples::draw(case, draw, &measured, &aim)
        };
        case.metrics.push(spec);
        case.samples.push(sample);
    }
    if case.metrics.len() > 1 {
        case.tag("several-metrics");
    }
}

/// A metric, what a sample of it has to be like, and a name for what it asks for.
fn metric(case: &mut Case, draw: &mut Draw, kind: Kind, number: usize) -> (MetricSpec, Measured, String) {
    let extreme = case.tags.contains("extreme");
    let mut spec = MetricSpec::default();
    let resource = draw.pick(&[Resource::Cpu, Resource::Cpu, Resource::Memory]);
    let identifier = |draw: &mut Draw, name: String| MetricIdentifier {
        name,
        selector: draw.maybe(25, |draw| LabelSelector {
            match_labels: Some(BTreeMap::from([("queue".to_owned(), draw.pick(&["a", "b"]).to_owned())])),
            ..LabelSelector::default()
        }),
    };
    let (measured, name) = match kind {
        Kind::Resource => {
            case.tag("Resource");
            let target = of_resource(draw, resource, extreme);
            spec.type_ = "Resource".to_owned();
            spec.resource = Some(ResourceMetricSource { name: resource.name().to_owned(), target: target.spec() });
            (target.measured_of(resource, None), format!("resource {}", resource.name()))
        }
        Kind::ContainerResource => {
            case.tag("ContainerResource");
            let container = if draw.percent(8) {
                draw.pick(&["ghost", "prepare", "proxy"]).to_owned()
            } else {
                let names: Vec<String> =
                    case.pods.first().into_iter().flat_map(samples::running).map(|(name, _)| name.to_owned()).collect();
                if names.is_empty() { "app".to_owned() } else { draw.pick(&names) }
            };
            let target = of_resource(draw, resource, extreme);
            spec.type_ = "ContainerResource".to_owned();
            spec.container_resource = Some(ContainerResourceMetricSource {
                container: container.clone(),
                name: resource.name().to_owned(),
                target: target.spec(),
            });
            let name = format!("container {container} {}", resource.name());
            (target.measured_of(resource, Some(container)), name)
        }
        Kind::Pods => {
            case.tag("Pods");
            let (text, milli) = count(draw, extreme);
            let metric = identifier(draw, format!("pods-{number}"));
            spec.type_ = "Pods".to_owned();
            spec.pods = Some(PodsMetricSource { metric, target: Target::AverageValue(text, milli).spec() });
            (Measured::Pods { target: milli }, format!("pods {number}"))
        }
        Kind::Object => {
            case.tag("Object");
            let target = of_number(draw, extreme);
            let (api_version, kind) = draw.pick(&[
                ("v1", "Service"),
                ("v1", "Namespace"),
                ("networking.k8s.io/v1", "Ingress"),
                ("example.com/v1", "Namespace"),
            ]);
            spec.type_ = "Object".to_owned();
            spec.object = Some(ObjectMetricSource {
                described_object: CrossVersionObjectReference {
                    api_version: Some(api_version.to_owned()),
                    kind: kind.to_owned(),
                    name: "thing".to_owned(),
                },
                metric: identifier(draw, format!("object-{number}")),
                target: target.spec(),
            });
            (target.measured_of_object(), format!("object {number}"))
        }
        Kind::External => {
            case.tag("External");
            let target = of_number(draw, extreme);
            spec.type_ = "External".to_owned();
            spec.external = Some(ExternalMetricSource {
                metric: identifier(draw, format!("external-{number}")),
                target: target.spec(),
            });
            (target.measured_of_external(), format!("external {number}"))
        }
    };
    (spec, measured, name)
}

/// What the API server would refuse, and the controller has an answer for all the same.
fn odd(case: &mut Case, draw: &mut Draw, mut spec: MetricSpec) -> MetricSpec {
    case.tag("odd-metric");
    if draw.percent(20) {
        return MetricSpec { type_: "Unknown".to_owned(), ..MetricSpec::default() };
    }
    let zero = || Some(Quantity("0".to_owned()));
    let targets = [
        spec.resource.as_mut().map(|source| &mut source.target),
        spec.container_resource.as_mut().map(|source| &mut source.target),
        spec.object.as_mut().map(|source| &mut source.target),
        spec.external.as_mut().map(|source| &mut source.target),
    ];
    let choice = draw.between(0..=3);
    // A metric of type Pods has nothing but its average; without it the controller crashes.
    for target in targets.into_iter().flatten() {
        *target = match choice {
            0 => MetricTarget { type_: target.type_.clone(), ..MetricTarget::default() },
            1 => MetricTarget { average_value: zero(), ..target.clone() },
            2 => MetricTarget { average_utilization: Some(0), value: zero(), ..target.clone() },
            _ => MetricTarget { type_: "Value".to_owned(), ..target.clone() },
        };
    }
    spec
}

fn of_resource(draw: &mut Draw, resource: Resource, extreme: bool) -> Target {
    if draw.percent(60) {
        let vast = extreme && draw.percent(10);
        return Target::Utilization(if vast {
            draw.pick(&[i32::MAX, 1_000_000])
        } else {
            draw.pick(&[1, 10, 30, 50, 60, 70, 80, 90, 100, 110, 120, 200, 500])
        });
    }
    let (text, milli) = match resource {
        _ if extreme && draw.percent(25) => draw.pick(&VAST),
        Resource::Cpu => draw.pick(&CORES),
        Resource::Memory => draw.pick(&BYTES),
    };
    Target::AverageValue(text, milli)
}

fn of_number(draw: &mut Draw, extreme: bool) -> Target {
    let (text, milli) = count(draw, extreme);
    if draw.percent(50) { Target::Value(text, milli) } else { Target::AverageValue(text, milli) }
}

fn count(draw: &mut Draw, extreme: bool) -> (&'static str, i64) {
    if extreme && draw.percent(25) { draw.pick(&VAST) } else { draw.pick(&COUNTS) }
}

impl Target {
    fn spec(self) -> MetricTarget {
        let (mut utilization, mut average, mut value) = (None, None, None);
        let type_ = match self {
            Self::Utilization(percent) => {
                utilization = Some(percent);
                "Utilization"
            }
            Self::AverageValue(text, _) => {
                average = Some(Quantity(text.to_owned()));
                "AverageValue"
            }
            Self::Value(text, _) => {
                value = Some(Quantity(text.to_owned()));
                "Value"
            }
        };
        MetricTarget { average_utilization: utilization, average_value: average, type_: type_.to_owned(), value }
    }

    fn measured_of(self, resource: Resource, container: Option<String>) -> Measured {
        match self {
            Self::Utilization(percent) => Measured::Utilization { resource, container, percent },
            Self::AverageValue(_, target) | Self::Value(_, target) => Measured::Usage { container, target },
        }
    }

    fn measured_of_object(self) -> Measured {
        let (target, average) = self.of_a_sum();
        Measured::Object { target, average }
    }

    fn measured_of_external(self) -> Measured {
        let (target, average) = self.of_a_sum();
        Measured::External { target, average }
    }

    fn of_a_sum(self) -> (i64, bool) {
        match self {
            Self::Utilization(percent) => (percent.into(), false),
            Self::AverageValue(_, target) => (target, true),
            Self::Value(_, target) => (target, false),
        }
    }
}
