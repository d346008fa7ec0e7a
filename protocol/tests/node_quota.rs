//! The annotation for the node agent: what is taken, what is refused, and that nothing panics.

use catamaran_protocol::node_quota::{IoDevice, MAX_BYTES, MAX_DEVICES, NodeQuota, Refused, fingerprint};
use proptest::prelude::*;

const FULL: &str = concat!(
    r#"{"container":"main","cpuBurstUsec":50000,"cpuWeight":300,"memoryHighBytes":469762048,"memorySwapMaxBytes":0,"#,
    r#""pidsMax":512,"io":[{"device":"*","rbps":52428800,"wiops":500},{"device":"8:16","wbps":1048576},"#,
    r#"{"device":"vda","riops":1}],"frozen":true}"#
);

#[test]
fn every_field_goes_there_and_back() {
    let quota = NodeQuota::parse(FULL).expect("a quota");
    assert_eq!((quota.cpu_burst_usec, quota.cpu_weight, quota.pids_max), (Some(50_000), Some(300), Some(512)));
    assert_eq!((quota.memory_high_bytes, quota.memory_swap_max_bytes), (Some(448 << 20), Some(0)));
    assert!(quota.frozen && quota.io.len() == 3);
    assert_eq!(quota.to_annotation(), FULL);
    let least = NodeQuota { container: "main".to_owned(), ..NodeQuota::default() };
    assert_eq!(least.to_annotation(), r#"{"container":"main"}"#);
    assert_eq!(NodeQuota::parse(r#"{"container":"main"}"#), Ok(least));
}

#[test]
fn what_is_wrong_is_refused_by_its_name() {
    let io = |entry: &str| format!(r#"{{"container":"main","io":[{entry}]}}"#);
    let with = |field: &str| format!(r#"{{"container":"main",{field}}}"#);
    let many: Vec<_> = (0..=MAX_DEVICES).map(|n| format!(r#"{{"device":"8:{n}","rbps":1}}"#)).collect();
    for (text, named) in [
        (String::new(), "JSON object"),
        ("null".to_owned(), "JSON object"),
        (r#"["main"]"#.to_owned(), "JSON object"),
        ("{".to_owned(), "EOF"),
        (format!("{FULL} {FULL}"), "trailing"),
        ("{\"io\":".to_owned() + &"[".repeat(MAX_BYTES - 6), "io[0]"),
        (" ".repeat(MAX_BYTES + 1), "4096 bytes"),
        (r#"{"cpuWeight":1}"#.to_owned(), "container"),
        (r#"{"container":"../main"}"#.to_owned(), "container"),
        (r#"{"container":""}"#.to_owned(), "container"),
        (with(r#""shell":"rm""#), "shell"),
        (with(r#""cpuWeight":0"#), "cpuWeight: 0 is not between 1 and 10000"),
        (with(r#""cpuWeight":10001"#), "cpuWeight"),
        (with(r#""cpuWeight":-1"#), "cpuWeight"),
        (with(r#""cpuWeight":1.5"#), "cpuWeight"),
        (with(r#""cpuWeight":"1""#), "cpuWeight"),
        (with(r#""cpuWeight":1,"cpuWeight":2"#), "cpuWeight"),
        (with(r#""cpuBurstUsec":1000000001"#), "cpuBurstUsec"),
        (with(r#""cpuBurstUsec":99999999999999999999999"#), "cpuBurstUsec"),
        (with(r#""memoryHighBytes":1"#), "memoryHighBytes"),
        (with(r#""memoryHighBytes":1e400"#), "memoryHighBytes"),
        (with(r#""memorySwapMaxBytes":18446744073709551615"#), "memorySwapMaxBytes"),
        (with(r#""pidsMax":0"#), "pidsMax"),
        (with(r#""pidsMax":4194305"#), "pidsMax"),
        (with(r#""frozen":1"#), "frozen"),
        (io(r#"{"rbps":1}"#), "io[0]"),
        (io(r#"{"device":"vda"}"#), "io[0]: needs one of"),
        (io(r#"{"device":"vda","rbps":0}"#), "io[0].rbps"),
        (io(r#"{"device":"vda","riops":4294967295}"#), "io[0].riops"),
        (io(r#"{"device":"vda","rbps":1},{"device":"vda","wbps":1}"#), "io[1].device"),
        (io(r#"{"device":"/dev/vda","rbps":1}"#), "io[0].device"),
        (io(r#"{"device":"../../sda","rbps":1}"#), "io[0].device"),
        (io(r#"{"device":"8:0 rbps=max\n8:16","rbps":1}"#), "io[0].device"),
        (io(r#"{"device":"8:0:0","rbps":1}"#), "io[0].device"),
        (io(r#"{"device":"+8:0","rbps":1}"#), "io[0].device"),
        (io(r#"{"device":"4096:0","rbps":1}"#), "io[0].device"),
        (io(r#"{"device":"","rbps":1}"#), "io[0].device"),
        (io(r#"{"device":".","rbps":1}"#), "io[0].device"),
        (io(&many.join(",")), "io: more than"),
    ] {
        let error = NodeQuota::parse(&text).expect_err(&text).to_string();
        assert!(error.contains(named), "{text:.80}: {error} should name {named}");
    }
}

#[test]
fn a_fingerprint_is_of_the_text() {
    // printf %s abc | sha256sum
    assert_eq!(fingerprint("abc"), 0xba78_16bf_8f01_cfea);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any text is taken or refused; what is said about it is short and without control characters.
    #[test]
    fn no_text_panics(text in any::<String>()) {
        if let Err(error) = NodeQuota::parse(&text) {
            let error = error.to_string();
            prop_assert!(error.len() <= 256 && !error.chars().any(char::is_control), "{error}");
        }
    }

    /// Texts that are nearly right come further.
    #[test]
    fn no_damaged_annotation_panics(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 1..4),
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (index, c) in damage {
            let index = index.index(text.len());
            text[index] = c;
        }
        let text: String = text.into_iter().collect();
        match NodeQuota::parse(&text) {
            // What is taken is within the limits, and is the same once more.
            Ok(quota) => {
                prop_assert_eq!(quota.check(), Ok(()));
                prop_assert_eq!(NodeQuota::parse(&quota.to_annotation()), Ok(quota));
            }
            Err(error) => {
                let error = error.to_string();
                prop_assert!(error.len() <= 256 && !error.chars().any(char::is_control), "{error}");
            }
        }
    }

    #[test]
    fn a_device_is_no_path(text in any::<String>()) {
        if let Ok(device) = text.parse::<IoDevice>() {
            prop_assert!(!text.contains(['/', '.', ' ', '\n']));
            prop_assert_eq!(device.to_string().parse::<IoDevice>(), Ok(device));
        }
    }
}

#[test]
fn the_length_is_looked_at_first() {
    assert_eq!(NodeQuota::parse(&"x".repeat(1 << 20)), Err(Refused::TooLong));
}
