//! From a quota to what each file of a container's cgroup should say.
//!
//! Only files that neither the kubelet nor the runtime keeps for itself: cpu.max and memory.max are theirs, and so are
//! the cgroups of pods and QoS classes, but for cpu.max.burst, which nobody else writes: see [`burst_above`].

use std::{collections::BTreeMap, fmt};

use catamaran_protocol::node_quota::{DeviceNumber, IoLimits, NodeQuota};
use catamaran_protocol::stream::proto::Knob;

use crate::{
    devices::{self, Device},
    files::{CpuMax, number},
};

/// One value that the agent may set. The order is the one of writing: what stops processes comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// cpu.max.burst
    CpuBurst,
    /// cpu.weight
    CpuWeight,
    /// memory.high
    MemoryHigh,
    /// memory.swap.max
    MemorySwapMax,
    /// pids.max
    PidsMax,
    /// One number of a device's line in io.max
    Io(DeviceNumber, IoField),
    /// cgroup.freeze
    Freeze,
}

/// A number of a line of io.max.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IoField {
    /// `rbps`: bytes read in a second.
    ReadBytes,
    /// `wbps`: bytes written in a second.
    WriteBytes,
    /// `riops`: reads in a second.
    ReadOperations,
    /// `wiops`: writes in a second.
    WriteOperations,
}

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A number.
    At(u64),
    /// `max`: none.
    Max,
}

/// What a container is to be held to, and what of it cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What each slot should say.
    pub slots: BTreeMap<Slot, Limit>,
    /// What cannot be asked of this node or container.
    pub impossible: Vec<(Knob, String)>,
}

/// What has to be known of a container and its node.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// cpu.max of the container, where there is one.
    pub cpu_max: Option<CpuMax>,
    /// The CPU limit that its pod asks for, in millicores: before a resize reaches the kernel it is another than
    /// cpu.max.
    pub cpu_limit_millicores: Option<u64>,
    /// The disks of the node.
    pub devices: &'a [Device],
    /// Bytes of a page: memory is counted in pages.
    pub page: u64,
}

impl IoField {
    /// The name in io.max.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::ReadBytes => "rbps",
            Self::WriteBytes => "wbps",
            Self::ReadOperations => "riops",
            Self::WriteOperations => "wiops",
        }
    }

    /// The numbers of an entry.
    pub fn of_limits(entry: &IoLimits) -> impl Iterator<Item = (Self, u64)> {
        let IoLimits { device: _, rbps, wbps, riops, wiops } = entry;
        let fields = [
            (Self::ReadBytes, rbps),
            (Self::WriteBytes, wbps),
            (Self::ReadOperations, riops),
            (Self::WriteOperations, wiops),
        ];
        fields.into_iter().filter_map(|(field, value)| Some((field, value.as_ref()?.get())))
    }

    fn from_key(key: &str) -> Option<Self> {
        let all = [Self::ReadBytes, Self::WriteBytes, Self::ReadOperations, Self::WriteOperations];
        all.into_iter().find(|field| field.key() == key)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(value) => value.fmt(f),
            Self::Max => f.write_str("max"),
        }
    }
}

impl Limit {
    /// A number or `max`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "max" { Some(Self::Max) } else { number(text).map(Self::At) }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file())?;
        match self {
            Self::Io(device, field) => write!(f, " {device} {}", field.key()),
            Self::CpuBurst
            | Self::CpuWeight
            | Self::MemoryHigh
            | Self::MemorySwapMax
            | Self::PidsMax
            | Self::Freeze => Ok(()),
        }
    }
}

impl Slot {
    /// The file.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::CpuBurst => "cpu.max.burst",
            Self::CpuWeight => "cpu.weight",
            Self::MemoryHigh => "memory.high",
            Self::MemorySwapMax => "memory.swap.max",
            Self::PidsMax => "pids.max",
            Self::Io(..) => "io.max",
            Self::Freeze => "cgroup.freeze",
        }
    }

    /// The word of the usage protocol for it.
    #[must_use]
    pub fn knob(self) -> Knob {
        match self {
            Self::CpuBurst => Knob::CpuBurst,
            Self::CpuWeight => Knob::CpuWeight,
            Self::MemoryHigh => Knob::MemoryHigh,
            Self::MemorySwapMax => Knob::MemorySwapMax,
            Self::PidsMax => Knob::PidsMax,
            Self::Io(..) => Knob::IoMax,
            Self::Freeze => Knob::Freeze,
        }
    }

    /// The reverse of its text: `pids.max`, `io.max 8:0 rbps`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain =
            [Self::CpuBurst, Self::CpuWeight, Self::MemoryHigh, Self::MemorySwapMax, Self::PidsMax, Self::Freeze];
        if let Some(slot) = plain.into_iter().find(|slot| slot.file() == text) {
            return Some(slot);
        }
        let (device, key) = text.strip_prefix("io.max ")?.split_once(' ')?;
        Some(Self::Io(device.parse().ok()?, IoField::from_key(key)?))
    }

    /// What the file's text says about it; `None` when that is no value.
    #[must_use]
    pub fn read(self, text: &str) -> Option<Limit> {
        let Self::Io(device, field) = self else { return Limit::parse(text.trim_ascii()) };
        let device = device.to_string();
        let line = text.lines().find_map(|line| line.strip_prefix(device.as_str())?.strip_prefix(' '));
        // A device without limits has no line.
        let Some(line) = line else { return Some(Limit::Max) };
        let value = line.split_ascii_whitespace().find_map(|pair| pair.strip_prefix(field.key())?.strip_prefix('='));
        value.map_or(Some(Limit::Max), Limit::parse)
    }

    /// What to write into the file.
    #[must_use]
    pub fn line(self, limit: Limit) -> String {
        match self {
            Self::Io(device, field) => format!("{device} {}={limit}", field.key()),
            Self::CpuBurst
            | Self::CpuWeight
            | Self::MemoryHigh
            | Self::MemorySwapMax
            | Self::PidsMax
            | Self::Freeze => limit.to_string(),
        }
    }

    /// What the kernel makes of a value: memory in whole pages, rounded down.
    #[must_use]
    pub fn kept(self, limit: Limit, page: u64) -> Limit {
        match (self, limit) {
            (Self::MemoryHigh | Self::MemorySwapMax, Limit::At(bytes)) => {
                Limit::At(bytes.saturating_sub(bytes.checked_rem(page).unwrap_or_default()))
            }
            (
                Self::MemoryHigh
                | Self::MemorySwapMax
                | Self::CpuBurst
                | Self::CpuWeight
                | Self::PidsMax
                | Self::Io(..)
                | Self::Freeze,
                limit,
            ) => limit,
        }
    }

    /// Whether the runtime sets it at a resize: then what it wrote last is what there was before us, else what was
    /// found first.
    #[must_use]
    pub fn follows_the_runtime(self) -> bool {
        match self {
            // The kubelet writes memory.high with MemoryQoS (on by default from Kubernetes 1.37), and memory.swap.max
            // with swap.
            Self::CpuWeight | Self::MemoryHigh | Self::MemorySwapMax => true,
            Self::CpuBurst | Self::PidsMax | Self::Io(..) | Self::Freeze => false,
        }
    }
}

/// What a container is held to by its pod's quota. Every container is frozen with its pod; the rest is for the one that
/// the quota names.
#[must_use]
pub fn wanted(quota: &NodeQuota, container: &str, facts: &Facts<'_>) -> Wanted {
    let NodeQuota {
        container: named,
        cpu_burst_usec,
        cpu_weight,
        memory_high_bytes,
        memory_swap_max_bytes,
        pids_max,
        io,
        frozen,
    } = quota;
    let mut wanted = Wanted::default();
    if *frozen {
        wanted.slots.insert(Slot::Freeze, Limit::At(1));
    }
    if named != container {
        return wanted;
    }
    if let Some(asked) = cpu_burst_usec {
        match burst(*asked, facts) {
            Ok(Burst { usec, above_limit }) => {
                wanted.slots.insert(Slot::CpuBurst, Limit::At(usec));
                if above_limit {
                    let reason = format!("{asked} us are above the CPU limit; held at {usec} us");
                    wanted.impossible.push((Knob::CpuBurst, reason));
                }
            }
            Err(reason) => wanted.impossible.push((Knob::CpuBurst, reason.to_owned())),
        }
    }
    for (slot, value) in [
        (Slot::CpuWeight, cpu_weight),
        (Slot::MemoryHigh, memory_high_bytes),
        (Slot::MemorySwapMax, memory_swap_max_bytes),
        (Slot::PidsMax, pids_max),
    ] {
        if let Some(value) = value {
            wanted.slots.insert(slot, slot.kept(Limit::At(*value), facts.page));
        }
    }
    let (limits, unknown) = devices::resolve(io, facts.devices);
    wanted.slots.extend(limits.into_iter().map(|((device, field), value)| (Slot::Io(device, field), Limit::At(value))));
    let unknown = unknown.into_iter().map(|name| (Knob::IoMax, format!("the node has no disk {}", name.as_str())));
    wanted.impossible.extend(unknown);
    wanted
}

/// How much burst the kernel takes now.
struct Burst {
    usec: u64,
    /// More is asked for than the limit that the pod asks for. Otherwise what is missing comes with the kubelet's next
    /// cpu.max.
    above_limit: bool,
}

/// The burst that the kernel takes: not above the quota in cpu.max. And not above what the pod asks for, either,
/// because a burst above a *new* limit keeps the kubelet from setting it: lowered here, a resize goes through within a
/// second.
fn burst(asked: u64, facts: &Facts<'_>) -> Result<Burst, &'static str> {
    let cpu_max = facts.cpu_max.ok_or("the container has no cpu.max")?;
    let quota = cpu_max.quota_usec.ok_or("without a CPU limit there is no burst")?;
    let asked_limit = facts.cpu_limit_millicores.map(|limit| limit.saturating_mul(cpu_max.period_usec) / 1000);
    let limit = asked_limit.unwrap_or(quota);
    Ok(Burst { usec: asked.min(quota).min(limit), above_limit: asked > limit })
}

/// cpu.max.burst of a cgroup above the one whose burst it is, such as the pod's own. The kubelet gives the pod the sum
/// of its containers' limits as its cpu.max, and without a burst there it would stop the container at the limit that
/// the container's burst lets it pass.
#[must_use]
pub fn burst_above(below: Option<Limit>, cpu_max: Option<CpuMax>) -> Option<u64> {
    match (below?, cpu_max?.quota_usec?) {
        (Limit::At(burst), quota) => Some(burst.min(quota)),
        (Limit::Max, _) => None,
    }
}
