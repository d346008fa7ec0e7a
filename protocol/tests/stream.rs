//! From snapshots over the wire to readings.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use catamaran_protocol::stream::{
    Counters,
    encode::Encoder,
    identity::{ContainerIdentity, PodIdentity},
    limits::{CONTAINERS, CONTAINERS_PER_POD, MESSAGE_BYTES, PODS, REASON_BYTES, UNENFORCED_PER_POD},
    proto::{self, Knob, PodTotals, Pressure, QuotaState, StreamRequest, Throttling, stream_request},
    session::{Malformed, Sender, Session},
    snapshot::{PodReading, Snapshot},
};
use proptest::prelude::*;
use prost::Message;

fn pod(name: &str, uid: &str, containers: &[&str]) -> Arc<PodIdentity> {
    let containers = containers.iter().enumerate();
    let containers =
        containers.map(|(n, id)| ContainerIdentity::new(format!("c{n}"), (*id).to_owned()).expect("valid"));
    Arc::new(PodIdentity::new("shop", name, uid, containers).expect("valid"))
}

fn reading(pod: &Arc<PodIdentity>, value: u64) -> PodReading {
    let counters = Counters { cpu_usage_usec: value, memory_working_set_bytes: value, ..Counters::default() };
    PodReading::new(pod.clone(), vec![counters; pod.containers().len()]).expect("as many as containers")
}

fn snapshot(seconds: u64, pods: Vec<PodReading>) -> Snapshot {
    Snapshot { taken: Duration::from_secs(seconds), unix_usec: 7, pods }
}

fn request(report: proto::Report) -> StreamRequest {
    StreamRequest { message: Some(stream_request::Message::Report(report)) }
}

fn told(index: u32, uid: &str) -> proto::Pod {
    let containers = vec![proto::Container { name: "main".to_owned(), id: "abc".to_owned() }];
    proto::Pod { index, namespace: "shop".to_owned(), name: "web".to_owned(), uid: uid.to_owned(), containers }
}

fn sample(pod: u32) -> proto::PodSample {
    proto::PodSample { pod, containers: vec![Counters::default()], ..proto::PodSample::default() }
}

fn quota_state(reasons: &[&str]) -> QuotaState {
    let unenforced = reasons
        .iter()
        .map(|reason| proto::Unenforced { knob: Knob::IoMax.into(), reason: (*reason).to_owned() })
        .collect();
    QuotaState { fingerprint: u64::MAX, refused: String::new(), unenforced }
}

#[test]
fn a_pod_is_told_once() {
    let (mut encoder, web) = (Encoder::default(), pod("web", "1", &["a"]));
    let told = |encoder: &mut Encoder, pods| encoder.encode(&snapshot(1, pods)).report.pods.len();
    assert_eq!(told(&mut encoder, vec![reading(&web, 1)]), 1);
    assert_eq!(told(&mut encoder, vec![reading(&web, 2)]), 0);
    // An equal pod is the same one; a restarted container makes it another.
    assert_eq!(told(&mut encoder, vec![reading(&pod("web", "1", &["a"]), 2)]), 0);
    assert_eq!(told(&mut encoder, vec![reading(&pod("web", "1", &["b"]), 3)]), 1);
}

#[test]
fn indexes_of_pods_that_are_gone_are_used_again() {
    let mut encoder = Encoder::default();
    let mut session = Session::default();
    for round in 0..5_000_u64 {
        let pods = (0..3).map(|n| reading(&pod(&format!("p{round}-{n}"), &format!("{round}-{n}"), &["a"]), round));
        let report = encoder.encode(&snapshot(round, pods.collect())).report;
        assert!(report.pods.iter().all(|pod| pod.index < 3), "{:?}", report.pods);
        let accepted = session.accept(request(report)).expect("our own stream");
        assert_eq!(accepted.gone.len(), if round == 0 { 0 } else { 3 });
        assert_eq!(session.size(), (3, 3));
    }
}

#[test]
fn a_full_node_is_told_in_messages_of_allowed_size() {
    // Every text as long as may be.
    let long = |n: usize, length: usize| format!("{n:0>length$}");
    let pods: Vec<_> = (0..PODS)
        .map(|n| {
            let containers =
                (0..CONTAINERS / PODS).map(|c| ContainerIdentity::new(long(c, 63), long(c, 128)).expect("valid"));
            let pod = PodIdentity::new(long(0, 63), long(n, 253), long(n, 128), containers).expect("valid");
            let counters = Counters {
                cpu_usage_usec: 1 << 45,
                memory_working_set_bytes: 1 << 36,
                throttling: Some(Throttling { nr_periods: 1 << 25, nr_throttled: 1 << 24, throttled_usec: 1 << 40 }),
                pressure: Some(Pressure { cpu_some_usec: 1 << 40, io_some_usec: 1 << 35, ..Pressure::default() }),
            };
            let totals = PodTotals {
                cpu_usage_usec: Some(1 << 46),
                memory_current_bytes: Some(1 << 36),
                io_read_bytes: Some(1 << 40),
                io_write_bytes: Some(1 << 40),
                io_read_operations: Some(1 << 30),
                io_write_operations: Some(1 << 30),
                oom_kills: Some(3),
                memory_peak_bytes: Some(1 << 36),
            };
            let reading = PodReading::new(Arc::new(pod), vec![counters; CONTAINERS / PODS]);
            reading.expect("as many as containers").with(Some(totals), Some(quota_state(&[])))
        })
        .collect();
    let (mut encoder, mut session) = (Encoder::default(), Session::default());
    let (mut complete, mut seen) = (false, 0);
    for second in 0..30 {
        let encoded = encoder.encode(&snapshot(second, pods.clone()));
        let message = request(encoded.report);
        assert!(message.encoded_len() <= MESSAGE_BYTES, "{} bytes", message.encoded_len());
        seen = session.accept(message).expect("our own stream").readings.len();
        complete = encoded.left_out == 0;
    }
    assert!(complete && seen == PODS, "{seen} of {PODS} pods");
    assert_eq!(session.size(), (PODS, CONTAINERS));
}

#[test]
fn what_is_beyond_the_limits_is_left_out() {
    let pods: Vec<_> = (0..PODS + 5).map(|n| reading(&pod(&format!("p{n}"), &format!("u{n}"), &["a"]), 1)).collect();
    let (mut encoder, mut session) = (Encoder::default(), Session::default());
    let mut left_out = 0;
    for second in 0..10 {
        let encoded = encoder.encode(&snapshot(second, pods.clone()));
        left_out = encoded.left_out;
        session.accept(request(encoded.report)).expect("our own stream");
    }
    assert_eq!((left_out, session.size().0), (5, PODS));
}

#[test]
fn what_no_pod_can_be_is_no_identity() {
    let container = || ContainerIdentity::new("main", "abc");
    for (namespace, name, uid) in [
        ("", "web", "1"),
        ("a/b", "web", "1"),
        ("shop", "Web", "1"),
        ("shop", "web", ""),
        ("shop", "web", "a b"),
        ("shop", "web\n", "1"),
        (&"n".repeat(64), "web", "1"),
        ("shop", &"n".repeat(254), "1"),
        ("shop", "web", &"n".repeat(129)),
    ] {
        assert!(PodIdentity::new(namespace, name, uid, container()).is_err(), "{namespace}/{name} {uid}");
    }
    assert!(ContainerIdentity::new("", "abc").is_err() && ContainerIdentity::new("main", "").is_err());
    let many = vec![container().expect("valid"); CONTAINERS_PER_POD + 1];
    assert!(PodIdentity::new("shop", "web", "1", many).is_err());
}

#[test]
fn what_breaks_a_rule_is_malformed() {
    let report = |sequence, pods: &[proto::Pod], gone: &[u32], samples: &[proto::PodSample]| {
        request(proto::Report {
            sequence,
            pods: pods.to_vec(),
            gone: gone.to_vec(),
            samples: samples.to_vec(),
            ..proto::Report::default()
        })
    };
    let most = u32::try_from(PODS).expect("small");
    let two = proto::PodSample { containers: vec![Counters::default(); 2], ..proto::PodSample::default() };
    let named = |name: &str| proto::Pod { name: name.to_owned(), ..told(0, "1") };
    let all = vec![0; PODS + 1];
    let hello = StreamRequest { message: Some(stream_request::Message::Hello(proto::Hello::default())) };
    for (message, expected) in [
        (report(1, &[], &[], &[]), "sequence 1"),
        (report(2, &[], &[0], &[]), "pod index 0 was not told"),
        (report(2, &[], &[most], &[]), "not below"),
        (report(2, &[told(most, "1")], &[], &[]), "not below"),
        (report(2, &[told(u32::MAX, "1")], &[], &[]), "not below"),
        (report(2, &[], &[], &[sample(0)]), "pod index 0 was not told"),
        (report(2, &[], &[], &[sample(u32::MAX)]), "not below"),
        (report(2, &[told(0, "1")], &[], &[sample(0), sample(0)]), "two samples"),
        (report(2, &[told(0, "1")], &[], &[two]), "2 readings for 1 containers"),
        (report(2, &[named("no name")], &[], &[]), "not a Kubernetes name"),
        (report(2, &[], &all, &[]), "more than 1024 pods"),
        (hello, "first message"),
        (StreamRequest { message: None }, "first message"),
    ] {
        let mut session = Session::default();
        session.accept(report(1, &[], &[], &[])).expect("in order");
        let error = session.accept(message).expect_err("malformed").to_string();
        assert!(error.contains(expected), "{error} should say {expected}");
    }
}

#[test]
fn what_is_said_of_a_quota_is_short_text() {
    let accept = |quota: QuotaState| {
        let sample = proto::PodSample { quota: Some(quota), ..sample(0) };
        let report =
            proto::Report { sequence: 1, pods: vec![told(0, "1")], samples: vec![sample], ..Default::default() };
        Session::default().accept(request(report))
    };
    let fits = quota_state(&vec!["x".repeat(REASON_BYTES).as_str(); UNENFORCED_PER_POD]);
    let accepted = accept(fits.clone()).expect("within the limits");
    assert_eq!(accepted.readings.first().and_then(PodReading::quota), Some(&fits));
    for wrong in [
        quota_state(&vec!["x"; UNENFORCED_PER_POD + 1]),
        quota_state(&["x".repeat(REASON_BYTES + 1).as_str()]),
        quota_state(&["two\nlines"]),
        QuotaState { refused: "x".repeat(REASON_BYTES + 1), ..quota_state(&[]) },
    ] {
        assert_eq!(accept(wrong), Err(Malformed::Quota(0)));
    }
}

#[test]
fn samples_with_long_reasons_fit_into_a_message() {
    let long = "x".repeat(REASON_BYTES);
    let pods: Vec<_> = (0..40)
        .map(|n| {
            let quota = quota_state(&vec![long.as_str(); UNENFORCED_PER_POD]);
            reading(&pod(&format!("p{n}"), &format!("u{n}"), &["a"]), 1).with(None, Some(quota))
        })
        .collect();
    let encoded = Encoder::default().encode(&snapshot(1, pods));
    assert!(request(encoded.report).encoded_len() <= MESSAGE_BYTES);
    assert!(encoded.left_out > 0);
}

#[test]
fn the_containers_of_all_pods_are_bounded() {
    let mut session = Session::default();
    let full = |index: u32| {
        let container = |n| proto::Container { name: format!("c{n}"), id: "x".to_owned() };
        proto::Pod { containers: (0..CONTAINERS_PER_POD).map(container).collect(), ..told(index, &index.to_string()) }
    };
    let most = u32::try_from(CONTAINERS / CONTAINERS_PER_POD).expect("small");
    let report = |sequence, pods| request(proto::Report { sequence, pods, ..proto::Report::default() });
    session.accept(report(1, (0..most).map(full).collect())).expect("as many as may be");
    // The same ones again are not more.
    session.accept(report(2, (0..most).map(full).collect())).expect("as many as may be");
    assert_eq!(session.accept(report(3, vec![full(most)])), Err(Malformed::TooManyContainers));
}

#[test]
fn an_index_that_is_taken_over_ends_its_pod() {
    let mut session = Session::default();
    let report = |sequence, pods| request(proto::Report { sequence, pods, ..proto::Report::default() });
    session.accept(report(1, vec![told(0, "1")])).expect("in order");
    let again = session.accept(report(2, vec![told(0, "1")])).expect("in order");
    assert!(again.gone.is_empty(), "told again, it is the same pod");
    let other = session.accept(report(3, vec![told(0, "2")])).expect("in order");
    assert_eq!(other.gone.iter().map(|pod| pod.uid()).collect::<Vec<_>>(), ["1"]);
    assert_eq!(session.size(), (1, 1));
}

#[test]
fn a_sender_says_who_it_is_first() {
    let hello = |node: &str, boot_id: &str| {
        let hello = proto::Hello { node: node.to_owned(), boot_id: boot_id.to_owned() };
        Sender::from_first(StreamRequest { message: Some(stream_request::Message::Hello(hello)) })
    };
    let sender = hello("node-1", "3f1c-9").expect("valid");
    assert_eq!((&*sender.node, &*sender.boot_id), ("node-1", "3f1c-9"));
    for (node, boot_id) in [("", "b"), ("n", ""), ("N", "b"), ("n", "a b"), ("n/1", "b")] {
        assert!(hello(node, boot_id).is_err(), "{node} {boot_id}");
    }
    assert_eq!(Sender::from_first(StreamRequest { message: None }), Err(Malformed::Order));
    assert_eq!(Sender::from_first(request(proto::Report::default())), Err(Malformed::Order));
}

prop_compose! {
    fn any_counters()(
        cpu_usage_usec: u64, memory_working_set_bytes: u64,
        throttling in prop::option::of(any::<[u64; 3]>()), pressure in prop::option::of(any::<[u64; 6]>()),
    ) -> Counters {
        Counters {
            cpu_usage_usec,
            memory_working_set_bytes,
            throttling: throttling.map(|[nr_periods, nr_throttled, throttled_usec]| {
                Throttling { nr_periods, nr_throttled, throttled_usec }
            }),
            pressure: pressure.map(|[a, b, c, d, e, f]| Pressure {
                cpu_some_usec: a, cpu_full_usec: b, memory_some_usec: c,
                memory_full_usec: d, io_some_usec: e, io_full_usec: f,
            }),
        }
    }
}

/// The pods of a small node: by number, with the restarts of its containers.
fn any_node() -> impl Strategy<Value = BTreeMap<u8, Vec<(u8, Counters)>>> {
    prop::collection::btree_map(0_u8..8, prop::collection::vec((0_u8..2, any_counters()), 0..3), 0..6)
}

fn readings(node: &BTreeMap<u8, Vec<(u8, Counters)>>) -> Vec<PodReading> {
    node.iter()
        .map(|(number, containers)| {
            let identities = containers
                .iter()
                .enumerate()
                .map(|(n, (life, _))| ContainerIdentity::new(format!("c{n}"), format!("life-{life}")).expect("valid"));
            let pod = PodIdentity::new("shop", format!("p{number}"), format!("u{number}"), identities).expect("valid");
            let counters: Vec<_> = containers.iter().map(|(_, counters)| *counters).collect();
            let totals = counters.first().map(|first| PodTotals {
                cpu_usage_usec: Some(first.cpu_usage_usec),
                oom_kills: (number % 2 == 0).then_some(1),
                ..PodTotals::default()
            });
            let quota = (number % 3 == 0).then(|| quota_state(&["because"]));
            PodReading::new(Arc::new(pod), counters).expect("as many as containers").with(totals, quota)
        })
        .collect()
}

/// A report whose numbers are near to valid ones, so that it comes past the first check.
fn any_report() -> impl Strategy<Value = proto::Report> {
    let pod = (0_u32..6, "[a-z]{0,3}", "[a-z0-9]{0,2}", prop::collection::vec("[a-z]{0,2}", 0..3)).prop_map(
        |(index, name, uid, containers)| proto::Pod {
            index,
            namespace: "shop".to_owned(),
            name,
            uid,
            containers: containers.into_iter().map(|id| proto::Container { name: "main".to_owned(), id }).collect(),
        },
    );
    let sample = (0_u32..6, prop::collection::vec(any_counters(), 0..3))
        .prop_map(|(pod, containers)| proto::PodSample { pod, containers, ..proto::PodSample::default() });
    let parts = (
        any::<u64>(),
        any::<u64>(),
        any::<i64>(),
        prop::collection::vec(pod, 0..4),
        prop::collection::vec(0_u32..6, 0..2),
        prop::collection::vec(sample, 0..4),
    );
    parts.prop_map(|(sequence, monotonic_usec, unix_usec, pods, gone, samples)| proto::Report {
        sequence,
        monotonic_usec,
        unix_usec,
        pods,
        gone,
        samples,
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Over the wire and back again nothing changes, whichever snapshots are never sent.
    #[test]
    fn a_stream_carries_what_was_read(nodes in prop::collection::vec((any_node(), any::<bool>()), 1..12)) {
        let (mut encoder, mut session) = (Encoder::default(), Session::default());
        for (second, (node, sent)) in nodes.into_iter().enumerate() {
            if !sent {
                continue;
            }
            let read = readings(&node);
            let encoded = encoder.encode(&snapshot(second as u64, read.clone()));
            prop_assert_eq!(encoded.left_out, 0);
            let bytes = request(encoded.report).encode_to_vec();
            let accepted = session.accept(StreamRequest::decode(bytes.as_slice()).expect("our own message")).expect("our own stream");
            prop_assert_eq!(accepted.readings, read);
            prop_assert_eq!(accepted.taken, Duration::from_secs(second as u64));
            let containers = node.values().map(Vec::len).sum();
            prop_assert_eq!(session.size(), (node.len(), containers));
        }
    }

    #[test]
    fn no_bytes_panic(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..10)) {
        let mut session = Session::default();
        for bytes in messages {
            if let Ok(message) = StreamRequest::decode(bytes.as_slice()) {
                let _ = Sender::from_first(message.clone());
                let _ = session.accept(message);
            }
        }
    }

    /// Valid messages with some bytes changed come further into the decoder than random ones.
    #[test]
    fn no_damaged_message_panics(
        reports in prop::collection::vec(any_report(), 1..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut session = Session::default();
        for report in reports {
            let mut bytes = request(report).encode_to_vec();
            for (index, value) in &damage {
                let position = index.index(bytes.len());
                bytes[position] = *value;
            }
            if let Ok(message) = StreamRequest::decode(bytes.as_slice()) {
                let _ = session.accept(message);
            }
        }
    }

    #[test]
    fn no_report_panics_and_memory_is_bounded(reports in prop::collection::vec(any_report(), 1..30)) {
        let mut session = Session::default();
        let mut sequence = 0_u64;
        for mut report in reports {
            sequence += report.sequence % 3;
            report.sequence = sequence;
            if let Ok(accepted) = session.accept(request(report)) {
                prop_assert!(accepted.readings.len() <= 6);
            }
            let (pods, containers) = session.size();
            prop_assert!(pods <= 6 && containers <= 18);
        }
    }
}
