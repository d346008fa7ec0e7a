//! Usage as a table.

use catamaran_protocol::usage::{ReplicaUsage, Usage, UsageSource, WorkloadUsage};

use crate::output::{Rows, Tone, UNKNOWN, duration};

/// From this share of a limit on, and from this share of time in throttling, it shows.
const HIGH_PERCENT: f64 = 90.0;
/// From this share of time on pressure shows.
const HIGH_PRESSURE: f64 = 40.0;
/// Agents report each second. Figures that are older than this, in seconds, are shown with their age: nothing is
/// decided on them.
const LATE: f64 = 5.0;

/// One line for each workload, and one for each replica that is listed.
#[must_use]
pub fn table(workloads: &[WorkloadUsage], with_namespace: bool, colours: bool) -> String {
    let mut header = vec![
        "NAME",
        "HULL",
        "READY",
        "CPU",
        "%REQUEST",
        "MEMORY",
        "%REQUEST",
        "%LIMIT",
        "CPU-PSI",
        "MEM-PSI",
        "IO-PSI",
        "THROTTLED",
        "SOURCE",
    ];
    let mut right: Vec<usize> = (3..=11).collect();
    if with_namespace {
        header.insert(0, "NAMESPACE");
        right.iter_mut().for_each(|column| *column += 1);
    }
    let mut rows = Rows::new(&header, &right, colours);
    for workload in workloads {
        let hull = workload.hull.map_or(UNKNOWN, |hull| hull.as_str());
        let (ready, desired) = (workload.ready_replicas, workload.desired_replicas);
        let tone = if ready < desired { Tone::Busy } else { Tone::Plain };
        let namespace = with_namespace.then(|| (workload.namespace.clone(), Tone::Plain));
        let first = [
            (workload.name.clone(), Tone::Plain),
            (hull.to_owned(), Tone::Plain),
            (format!("{ready}/{desired}"), tone),
        ];
        let last = (source(workload), Tone::Plain);
        rows.add(namespace.into_iter().chain(first).chain(figures(&workload.usage)).chain([last]));
        for (index, replica) in workload.each.iter().enumerate() {
            let branch = if index + 1 == workload.each.len() { "└─" } else { "├─" };
            let namespace = with_namespace.then(|| (workload.namespace.clone(), Tone::Plain));
            let (ready, tone) = if replica.ready { ("yes", Tone::Plain) } else { ("no", Tone::Busy) };
            let first = [
                (format!("{branch} {}", replica.name), Tone::Plain),
                (String::new(), Tone::Plain),
                (ready.to_owned(), tone),
            ];
            let last = (source_of_replica(replica), Tone::Plain);
            rows.add(namespace.into_iter().chain(first).chain(figures(&replica.usage)).chain([last]));
        }
    }
    rows.finish()
}

fn figures(usage: &Usage) -> [(String, Tone); 9] {
    let Usage {
        cpu_millicores: cpu,
        cpu_request_millicores: cpu_request,
        memory_bytes: memory,
        memory_request_bytes: memory_request,
        memory_limit_bytes: memory_limit,
        throttled_percent: throttled,
        cpu_pressure_percent: cpu_pressure,
        memory_pressure_percent: memory_pressure,
        io_pressure_percent: io_pressure,
    } = *usage;
    let plain = |text: Option<String>| (text.unwrap_or_else(|| UNKNOWN.to_owned()), Tone::Plain);
    let share = |percent: Option<f64>, high: f64| {
        let tone = if percent.is_some_and(|percent| percent >= high) { Tone::Bad } else { Tone::Plain };
        (percent.map_or_else(|| UNKNOWN.to_owned(), |percent| format!("{percent:.0}%")), tone)
    };
    [
        plain(cpu.map(|milli| format!("{milli}m"))),
        share(percent(cpu, cpu_request), f64::INFINITY),
        plain(memory.map(bytes)),
        share(percent(memory, memory_request), f64::INFINITY),
        share(percent(memory, memory_limit), HIGH_PERCENT),
        share(cpu_pressure, HIGH_PRESSURE),
        share(memory_pressure, HIGH_PRESSURE),
        share(io_pressure, HIGH_PRESSURE),
        share(throttled, HIGH_PRESSURE),
    ]
}

fn percent(used: Option<i64>, of: Option<i64>) -> Option<f64> {
    let of = of.filter(|of| *of > 0)?;
    Some(used? as f64 * 100.0 / of as f64)
}

/// Bytes in mebibytes as kubectl top shows them, in gibibytes from ten of them on.
fn bytes(bytes: i64) -> String {
    const MEBIBYTE: i64 = 1 << 20;
    match bytes / MEBIBYTE {
        mebibytes if mebibytes < 10 << 10 => format!("{mebibytes}Mi"),
        mebibytes => format!("{:.1}Gi", mebibytes as f64 / 1024.0),
    }
}

/// Who reports: `agents`, or `agents 2/3` where not all replicas are reported; with the age of the oldest where one is
/// late.
fn source(workload: &WorkloadUsage) -> String {
    let of = |name: &str, count: u32| match count {
        0 => None,
        count if count == workload.replicas => Some(name.to_owned()),
        count => Some(format!("{name} {count}/{}", workload.replicas)),
    };
    let late = workload.agents_age_seconds.filter(|age| *age > LATE && age.is_finite());
    let agents = of("agents", workload.by_agent).map(|agents| match late {
        Some(age) => format!("{agents} {} ago", duration(age as i64)),
        None => agents,
    });
    let sources = [agents, of("metrics.k8s.io", workload.by_metrics_api)];
    let sources: Vec<String> = sources.into_iter().flatten().collect();
    if sources.is_empty() { UNKNOWN.to_owned() } else { sources.join(", ") }
}

fn source_of_replica(replica: &ReplicaUsage) -> String {
    let name = match replica.source {
        None => return UNKNOWN.to_owned(),
        Some(UsageSource::Agent) => "agent",
        Some(UsageSource::MetricsApi) => "metrics.k8s.io",
    };
    let age = replica.age_seconds.filter(|age| age.is_finite());
    age.map_or_else(|| name.to_owned(), |age| format!("{name}, {} ago", duration(age as i64)))
}

#[cfg(test)]
mod tests {
    use catamaran_crds::Hull;

    use super::*;

    fn workloads() -> Vec<WorkloadUsage> {
        let usage = Usage {
            cpu_millicores: Some(290),
            cpu_request_millicores: Some(300),
            memory_bytes: Some(192 << 20),
            memory_request_bytes: Some(96 << 20),
            memory_limit_bytes: Some(200 << 20),
            throttled_percent: Some(12.4),
            cpu_pressure_percent: Some(41.0),
            memory_pressure_percent: Some(0.0),
            io_pressure_percent: None,
        };
        let replica = |name: &str, ready, source, usage| ReplicaUsage {
            name: name.to_owned(),
            ready,
            source,
            age_seconds: source.map(|_| 0.7),
            usage,
        };
        let web = WorkloadUsage {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            hull: Some(Hull::Container),
            desired_replicas: 3,
            ready_replicas: 2,
            replicas: 3,
            by_agent: 2,
            usage,
            each: vec![
                replica("web-7f-a", true, Some(UsageSource::Agent), usage),
                replica("web-7f-b", true, Some(UsageSource::MetricsApi), Usage { throttled_percent: None, ..usage }),
                replica("web-7f-c", false, None, Usage::default()),
            ],
            ..WorkloadUsage::default()
        };
        let machines = WorkloadUsage {
            namespace: "lab".to_owned(),
            name: "db".to_owned(),
            hull: Some(Hull::VirtualMachine),
            desired_replicas: 1,
            ready_replicas: 1,
            replicas: 1,
            by_metrics_api: 1,
            usage: Usage { cpu_millicores: Some(0), memory_bytes: Some(40 << 30), ..Usage::default() },
            ..WorkloadUsage::default()
        };
        vec![web, machines, WorkloadUsage { name: "new".to_owned(), ..WorkloadUsage::default() }]
    }

    #[test]
    fn figures_are_shown_and_what_is_unknown_is_a_dash() {
        insta::assert_snapshot!(table(&workloads(), false, false));
    }

    #[test]
    fn figures_of_agents_that_are_late_have_an_age() {
        let of = |age| source(&WorkloadUsage { agents_age_seconds: age, ..workloads().swap_remove(0) });
        assert_eq!([of(None), of(Some(0.7)), of(Some(12.3))], ["agents 2/3", "agents 2/3", "agents 2/3 12s ago"]);
    }

    #[test]
    fn all_namespaces_have_a_column() {
        let mut workloads = workloads();
        workloads.iter_mut().for_each(|workload| workload.each.clear());
        insta::assert_snapshot!(table(&workloads, true, false));
    }

    #[test]
    fn what_is_high_is_coloured() {
        let text = table(&workloads(), false, true);
        assert!(text.contains("\u{1b}["), "{text}");
        assert!(!table(&workloads(), false, false).contains('\u{1b}'));
    }
}
