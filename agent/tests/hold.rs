//! One cgroup held to its quota, on a kernel that checks and rounds as the real one does.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    rc::Rc,
};

use catamaran_agent::{
    cgroup::CgroupFiles,
    files::{self, CpuMax},
    hold::{Holder, Outcome, Why},
    knobs::{self, Facts, IoField, Limit, Slot, wanted},
};
use catamaran_protocol::node_quota::NodeQuota;
use catamaran_protocol::stream::proto::Knob;
use proptest::prelude::*;
use rustix::io::Errno;

const PAGE: u64 = 4096;

/// The files of one cgroup. Clones are the same one.
#[derive(Clone, Debug)]
struct Kernel(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    values: BTreeMap<&'static str, Limit>,
    cpu_max: Option<u64>,
    io: BTreeMap<Slot, u64>,
    devices: BTreeSet<&'static str>,
    note: String,
    takes_notes: bool,
    freezes: bool,
}

impl Kernel {
    /// As a runtime leaves a container with a limit of half a core.
    fn new() -> Self {
        let values = [
            ("cpu.max.burst", Limit::At(0)),
            ("cpu.weight", Limit::At(20)),
            ("memory.high", Limit::Max),
            ("memory.swap.max", Limit::At(0)),
            ("pids.max", Limit::Max),
            ("cgroup.freeze", Limit::At(0)),
        ];
        Self(Rc::new(RefCell::new(State {
            values: values.into(),
            cpu_max: Some(50_000),
            io: BTreeMap::new(),
            devices: ["8:0", "8:16"].into(),
            note: String::new(),
            takes_notes: true,
            freezes: true,
        })))
    }

    fn state(&self) -> std::cell::RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// Everything that a quota can change.
    fn all(&self) -> (BTreeMap<&'static str, Limit>, BTreeMap<Slot, u64>) {
        let state = self.state();
        (state.values.clone(), state.io.clone())
    }

    fn facts(&self) -> Facts<'static> {
        let cpu_max = Some(CpuMax { quota_usec: self.state().cpu_max, period_usec: 100_000 });
        Facts { cpu_max, cpu_limit_millicores: None, devices: &[], page: PAGE }
    }
}

impl CgroupFiles for Kernel {
    fn text(&self, file: &'static str) -> io::Result<Option<String>> {
        let state = self.state();
        if file == "cgroup.events" {
            let frozen = state.freezes && state.values.get("cgroup.freeze") == Some(&Limit::At(1));
            return Ok(Some(format!("populated 1\nfrozen {}\n", u8::from(frozen))));
        }
        if file == "io.max" {
            let devices: BTreeSet<_> = state.io.keys().filter_map(device_of).collect();
            let line = |device: &String| {
                let value = |field: IoField| {
                    let slot = Slot::Io(device.parse().expect("a device"), field);
                    state.io.get(&slot).map_or("max".to_owned(), u64::to_string)
                };
                let [r, w, ro, wo] = FIELDS.map(value);
                format!("{device} rbps={r} wbps={w} riops={ro} wiops={wo}\n")
            };
            return Ok(Some(devices.iter().map(line).collect()));
        }
        Ok(state.values.get(file).map(|limit| format!("{limit}\n")))
    }

    fn write(&self, file: &'static str, text: &str) -> io::Result<()> {
        let mut state = self.state();
        if file == "io.max" {
            let (device, pair) = text.split_once(' ').ok_or(Errno::INVAL)?;
            if !state.devices.contains(device) {
                return Err(Errno::NODEV.into());
            }
            let (key, value) = pair.split_once('=').ok_or(Errno::INVAL)?;
            let field = FIELDS.into_iter().find(|field| field.key() == key).ok_or(Errno::INVAL)?;
            let slot = Slot::Io(device.parse().expect("a device"), field);
            match Limit::parse(value).ok_or(Errno::INVAL)? {
                Limit::Max => state.io.remove(&slot),
                Limit::At(0) => return Err(Errno::RANGE.into()),
                Limit::At(value) => state.io.insert(slot, value),
            };
            return Ok(());
        }
        let limit = Limit::parse(text.trim_end()).ok_or(Errno::INVAL)?;
        let quota = state.cpu_max;
        let kept = match (file, limit) {
            ("cpu.max.burst", Limit::At(burst)) if quota.is_none_or(|quota| burst <= quota) => limit,
            ("cpu.weight", Limit::At(1..=10_000)) | ("cgroup.freeze", Limit::At(0 | 1)) | ("pids.max", _) => limit,
            ("memory.high" | "memory.swap.max", Limit::At(bytes)) => Limit::At(bytes / PAGE * PAGE),
            ("memory.high" | "memory.swap.max", Limit::Max) => limit,
            _ => return Err(Errno::INVAL.into()),
        };
        *state.values.get_mut(file).ok_or(Errno::NOENT)? = kept;
        Ok(())
    }

    fn note(&self) -> io::Result<String> {
        Ok(self.state().note.clone())
    }

    fn set_note(&self, text: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.takes_notes {
            return Err(Errno::OPNOTSUPP.into());
        }
        state.note = text.to_owned();
        Ok(())
    }
}

const FIELDS: [IoField; 4] =
    [IoField::ReadBytes, IoField::WriteBytes, IoField::ReadOperations, IoField::WriteOperations];

fn device_of(slot: &Slot) -> Option<String> {
    if let Slot::Io(device, _) = slot { Some(device.to_string()) } else { None }
}

fn quota(fields: &str) -> NodeQuota {
    NodeQuota::parse(&format!(r#"{{"container":"main"{fields}}}"#)).expect("a quota")
}

const FULL: &str = concat!(
    r#","cpuBurstUsec":30000,"cpuWeight":300,"memoryHighBytes":1048577,"memorySwapMaxBytes":8192,"pidsMax":64,"#,
    r#""io":[{"device":"8:0","rbps":1000,"wbps":2000,"riops":30,"wiops":40},{"device":"8:16","wbps":5}],"frozen":true"#
);

fn step(holder: &mut Holder<Kernel>, quota: &NodeQuota) -> Outcome {
    let facts = holder.files().facts();
    holder.step(&wanted(quota, "main", &facts).slots)
}

#[test]
fn every_knob_is_applied_reasserted_and_undone() {
    let kernel = Kernel::new();
    let before = kernel.all();
    let mut holder = Holder::open(kernel.clone());
    let outcome = step(&mut holder, &quota(FULL));
    assert_eq!(outcome.failures, []);
    assert!(outcome.writes.len() == 11 && outcome.writes.iter().all(|(_, why)| *why == Why::Apply), "{outcome:?}");
    let held = kernel.all();
    assert_eq!(held.0.get("memory.high"), Some(&Limit::At(1 << 20)), "in whole pages");
    assert_eq!((held.0.get("cpu.max.burst"), held.1.len()), (Some(&Limit::At(30_000)), 5));
    // Nothing is written while nothing differs, rounded values included.
    assert_eq!(step(&mut holder, &quota(FULL)), Outcome::default());

    for (file, text) in [
        ("cpu.max.burst", "0"),
        ("cpu.weight", "1"),
        ("memory.high", "max"),
        ("memory.swap.max", "max"),
        ("pids.max", "5"),
        ("cgroup.freeze", "0"),
        ("io.max", "8:0 wbps=max"),
    ] {
        kernel.write(file, text).expect("somebody else writes");
        let outcome = step(&mut holder, &quota(FULL));
        assert_eq!(
            outcome.writes.iter().map(|(slot, why)| (slot.file(), *why)).collect::<Vec<_>>(),
            [(file, Why::Reassert)]
        );
        assert_eq!((outcome.failures.len(), kernel.all()), (0, held.clone()), "{file}");
    }

    let outcome = holder.step(&BTreeMap::new());
    assert!(outcome.writes.iter().all(|(_, why)| *why == Why::Undo), "{outcome:?}");
    let after = kernel.all();
    // What was found last is the runtime's: it writes these at a resize.
    assert_eq!(after.0.get("cpu.weight"), Some(&Limit::At(1)));
    assert_eq!(after.0.get("memory.swap.max"), Some(&Limit::Max));
    kernel.write("cpu.weight", "20").expect("a weight");
    kernel.write("memory.swap.max", "0").expect("a size");
    assert_eq!((kernel.all(), holder.held()), (before, 0));
    assert_eq!(kernel.note().expect("a note"), "");
}

#[test]
fn another_agent_knows_what_to_set_back() {
    let kernel = Kernel::new();
    let before = kernel.all();
    step(&mut Holder::open(kernel.clone()), &quota(FULL));
    assert_ne!(kernel.all(), before);
    // The quota went while no agent ran.
    let mut holder = Holder::open(kernel.clone());
    assert_eq!(holder.held(), 11);
    holder.step(&BTreeMap::new());
    assert_eq!((kernel.all(), kernel.note().expect("a note")), (before, String::new()));
}

#[test]
fn what_the_kubelet_writes_while_no_agent_runs_is_what_is_set_back() {
    for (file, at_first, since) in
        [("memory.high", "900000", "max"), ("memory.swap.max", "0", "4096"), ("cpu.weight", "20", "39")]
    {
        let kernel = Kernel::new();
        kernel.write(file, at_first).expect("MemoryQoS, swap and shares are the kubelet's");
        step(&mut Holder::open(kernel.clone()), &quota(FULL));
        // A resize, while the agent is being replaced.
        kernel.write(file, since).expect("the kubelet writes");
        let mut holder = Holder::open(kernel.clone());
        let outcome = step(&mut holder, &quota(FULL));
        assert_eq!(
            outcome.writes.iter().map(|(slot, why)| (slot.file(), *why)).collect::<Vec<_>>(),
            [(file, Why::Reassert)]
        );
        holder.step(&BTreeMap::new());
        assert_eq!(kernel.all().0.get(file), Limit::parse(since).as_ref(), "{file}");
    }
}

#[test]
fn a_note_of_an_agent_that_noted_less_is_read() {
    let kernel = Kernel::new();
    kernel.write("pids.max", "64").expect("a count");
    kernel.set_note("pids.max max\nio.max 8:0 rbps max\nnonsense 1 2 3\n").expect("a note");
    let mut holder = Holder::open(kernel.clone());
    assert_eq!(holder.held(), 2);
    holder.step(&BTreeMap::new());
    assert_eq!(kernel.all().0.get("pids.max"), Some(&Limit::Max));
}

#[test]
fn a_container_without_a_file_is_told_and_holds_the_rest() {
    let kernel = Kernel::new();
    kernel.state().values.remove("memory.swap.max");
    kernel.state().devices.remove("8:16");
    let mut holder = Holder::open(kernel.clone());
    let outcome = step(&mut holder, &quota(FULL));
    let failed: Vec<_> = outcome.failures.iter().map(|(slot, _)| slot.file()).collect();
    assert_eq!(failed, ["memory.swap.max", "io.max"]);
    assert!(outcome.failures.iter().all(|(_, reason)| !reason.is_empty()), "{outcome:?}");
    assert_eq!(kernel.all().0.get("pids.max"), Some(&Limit::At(64)));
    // What is gone needs no way back.
    let outcome = holder.step(&BTreeMap::new());
    assert_eq!((outcome.failures.len(), holder.held()), (0, 0));
}

#[test]
fn without_notes_quotas_are_held_all_the_same() {
    let kernel = Kernel::new();
    let before = kernel.all();
    kernel.state().takes_notes = false;
    let mut holder = Holder::open(kernel.clone());
    let outcome = step(&mut holder, &quota(FULL));
    assert!(outcome.failures.is_empty() && outcome.note_failed.is_some(), "{outcome:?}");
    holder.step(&BTreeMap::new());
    assert_eq!(kernel.all(), before);
}

#[test]
fn freezing_is_done_once_the_kernel_says_so() {
    let kernel = Kernel::new();
    kernel.state().freezes = false;
    let mut holder = Holder::open(kernel.clone());
    assert_eq!(step(&mut holder, &quota(r#","frozen":true"#)).failures.len(), 1);
    kernel.state().freezes = true;
    assert_eq!(step(&mut holder, &quota(r#","frozen":true"#)), Outcome::default());
}

#[test]
fn a_burst_never_keeps_the_kubelet_from_lowering_a_limit() {
    let kernel = Kernel::new();
    let asked = quota(r#","cpuBurstUsec":40000"#);
    let mut holder = Holder::open(kernel.clone());
    step(&mut holder, &asked);
    assert_eq!(kernel.all().0.get("cpu.max.burst"), Some(&Limit::At(40_000)));
    // The pod asks for 200m now; the kernel has the old limit, and would refuse the new one below the burst.
    let facts = Facts { cpu_limit_millicores: Some(200), ..kernel.facts() };
    let wanted = knobs::wanted(&asked, "main", &facts);
    assert_eq!(wanted.slots, [(Slot::CpuBurst, Limit::At(20_000))].into());
    assert_eq!(wanted.impossible.iter().map(|(knob, _)| *knob).collect::<Vec<_>>(), [Knob::CpuBurst]);
    assert_eq!(holder.step(&wanted.slots).failures, []);
    kernel.state().cpu_max = Some(20_000);
    assert_eq!(step(&mut holder, &asked), Outcome::default());
    // Raised again, the burst follows; until the kubelet has done it, there is nothing to tell.
    let facts = Facts { cpu_limit_millicores: Some(1000), ..kernel.facts() };
    let wanted = knobs::wanted(&asked, "main", &facts);
    assert_eq!((wanted.slots, wanted.impossible), ([(Slot::CpuBurst, Limit::At(20_000))].into(), Vec::new()));
    kernel.state().cpu_max = Some(100_000);
    assert_eq!(step(&mut holder, &asked).failures, []);
    assert_eq!(kernel.all().0.get("cpu.max.burst"), Some(&Limit::At(40_000)));
}

#[test]
fn no_limit_is_no_burst() {
    let asked = quota(r#","cpuBurstUsec":40000"#);
    let none = Facts { cpu_max: files::cpu_max("max 100000"), ..Kernel::new().facts() };
    let wanted = knobs::wanted(&asked, "main", &none);
    assert!(wanted.slots.is_empty() && wanted.impossible.len() == 1);
    let burst = Some(Limit::At(40_000));
    assert_eq!(knobs::burst_above(burst, files::cpu_max("50000 100000")), Some(40_000));
    assert_eq!(knobs::burst_above(burst, files::cpu_max("30000 100000")), Some(30_000));
    assert_eq!(knobs::burst_above(burst, files::cpu_max("max 100000")), None);
    assert_eq!(knobs::burst_above(None, files::cpu_max("50000 100000")), None);
}

#[test]
fn a_container_that_is_not_named_is_only_frozen() {
    let wanted = wanted(&quota(FULL), "sidecar", &Kernel::new().facts());
    assert_eq!(wanted.slots, [(Slot::Freeze, Limit::At(1))].into());
}

/// What may happen to a cgroup.
#[derive(Clone, Debug)]
enum Event {
    /// The quota is now this one.
    Quota(String),
    /// Somebody else writes.
    Foreign(&'static str, &'static str),
    /// The same while the agent is being replaced.
    WhileDown(&'static str, &'static str),
    /// The agent is killed and starts again.
    Restart,
}

fn any_event() -> impl Strategy<Value = Event> {
    let field = |text: &'static str| prop::option::of(Just(text)).prop_map(Option::unwrap_or_default);
    let fields = (
        prop::sample::select(vec!["", r#","cpuBurstUsec":30000"#, r#","cpuBurstUsec":90000"#]),
        prop::sample::select(vec!["", r#","memoryHighBytes":1048577"#, r#","memoryHighBytes":2097152"#]),
        field(r#","memorySwapMaxBytes":9000"#),
        prop::sample::select(vec!["", r#","pidsMax":64"#, r#","pidsMax":65"#]),
        prop::sample::select(vec![
            "",
            r#","io":[{"device":"8:0","rbps":1000}]"#,
            r#","io":[{"device":"8:0","wbps":7},{"device":"8:16","riops":5}]"#,
        ]),
        field(r#","frozen":true"#),
    );
    prop_oneof![
        fields.prop_map(|(a, b, c, d, e, f)| Event::Quota([a, b, c, d, e, f].concat())),
        (
            prop::sample::select(vec![
                ("cpu.max.burst", "100"),
                ("memory.high", "max"),
                ("memory.swap.max", "4096"),
                ("pids.max", "9"),
                ("cgroup.freeze", "0"),
                ("io.max", "8:0 rbps=77"),
                ("io.max", "8:16 riops=max"),
            ]),
            any::<bool>()
        )
            .prop_map(|((file, text), down)| match down {
                true => Event::WhileDown(file, text),
                false => Event::Foreign(file, text),
            }),
        Just(Event::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// After every step the kernel has what is asked; what nobody asks for is as it was found, unless somebody else
    /// changed it while the agent did not hold it.
    #[test]
    fn the_kernel_has_what_is_asked(events in prop::collection::vec(any_event(), 1..30)) {
        let kernel = Kernel::new();
        let (mut asked, mut holder) = (quota(""), Holder::open(kernel.clone()));
        // What each value is without the agent.
        let mut own = kernel.all();
        for event in events {
            match event {
                Event::Quota(fields) => asked = quota(&fields),
                Event::Restart => holder = Holder::open(kernel.clone()),
                Event::Foreign(file, text) | Event::WhileDown(file, text) => {
                    if let Event::WhileDown(..) = event {
                        holder = Holder::open(kernel.clone());
                    }
                    kernel.write(file, text).expect("a good value");
                    let held = wanted(&asked, "main", &kernel.facts()).slots;
                    if let Some((slot, value)) = text.split_once('=') {
                        let slot = Slot::parse(&format!("io.max {slot}")).expect("a slot");
                        match (held.contains_key(&slot), value.parse()) {
                            (true, _) => {}
                            (false, Ok(value)) => { own.1.insert(slot, value); }
                            (false, Err(_)) => { own.1.remove(&slot); }
                        }
                    } else {
                        let (slot, value) = (Slot::parse(file).expect("a slot"), Limit::parse(text).expect("a value"));
                        // What is written while it is held is put back, and counts as the runtime's own where it sets
                        // it.
                        let own_since = held.get(&slot).is_none_or(|held| slot.follows_the_runtime() && *held != value);
                        if own_since {
                            own.0.insert(file, value);
                        }
                    }
                }
            }
            let outcome = step(&mut holder, &asked);
            prop_assert_eq!(outcome.failures, []);
            let want = wanted(&asked, "main", &kernel.facts()).slots;
            let mut expected = own.clone();
            for (slot, limit) in &want {
                match (slot, limit) {
                    (Slot::Io(..), Limit::At(value)) => { expected.1.insert(*slot, *value); }
                    _ => { expected.0.insert(slot.file(), *limit); }
                }
            }
            prop_assert_eq!(kernel.all(), expected);
            prop_assert_eq!(holder.held(), want.len());
        }
    }
}
