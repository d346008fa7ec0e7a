//! Any bytes, through the decoder into the store.

use std::{sync::Arc, time::Duration};

use catamaran_operator::intake::store::{Keep, Reading, UsageStore};
use catamaran_protocol::stream::{
    Counters,
    proto::{Container, Pod, PodSample, Pressure, Report, StreamRequest, Throttling, stream_request::Message},
    session::Session,
};
use proptest::prelude::*;
use prost::Message as _;

/// Pods that reports may tell of: few, so that they meet.
const NAMES: usize = 4;

fn any_counters() -> impl Strategy<Value = Counters> {
    let groups = (any::<Option<[u64; 3]>>(), any::<Option<[u64; 6]>>());
    (any::<u64>(), any::<u64>(), groups).prop_map(
        |(cpu_usage_usec, memory_working_set_bytes, (throttling, pressure))| Counters {
            cpu_usage_usec,
            memory_working_set_bytes,
            throttling: throttling.map(|[nr_periods, nr_throttled, throttled_usec]| Throttling {
                nr_periods,
                nr_throttled,
                throttled_usec,
            }),
            pressure: pressure.map(|[a, b, c, d, e, f]| Pressure {
                cpu_some_usec: a,
                cpu_full_usec: b,
                memory_some_usec: c,
                memory_full_usec: d,
                io_some_usec: e,
                io_full_usec: f,
            }),
        },
    )
}

fn any_report() -> impl Strategy<Value = Report> {
    let pod = (0_u32..6, 0..NAMES, 0_u8..2, prop::collection::vec(0_u8..3, 0..3)).prop_map(
        |(index, name, uid, containers)| Pod {
            index,
            namespace: "shop".to_owned(),
            name: format!("pod-{name}"),
            uid: format!("uid-{uid}"),
            containers: containers
                .into_iter()
                .map(|id| Container { name: "main".to_owned(), id: format!("life-{id}") })
                .collect(),
        },
    );
    let sample = (0_u32..6, prop::collection::vec(any_counters(), 0..3)).prop_map(|(pod, containers)| PodSample {
        pod,
        containers,
        ..PodSample::default()
    });
    let parts = (
        any::<u64>(),
        prop::collection::vec(pod, 0..4),
        prop::collection::vec(0_u32..6, 0..2),
        prop::collection::vec(sample, 0..4),
    );
    parts.prop_map(|(monotonic_usec, pods, gone, samples)| Report {
        sequence: 0,
        monotonic_usec,
        unix_usec: 0,
        pods,
        gone,
        samples,
    })
}

/// Takes messages as the service does, several streams one after another.
fn take(messages: impl IntoIterator<Item = (Vec<u8>, Duration)>) -> Result<(), TestCaseError> {
    let store = UsageStore::new(Keep::default());
    let (node, mut session) = (Arc::from("node-1"), Session::default());
    for (bytes, arrived) in messages {
        let accepted = StreamRequest::decode(bytes.as_slice()).map(|message| session.accept(message));
        let Ok(Ok(accepted)) = accepted else {
            session = Session::default();
            continue;
        };
        for pod in &accepted.gone {
            store.remove(&node, pod);
        }
        let reading = Reading { node: &node, clock: 1, taken: accepted.taken, arrived };
        for pod in &accepted.readings {
            store.record(&reading, pod, |_| {});
            let usage = store.pod_at(pod.pod().namespace(), pod.pod().name(), arrived);
            prop_assert_eq!(usage.map(|usage| usage.containers().count()), Some(pod.counters().len()));
        }
        prop_assert!(store.len() <= NAMES, "{} entries", store.len());
    }
    store.sweep(Duration::MAX);
    prop_assert!(store.is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn bytes(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
        take(messages.into_iter().map(|bytes| (bytes, Duration::ZERO)))?;
    }

    #[test]
    fn reports(reports in prop::collection::vec((any_report(), 0_u64..10_000_000), 0..30), grows: bool) {
        let mut now = Duration::ZERO;
        take(reports.into_iter().enumerate().map(|(n, (report, later))| {
            now += Duration::from_micros(later);
            let sequence = if grows { n as u64 } else { 0 };
            let message = StreamRequest { message: Some(Message::Report(Report { sequence, ..report })) };
            (message.encode_to_vec(), now)
        }))?;
    }

    #[test]
    fn damaged_reports(
        reports in prop::collection::vec(any_report(), 0..10),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let store_names = reports.into_iter().enumerate().map(|(n, report)| {
            let message = StreamRequest { message: Some(Message::Report(Report { sequence: n as u64 + 1, ..report })) };
            let mut bytes = message.encode_to_vec();
            // Only the numbers: a changed name would be one more pod.
            for (index, value) in &damage {
                let position = index.index(bytes.len());
                let in_name = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'-' || byte.is_ascii_digit();
                if bytes.get(position).is_some_and(|byte| !in_name(byte)) && value.is_ascii_control() {
                    bytes[position] = *value;
                }
            }
            (bytes, Duration::from_secs(n as u64))
        });
        take(store_names)?;
    }
}
