//! Dashboard and alerts of the chart: they name only metrics that the operator has, and the alerts fire when they
//! should. Helm and promtool do the work; no cluster is needed.
#![cfg(feature = "control-plane")]

mod alerts;
mod bill;
mod chart;
mod expressions;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result, ensure};
use catamaran_operator::{
    intake::metrics::IntakeMetrics,
    metrics::{Metrics, Verb, WorkloadLabels},
    sources::{Sources, prometheus::PrometheusSettings},
};
use chart::{Chart, root};
use serde_json::{Value, json};

/// The names of all metrics that an operator has, as `/metrics` prints them.
fn exported() -> Result<BTreeSet<String>> {
    let metrics = Metrics::default();
    metrics.register(IntakeMetrics::register);
    let sources = Sources::connect(&kube::Config::new("http://127.0.0.1:1".parse()?), PrometheusSettings::default())?;
    metrics.register(|registry| sources.register(registry));
    // Of what has labels, nothing is printed before there is something.
    metrics.write(Verb::Patch, "ReplicaSet");
    let text = metrics.render(0, [WorkloadLabels { hull: "container", state: "Ready" }].into_iter())?;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    Ok(samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect())
}

/// The dashboard, out of its ConfigMap.
fn dashboard(chart: &Chart) -> Result<Value> {
    let object = chart.only("ConfigMap")?;
    ensure!(object["metadata"]["labels"]["grafana_dashboard"] == "1", "the sidecar does not find it: {object}");
    let text = object["data"]["catamaran.json"].as_str().context("a dashboard")?;
    Ok(serde_json::from_str(text)?)
}

fn panels(dashboard: &Value) -> Result<Vec<&Value>> {
    let panels = dashboard["panels"].as_array().context("panels")?;
    Ok(panels.iter().filter(|panel| panel["type"] != "row").collect())
}

fn expressions_of(panel: &Value) -> Result<Vec<&str>> {
    let targets = panel["targets"].as_array().context("targets")?;
    targets.iter().map(|target| target["expr"].as_str().context("an expression")).collect()
}

#[tokio::test]
async fn dashboard_and_alerts_name_metrics_that_there_are() -> Result<()> {
    let chart = Chart::render(&everything())?;
    // Prometheus itself makes it.
    let known: BTreeSet<String> = exported()?.into_iter().chain(["up".to_owned()]).collect();
    let dashboard = dashboard(&chart)?;
    let mut asked = BTreeMap::new();
    for panel in panels(&dashboard)? {
        for expression in expressions_of(panel)? {
            asked.extend(expressions::metrics(expression).into_iter().map(|name| (name, panel["title"].to_string())));
        }
    }
    ensure!(asked.len() > 15, "of the dashboard only {asked:?} are found");
    for (alert, rule) in chart.alerts()? {
        let expression = rule["expr"].as_str().context("an expression")?;
        let named = expressions::metrics(expression);
        ensure!(!named.is_empty(), "{alert} names no metric");
        asked.extend(named.into_iter().map(|name| (name, alert.clone())));
    }
    let unknown: Vec<_> = asked.iter().filter(|(name, _)| !known.contains(*name)).collect();
    ensure!(unknown.is_empty(), "no operator has these: {unknown:?}; it has {known:?}");
    Ok(())
}

#[test]
fn every_panel_is_complete() -> Result<()> {
    let chart = Chart::render(&everything())?;
    let dashboard = dashboard(&chart)?;
    let variables: Vec<&Value> =
        dashboard["templating"]["list"].as_array().context("variables")?.iter().map(|one| &one["name"]).collect();
    ensure!(variables == ["datasource", "namespace", "job"], "{variables:?}");
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    let panels = panels(&dashboard)?;
    let (mut titles, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in &panels {
        let title = panel["title"].as_str().context("a title")?;
        ensure!(titles.insert(title) && ids.insert(panel["id"].to_string()), "{title} is there twice");
        let texts = ["/title", "/description", "/fieldConfig/defaults/unit"].map(|path| panel.pointer(path));
        let complete = texts.iter().all(|text| text.and_then(Value::as_str).is_some_and(|text| !text.is_empty()));
        ensure!(complete, "{title} lacks a title, a description or a unit");
        let targets = panel["targets"].as_array().context("targets")?;
        ensure!(!targets.is_empty(), "{title} shows nothing");
        let sources = targets.iter().map(|target| &target["datasource"]).chain([&panel["datasource"]]);
        ensure!(sources.into_iter().all(|one| *one == source), "{title} has another data source");
        for expression in expressions_of(panel)? {
            let selected = expression.matches(r#"namespace="$namespace",job="$job""#).count();
            ensure!(selected == expressions::metrics(expression).len(), "{title} shows other operators: {expression}");
        }
    }
    // As rules, so that they are parsed.
    let rules = panels.iter().map(|panel| {
        let rules = expressions_of(panel)?.into_iter().map(|expression| {
            let expression = expression.replace("$__rate_interval", "5m").replace('$', "");
            json!({"record": "panel", "expr": expression, "labels": {"of": panel["title"], "expr": expression}})
        });
        Ok(rules.collect::<Vec<_>>())
    });
    let rules = rules.collect::<Result<Vec<_>>>()?.concat();
    alerts::check(&json!({"groups": [{"name": "dashboard", "rules": rules}]}))
}

#[test]
fn every_alert_is_well_formed_and_has_a_runbook() -> Result<()> {
    let chart = Chart::render(&everything())?;
    let text = fs::read_to_string(root().join("docs/operations.md"))?;
    let headings: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("### Catamaran")).collect();
    let alerts = chart.alerts()?;
    let named: BTreeSet<&str> = alerts.keys().filter_map(|name| name.strip_prefix("Catamaran")).collect();
    ensure!(headings == named, "runbooks {headings:?}, alerts {named:?}");
    for (name, rule) in &alerts {
        let annotations = &rule["annotations"];
        let url = annotations["runbook_url"].as_str().context("a runbook")?;
        ensure!(url == format!("https://docs.example/operations#{}", name.to_lowercase()), "{name}: {url}");
        ensure!(annotations["dashboard"] == "https://grafana.example", "{name} lacks the extra annotation");
        ensure!(rule["labels"]["team"] == "platform", "{name} lacks the extra label");
        let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
        ensure!(["critical", "warning", "info"].contains(&severity), "{name} is {severity:?}");
    }
    alerts::check(&chart.groups()?)
}

#[test]
fn alerts_fire_when_they_should_and_only_then() -> Result<()> {
    alerts::test(&Chart::render(&everything())?)
}

#[test]
fn without_agents_there_are_no_alerts_on_them() -> Result<()> {
    let all = Chart::render(&everything())?.alerts()?;
    let without = Chart::render(&json!({"metrics": {"prometheusRule": {"enabled": true}}}))?.alerts()?;
    let agents: Vec<&String> = all.keys().filter(|name| !without.contains_key(*name)).collect();
    ensure!(
        agents == ["CatamaranIntakeRefusesAgents", "CatamaranUsageLost", "CatamaranUsageStale"],
        "only with agents: {agents:?}"
    );
    Ok(())
}

/// It must find the port of the metrics and no other: the Service of the usage intake has the same labels.
#[test]
fn the_service_monitor_selects_the_metrics_alone() -> Result<()> {
    let chart = Chart::render(&everything())?;
    let monitor = chart.only("ServiceMonitor")?;
    let spec = &monitor["spec"];
    let wanted = spec["selector"]["matchLabels"].as_object().context("a selector")?;
    let endpoints = spec["endpoints"].as_array().context("endpoints")?;
    ensure!(spec["namespaceSelector"]["matchNames"] == json!([chart::NAMESPACE]), "{spec}");
    let mut scraped = Vec::new();
    for service in chart.of_kind("Service") {
        let labels = &service["metadata"]["labels"];
        if wanted.iter().any(|(name, value)| labels[name] != *value) {
            continue;
        }
        for port in service["spec"]["ports"].as_array().into_iter().flatten() {
            let hits = endpoints.iter().filter(|endpoint| endpoint["port"] == port["name"]);
            scraped.extend(hits.map(|endpoint| {
                (service["metadata"]["name"].as_str(), port["targetPort"].as_str(), endpoint["path"].as_str())
            }));
        }
    }
    ensure!(chart.of_kind("Service").count() == 2, "the Service of the intake is missing");
    // The name of the Service is the job that alerts and dashboard select.
    ensure!(scraped == [(Some("catamaran-metrics"), Some("http"), Some("/metrics"))], "{scraped:?}");
    let pods = chart.only("Deployment")?;
    let ports = pods["spec"]["template"]["spec"]["containers"][0]["ports"].as_array().context("ports")?;
    ensure!(ports.iter().any(|port| port["name"] == "http"), "{ports:?}");
    Ok(())
}

/// Values that turn on all there is.
fn everything() -> Value {
    json!({
        "usage": {"enabled": true, "certificateSecret": "usage-tls"},
        "metrics": {
            "serviceMonitor": {"enabled": true},
            "grafanaDashboard": {"enabled": true},
            "prometheusRule": {
                "enabled": true,
                "alertLabels": {"team": "platform"},
                "alertAnnotations": {"dashboard": "https://grafana.example"},
                "runbookUrl": "https://docs.example/operations",
            },
        },
    })
}

#[test]
fn a_bill_by_prometheus_is_right_to_a_hundredth() -> Result<()> {
    bill::is_right_to_a_hundredth()
}
