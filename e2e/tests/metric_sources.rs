//! The operator's clients of the metrics APIs against the real ones: the same numbers as `kubectl get --raw` shows, and
//! as the real HPA computes with.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use catamaran_autoscale::samples::{NoSamples, ResourceSample, Samples};
use catamaran_e2e::{
    control_plane::ControlPlane,
    metrics_adapter::{CustomVersions, MetricsAdapter},
    nodes::{USAGE_CPU, USAGE_MEMORY},
    prometheus::Prometheus,
    tools::Tool,
    wait::eventually,
    workloads::apply,
};
use catamaran_operator::{
    sources::{KeyOf, Metric, PrometheusMetric, Sources, prometheus::PrometheusSettings},
    stores::WorkloadKey,
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::{CrossVersionObjectReference, HorizontalPodAutoscaler, MetricIdentifier, MetricStatus},
        core::v1::{Pod, Secret},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, ObjectMeta, PostParams},
};
use serde_json::{Value, json};
use tokio::process::Command;

const WITHIN: Duration = Duration::from_secs(60);
/// Three scrapes of 15 s, and time to start.
const SCRAPED_WITHIN: Duration = Duration::from_secs(90);

/// What the operator may do with metrics, and no more: these are the rights that the chart has to give.
const RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: metric-sources}
rules:
- {apiGroups: [metrics.k8s.io], resources: [pods], verbs: [list]}
- {apiGroups: [custom.metrics.k8s.io], resources: ["*"], verbs: [get]}
- {apiGroups: [external.metrics.k8s.io], resources: ["*"], verbs: [list]}
- {apiGroups: [""], resources: [secrets], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: metric-sources}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: metric-sources}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: metric-sources}]
"#;

/// The sources as a user with those rights, at work: each is asked every second.
async fn sources(control_plane: &ControlPlane, settings: PrometheusSettings) -> Result<Sources> {
    apply(&control_plane.client(), "default", RIGHTS).await?;
    let sources = Sources::connect(&control_plane.config_for_user("metric-sources", None).await?, settings)?
        .every(Duration::from_secs(1));
    let running = sources.clone();
    tokio::spawn(async move { running.run().await });
    Ok(sources)
}

fn key(name: &str) -> WorkloadKey {
    WorkloadKey { namespace: "default".to_owned(), name: name.to_owned() }
}

fn selector(app: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([("app".to_owned(), app.to_owned())].into()), ..LabelSelector::default() }
}

fn metric(name: &str, labels: &[(&str, &str)]) -> MetricIdentifier {
    let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let selector = LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() };
    MetricIdentifier { name: name.to_owned(), selector: (!labels.is_empty()).then_some(selector) }
}

/// The answers of a workload; an error while any is missing.
fn all(sources: &Sources, workload: &WorkloadKey) -> Result<Vec<Samples>> {
    let answers = sources.answers(workload).into_iter();
    answers.map(|answer| answer.result.map_err(|NoSamples(why)| anyhow::anyhow!(why))).collect()
}

/// The words of a workload's first answer.
fn why(sources: &Sources, workload: &WorkloadKey) -> Option<String> {
    sources.answers(workload).into_iter().next()?.result.err().map(|NoSamples(why)| why)
}

/// What kubectl shows at a path.
async fn raw(control_plane: &ControlPlane, path: &str) -> Result<Value> {
    let output = Command::from(control_plane.kubectl()?).args(["get", "--raw", path]).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A quantity in thousandths, read by another way than the product's.
fn milli(quantity: &str) -> Result<i64> {
    let at = quantity.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(at);
    let number: f64 = number.parse()?;
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        other => bail!("a suffix that this test does not know: {other}"),
    };
    // Multiplied first, so that nothing is lost before it is rounded up.
    #[allow(clippy::cast_possible_truncation)]
    Ok((number * factor * 1000.0 - 1e-9).ceil() as i64)
}

/// Two replicas of two containers, with usage, and an HPA that leaves the count alone but computes with metrics.
async fn workload(client: &Client, app: &str, metrics: Value) -> Result<()> {
    let container = |name: &str| json!({"name": name, "image": "nginx:1.29", "resources": {"requests": {"cpu": "1", "memory": "128Mi"}}});
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": app},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": app}},
            "template": {
                "metadata": {"labels": {"app": app}, "annotations": {USAGE_CPU: "250m", USAGE_MEMORY: "64Mi"}},
                "spec": {"containers": [container("main"), container("proxy")]},
            },
        },
    }))?;
    Api::<Deployment>::default_namespaced(client.clone()).create(&PostParams::default(), &deployment).await?;
    let autoscaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
        "metadata": {"name": app},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": app},
            "minReplicas": 2,
            "maxReplicas": 2,
            "metrics": metrics,
        },
    }))?;
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &autoscaler).await?;
    Ok(())
}

/// What the HPA computed with.
async fn current(client: &Client, app: &str) -> Result<Vec<MetricStatus>> {
    let autoscaler = Api::<HorizontalPodAutoscaler>::default_namespaced(client.clone()).get(app).await?;
    autoscaler.status.and_then(|status| status.current_metrics).context("the HPA has no metrics yet")
}

/// The message of the HPA's condition ScalingActive while it is False.
async fn inactive(client: &Client, app: &str) -> Result<Option<String>> {
    let autoscaler = Api::<HorizontalPodAutoscaler>::default_namespaced(client.clone()).get(app).await?;
    let conditions = autoscaler.status.and_then(|status| status.conditions).unwrap_or_default();
    let condition = conditions.into_iter().find(|c| c.type_ == "ScalingActive" && c.status == "False");
    Ok(condition.and_then(|condition| condition.message))
}

async fn pod_names(client: &Client, app: &str) -> Result<Vec<String>> {
    let params = ListParams::default().labels(&format!("app={app}"));
    let pods = Api::<Pod>::default_namespaced(client.clone()).list(&params).await?;
    Ok(pods.iter().map(ResourceExt::name_any).collect())
}

/// An HPA that looks every second, so that what it sees can be compared.
fn quick_hpa() -> catamaran_e2e::control_plane::Builder {
    ControlPlane::builder()
        .kwok_nodes(1)
        .argument(Tool::KubeControllerManager, "--horizontal-pod-autoscaler-sync-period=1s")
}

/// The usage of pods in a list of PodMetrics, read from the JSON itself.
fn usage(list: &Value, resource: &str) -> Result<BTreeMap<String, ResourceSample>> {
    let items = list["items"].as_array().context("a list")?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    items
        .iter()
        .map(|item| {
            let containers =
                item["containers"].as_array().context("containers")?.iter().map(|container| {
                    Ok((text(&container["name"])?, Some(milli(&text(&container["usage"][resource])?)?)))
                });
            let seconds: f64 = text(&item["window"])?.trim_end_matches('s').parse()?;
            let sample = ResourceSample {
                containers: containers.collect::<Result<_>>()?,
                taken: text(&item["timestamp"])?.parse()?,
                window: jiff::SignedDuration::try_from_secs_f64(seconds)?,
            };
            Ok((text(&item["metadata"]["name"])?, sample))
        })
        .collect()
}

#[tokio::test]
async fn usage_is_what_metrics_server_says() -> Result<()> {
    let control_plane = quick_hpa().metrics_server(true).start().await?;
    let client = control_plane.client();
    control_plane.default_service_account("default").await?;
    workload(
        &client,
        "web",
        json!([
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1"}}},
            {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "proxy", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
        ]),
    )
    .await?;
    let (sources, web) = (sources(&control_plane, PrometheusSettings::default()).await?, key("web"));
    let resource = |name: &str| Metric::Resource { selector: selector("web"), name: name.to_owned() };
    sources.want(&web, vec![resource("cpu"), resource("memory")]);
    eventually("the list is empty at first, which is told as by the HPA", WITHIN, || async {
        let told = why(&sources, &web);
        Ok((told.as_deref() == Some("no metrics returned from resource metrics API")).then_some(()))
    })
    .await?;

    let path = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Dweb";
    let seen = eventually("the same as kubectl shows", SCRAPED_WITHIN, || async {
        // Between two scrapes all of these are the same.
        let samples = all(&sources, &web)?;
        let list = raw(&control_plane, path).await?;
        let expected = [usage(&list, "cpu")?, usage(&list, "memory")?].map(Samples::Resource);
        ensure!(samples == expected, "{samples:?}\n{list:#}");
        let Samples::Resource(pods) = &expected[0] else { bail!("no pods") };
        Ok((pods.len() == 2 && pods.values().all(|pod| pod.containers.len() == 2)).then_some(samples))
    })
    .await?;
    for (samples, expected) in seen.iter().zip([250, 64 * 1024 * 1024 * 1000]) {
        let Samples::Resource(pods) = samples else { bail!("{samples:?}") };
        for used in pods.values().flat_map(|pod| pod.containers.values()) {
            let used = used.context("every container has usage")?;
            // KWOK's clock and that of the scrape differ by milliseconds.
            ensure!((used - expected).abs() * 20 < expected, "{used} instead of {expected}");
        }
    }
    eventually("the HPA computes with the same", WITHIN, || async {
        let samples = all(&sources, &web)?;
        let mean = |samples: &Samples, of: &dyn Fn(&str) -> bool| match samples {
            Samples::Resource(pods) if !pods.is_empty() => {
                let containers = pods.values().flat_map(|pod| pod.containers.iter());
                let sum: i64 = containers.filter(|(name, _)| of(name)).filter_map(|(_, used)| *used).sum();
                Ok(sum / i64::try_from(pods.len())?)
            }
            other => bail!("{other:?}"),
        };
        let expected = [mean(&samples[0], &|_| true)?, mean(&samples[1], &|name| name == "proxy")?];
        let computed = current(&client, "web").await?;
        let value = |quantity: Option<&Quantity>| milli(&quantity.context("a value")?.0);
        let cpu = computed[0].resource.as_ref().context("cpu")?.current.average_value.as_ref();
        let memory = computed[1].container_resource.as_ref().context("memory")?.current.average_value.as_ref();
        let computed = [value(cpu)?, value(memory)?];
        ensure!(computed == expected, "{computed:?} instead of {expected:?}");
        Ok(Some(()))
    })
    .await?;
    Ok(())
}

/// A workload with a metric of each kind, and the queries for them and for two more.
async fn workload_of_custom_metrics(client: &Client) -> Result<Vec<Metric>> {
    let target = json!({"type": "AverageValue", "averageValue": "100"});
    let queue_a = json!({"name": "queue_length", "selector": {"matchLabels": {"queue": "a"}}});
    let get = json!({"name": "hits", "selector": {"matchLabels": {"verb": "GET"}}});
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "front"});
    let value = json!({"type": "Value", "value": "100"});
    let metrics = json!([
        {"type": "Pods", "pods": {"metric": {"name": "requests"}, "target": target}},
        {"type": "Object", "object": {"metric": get, "target": value, "describedObject": ingress}},
        {"type": "External", "external": {"metric": queue_a, "target": value}},
    ]);
    workload(client, "web", metrics).await?;
    let object = |kind: &str, api_version: Option<&str>, name: &str, metric| {
        let described_object = CrossVersionObjectReference {
            api_version: api_version.map(str::to_owned),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        Metric::Object { described_object, metric }
    };
    Ok(vec![
        Metric::Pods { selector: selector("web"), metric: metric("requests", &[]) },
        object("Ingress", Some("networking.k8s.io/v1"), "front", metric("hits", &[("verb", "GET")])),
        Metric::External { metric: metric("queue_length", &[("queue", "a")]) },
        object("Service", None, "web", metric("connections", &[])),
        object("Namespace", None, "other", metric("quota", &[])),
    ])
}

/// No such API: the words are those of the HPA, after what its replica calculator puts in front.
async fn an_absent_api_is_told(client: &Client, sources: &Sources, web: &WorkloadKey) -> Result<()> {
    const CUSTOM: &str =
        "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered";
    const EXTERNAL: &str = "unable to fetch metrics from external metrics API: the server could not find the requested resource (external.metrics.k8s.io)";
    eventually("an absent API is told", WITHIN, || async {
        let told = why(sources, web).unwrap_or_default();
        ensure!(told == CUSTOM, "{told}");
        let by_the_hpa = inactive(client, "web").await?.unwrap_or_default();
        ensure!(by_the_hpa.contains(&told), "{by_the_hpa}");
        let external = sources.answers(web).swap_remove(2).result.err().context("no external metrics API")?;
        ensure!(external.0 == EXTERNAL, "{external}");
        Ok(Some(()))
    })
    .await
}

/// Waits until sources and the HPA tell what the adapter says.
async fn is_told(client: &Client, sources: &Sources, web: &WorkloadKey, words: &str, end: &str) -> Result<()> {
    eventually("sources and the HPA have the words of the adapter", WITHIN, || async {
        let told = why(sources, web).unwrap_or_default();
        ensure!(told == format!("{words}{end}"), "{told}");
        let by_the_hpa = inactive(client, "web").await?.unwrap_or_default();
        ensure!(by_the_hpa.contains(words), "{by_the_hpa}");
        Ok(Some(()))
    })
    .await
}

/// What the adapter has of two pods of `web`, and of others.
fn set_values(adapter: &MetricsAdapter, pods: &[String]) {
    adapter.set_object("default", "pods", &pods[0], "requests", "1500m");
    adapter.set_object("default", "pods", &pods[1], "requests", "10");
    adapter.set_object("default", "pods", "stranger", "requests", "1k");
    adapter.set_object_series("default", "ingresses.networking.k8s.io", "front", "hits", &[("verb", "GET")], "42");
    adapter.set_object_series("default", "ingresses.networking.k8s.io", "front", "hits", &[("verb", "PUT")], "7");
    adapter.set_object("default", "services", "web", "connections", "12500u");
    adapter.set_object("default", "namespaces", "default", "quota", "3");
    adapter.set_external("default", "queue_length", &[("queue", "a"), ("shard", "0")], "5");
    adapter.set_external("default", "queue_length", &[("queue", "a"), ("shard", "1")], "250m");
    adapter.set_external("default", "queue_length", &[("queue", "b")], "99");
}

fn values(samples: &[Samples]) -> Result<Vec<Vec<i64>>> {
    let values = |samples: &Samples| match samples {
        Samples::Pods(pods) => Ok(pods.values().map(|sample| sample.value).collect()),
        Samples::Value(value) => Ok(vec![*value]),
        Samples::Series(series) => Ok(series.clone()),
        Samples::Resource(_) => bail!("no resource was asked for"),
    };
    samples.iter().map(values).collect()
}

/// The values of [`set_values`], as kubectl and the HPA have them.
async fn the_numbers_are_those_of_others(control_plane: &ControlPlane, by_pod: &[i64]) -> Result<()> {
    let path = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/requests?labelSelector=app%3Dweb";
    let list = raw(control_plane, path).await?;
    let items = list["items"].as_array().context("a list")?;
    for (item, expected) in items.iter().zip(by_pod) {
        ensure!(milli(item["value"].as_str().context("a quantity")?)? == *expected, "{list:#}");
    }
    ensure!(items.len() == 2, "{list:#}");
    eventually("the HPA computes with the same", WITHIN, || async {
        let computed = current(&control_plane.client(), "web").await?;
        let value = |quantity: Option<&Quantity>| milli(&quantity.context("a value")?.0);
        let pods = computed[0].pods.as_ref().context("Pods")?.current.average_value.as_ref();
        let object = computed[1].object.as_ref().context("Object")?.current.value.as_ref();
        let external = computed[2].external.as_ref().context("External")?.current.value.as_ref();
        let computed = [value(pods)?, value(object)?, value(external)?];
        ensure!(computed == [(1500 + 10_000) / 2, 42_000, 5250], "{computed:?}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn custom_and_external_metrics_are_what_the_adapter_says() -> Result<()> {
    let control_plane = quick_hpa().start().await?;
    let client = control_plane.client();
    control_plane.default_service_account("default").await?;
    let queries = workload_of_custom_metrics(&client).await?;
    let (sources, web) = (sources(&control_plane, PrometheusSettings::default()).await?, key("web"));
    sources.want(&web, queries);
    an_absent_api_is_told(&client, &sources, &web).await?;

    // It comes with v1beta1 alone at first.
    let adapter = MetricsAdapter::start(&control_plane, CustomVersions::V1Beta1).await?;
    let pods = eventually("two pods", WITHIN, || async {
        let pods = pod_names(&client, "web").await?;
        Ok((pods.len() == 2).then_some(pods))
    })
    .await?;
    set_values(&adapter, &pods);
    let by_pod = BTreeMap::from([(pods[0].clone(), 1500), (pods[1].clone(), 10_000)]);
    let by_pod: Vec<i64> = by_pod.into_values().collect();
    let expected = vec![by_pod.clone(), vec![42_000], vec![5000, 250], vec![13], vec![3000]];
    eventually("everything has a value by v1beta1", WITHIN, || async {
        let seen = values(&all(&sources, &web)?)?;
        ensure!(seen == expected, "{seen:?} instead of {expected:?}");
        Ok(Some(()))
    })
    .await?;
    the_numbers_are_those_of_others(&control_plane, &by_pod).await?;

    // The adapter is upgraded: another version takes the place of the one that is known.
    adapter.register(&control_plane, "custom.metrics.k8s.io", "v1beta2").await?;
    adapter.withdraw(&control_plane, "custom.metrics.k8s.io", "v1beta1").await?;
    adapter.set_object("default", "services", "web", "connections", "77");
    eventually("the new version is found", WITHIN, || async {
        let seen = values(&all(&sources, &web)?)?;
        ensure!(seen[3] == [77_000], "{seen:?}");
        Ok(Some(()))
    })
    .await?;

    // What is not there is told in the adapter's words.
    adapter.clear();
    let unable = "unable to fetch metrics from custom metrics API: the server";
    let words = format!("{unable} could not find the metric requests for pods");
    is_told(&client, &sources, &web, &words, "").await?;
    set_values(&adapter, &pods);
    adapter.set_external("default", "queue_length", &[], "1");
    let query = Metric::External { metric: metric("queue_length", &[("queue", "c")]) };
    sources.want(&key("empty"), vec![query]);
    eventually("no series is told, too", WITHIN, || async {
        Ok((why(&sources, &key("empty")).as_deref() == Some("no metrics returned from external metrics API"))
            .then_some(()))
    })
    .await?;

    // It goes without a word, and another comes in its place.
    drop(adapter);
    let words = format!("{unable} is currently unable to handle the request (");
    is_told(&client, &sources, &web, &words, "custom.metrics.k8s.io)").await?;
    let adapter = MetricsAdapter::start(&control_plane, CustomVersions::Both).await?;
    adapter.set_object("default", "pods", &pods[0], "requests", "1");
    eventually("the new one is asked", WITHIN, || async {
        let first = sources.answers(&web).swap_remove(0).result.map_err(|NoSamples(why)| anyhow::anyhow!(why))?;
        ensure!(values(&[first])? == [[1000]]);
        Ok(Some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn prometheus_is_asked_by_tls() -> Result<()> {
    let control_plane = ControlPlane::builder().controller_manager(false).scheduler(false).start().await?;
    let prometheus = Prometheus::start(&control_plane).await?;
    let authority = Secret {
        metadata: ObjectMeta { name: Some("prometheus".to_owned()), ..ObjectMeta::default() },
        string_data: Some([("ca.crt".to_owned(), prometheus.authority().to_owned())].into()),
        ..Secret::default()
    };
    let authorities: Api<Secret> = Api::default_namespaced(control_plane.client());
    authorities.create(&PostParams::default(), &authority).await?;
    prometheus.set("queue_length{queue=\"a\"}", 41.5);
    prometheus.set("queue_length{queue=\"b\"}", 0.25);
    prometheus.set("limit", f64::NAN);
    prometheus.answers("queue_length{queue=\"b\"}", "0.25").await?;

    let settings = PrometheusSettings {
        allowed_addresses: ["127.0.0.0/8".parse()?, "::1/128".parse()?].into(),
        ..PrometheusSettings::default()
    };
    let (sources, web) = (sources(&control_plane, settings).await?, key("web"));
    let query = |promql: &str, ca: bool| {
        let bundle = KeyOf { name: "prometheus".to_owned(), key: "ca.crt".to_owned() };
        Metric::Prometheus(PrometheusMetric {
            url: prometheus.url().to_owned(),
            query: promql.to_owned(),
            ca: ca.then_some(bundle),
            bearer_token: None,
        })
    };
    let unable = "unable to fetch the metric from Prometheus: ";
    let cases: [(Metric, Result<i64, String>); 9] = [
        (query("sum(queue_length)", true), Ok(41_750)),
        (query("scalar(queue_length{queue=\"a\"})", true), Ok(41_500)),
        (query("queue_length{queue=\"b\"} * 2", true), Ok(500)),
        (query("queue_length", true), Err(format!("{unable}the query gives 2 series; give one, for example by sum()"))),
        (query("absent_metric", true), Err(format!("{unable}the query gives no series"))),
        (query("limit", true), Err(format!("{unable}the value is NaN, which nothing can be computed with"))),
        (query("vector(1) / 0", true), Err(format!("{unable}the value is inf, which nothing can be computed with"))),
        (
            query("queue_length[1m]", true),
            Err(format!("{unable}the query gives a range of values; give an instant vector or a scalar")),
        ),
        (query("sum(", true), Err(format!("{unable}Prometheus refuses the query: bad_data: "))),
    ];
    sources.want(&web, cases.iter().map(|(query, _)| query.clone()).collect());
    eventually("all have been asked", WITHIN, || async {
        Ok(sources.answers(&web).iter().all(|answer| answer.arrived.is_some()).then_some(()))
    })
    .await?;
    for ((query, expected), answer) in cases.iter().zip(sources.answers(&web)) {
        match (expected, answer.result) {
            (Ok(expected), Ok(samples)) => assert_eq!(samples, Samples::Value(*expected), "{query:?}"),
            (Err(expected), Err(NoSamples(why))) => assert!(why.starts_with(expected), "{why}"),
            (expected, seen) => bail!("{query:?}: {seen:?} instead of {expected:?}"),
        }
    }

    // Its authority is not one that this host trusts.
    sources.want(&web, vec![query("sum(queue_length)", false)]);
    eventually("without the bundle it is refused", WITHIN, || async {
        let told = why(&sources, &web).unwrap_or_default();
        ensure!(
            told.contains("invalid peer certificate") || told.contains("trusts no certificate authority"),
            "{told}"
        );
        Ok(Some(()))
    })
    .await?;

    // A new value is seen within an interval and a scrape.
    sources.want(&web, vec![query("sum(queue_length)", true)]);
    prometheus.set("queue_length{queue=\"a\"}", 100.0);
    eventually("the new value", WITHIN, || async {
        Ok((all(&sources, &web)? == [Samples::Value(100_250)]).then_some(()))
    })
    .await?;
    Ok(())
}
