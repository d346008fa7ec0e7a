//! What the operator tells the node agent about one pod: the part of its quota that nobody but the agent writes.
//!
//! It is the value of [`NODE_QUOTA_ANNOTATION`](catamaran_crds::names::NODE_QUOTA_ANNOTATION), as JSON. The units are
//! the kernel's, so that the agent computes nothing: what a quantity means is decided where the quota is. Anybody who
//! may edit a pod may write this annotation, so the agent takes it for hostile: [`NodeQuota::parse`].

use std::{collections::BTreeSet, fmt, num::NonZeroU64, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes of the annotation's text.
pub const MAX_BYTES: usize = 4096;
/// Devices that limits are given for.
pub const MAX_DEVICES: usize = 16;
/// 1 Pi: more memory than a node has, and more bytes a second than a device moves.
const MAX_SIZE: u64 = 1 << 50;
/// What 10,000 cores, the most that an ElasticWorkload may ask for, can save up in a period of 100 ms.
const MAX_BURST_USEC: u64 = 1_000_000_000;
/// The range of cpu.weight.
const MAX_WEIGHT: u64 = 10_000;
/// Less memory than that lets nothing run.
const MIN_MEMORY: u64 = 1 << 20;
/// The kernel's `PID_MAX_LIMIT`, on 64 bits.
const MAX_PIDS: u64 = 4 * 1024 * 1024;
/// The kernel keeps operations a second in 32 bits and takes the largest number for "no limit".
const MAX_OPERATIONS: u64 = (1 << 32) - 2;
/// The major number is 12 bits of the kernel's `dev_t`, the minor number 20.
const MAX_MAJOR: u32 = (1 << 12) - 1;
/// See [`MAX_MAJOR`].
const MAX_MINOR: u32 = (1 << 20) - 1;

/// The part of a pod's quota that the node agent enforces. What is absent is left alone, or set back if the agent had
/// set it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeQuota {
    /// The container that the quota is for, by its name in the pod; `compute` in the launcher of a virtual machine.
    pub container: String,
    /// cpu.max.burst: microseconds of CPU time that may be saved up and used above the limit. 50,000 are half a core
    /// over one period of 100 ms. The agent keeps it at or below the CPU limit, as the kernel asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_burst_usec: Option<u64>,
    /// cpu.weight: the share of CPU time under contention, from 1 to 10000; the kernel's default is 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u64>,
    /// memory.high: bytes above which the kernel reclaims the container's memory and slows it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_high_bytes: Option<u64>,
    /// memory.swap.max: bytes that may be swapped out; 0 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_swap_max_bytes: Option<u64>,
    /// pids.max: processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_max: Option<u64>,
    /// io.max: at most one entry for a device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub io: Vec<IoLimits>,
    /// cgroup.freeze: no process of the pod runs, in any of its containers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
}

/// Limits to what a container reads from and writes to a device, each second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoLimits {
    /// Which device.
    pub device: IoDevice,
    /// Bytes read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rbps: Option<NonZeroU64>,
    /// Bytes written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wbps: Option<NonZeroU64>,
    /// Reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub riops: Option<NonZeroU64>,
    /// Writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wiops: Option<NonZeroU64>,
}

/// A block device. Never a path: it is looked up among the devices of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IoDevice {
    /// `*`: every disk of the node that has no entry of its own.
    All,
    /// `8:0`.
    Number(DeviceNumber),
    /// `vda`.
    Name(DeviceName),
}

/// The number of a block device; its text is `MAJ:MIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    major: u32,
    minor: u32,
}

/// The name of a block device as in /sys/block: 1 to 32 letters, digits, `-` and `_`, the first one a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName(Box<str>);

/// A text that names no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a device is *, MAJ:MIN such as 8:0, or a name such as vda without /dev/")]
pub struct NotADevice;

/// Why an annotation is not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is too long.
    #[error("the annotation has more than {MAX_BYTES} bytes")]
    TooLong,
    /// It is no JSON, or not of this form.
    #[error("{field}: {message}")]
    Form {
        /// The path of the field; `.` is the whole text.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// A number is out of its range.
    #[error("{field}: {value} is not between {from} and {to}")]
    Range {
        /// The path of the field.
        field: String,
        /// Its value.
        value: u64,
        /// The least that it may be.
        from: u64,
        /// The most that it may be.
        to: u64,
    },
    /// The container's name is none.
    #[error("container: not the name of a container")]
    Container,
    /// There are too many entries.
    #[error("io: more than {MAX_DEVICES} devices")]
    TooManyDevices,
    /// An entry limits nothing.
    #[error("io[{0}]: needs one of rbps, wbps, riops, wiops")]
    NoLimit(usize),
    /// Two entries are for the same device.
    #[error("io[{0}].device: has an entry already")]
    Twice(usize),
}

impl NodeQuota {
    /// Reads the annotation's text.
    ///
    /// # Errors
    /// When it is too long, of another form, or has a value that no kernel takes. The text of the error is short, and
    /// has no control characters.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        if text.len() > MAX_BYTES {
            return Err(Refused::TooLong);
        }
        if !text.trim_start().starts_with('{') {
            // serde would take an array, too, for the fields in their order.
            return Err(Refused::Form { field: ".".to_owned(), message: "not a JSON object".to_owned() });
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let quota: Self = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let field = error.path().to_string();
            Refused::Form { field: shown(&field, 64), message: shown(&error.into_inner().to_string(), 160) }
        })?;
        let end = |error: serde_json::Error| Refused::Form { field: ".".to_owned(), message: error.to_string() };
        reader.end().map_err(end)?;
        quota.check()?;
        Ok(quota)
    }

    /// Checks what the types leave open: names and ranges.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), Refused> {
        let Self {
            container,
            cpu_burst_usec,
            cpu_weight,
            memory_high_bytes,
            memory_swap_max_bytes,
            pids_max,
            io,
            frozen: _,
        } = self;
        let label = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if container.is_empty() || container.len() > 63 || !container.bytes().all(label) {
            return Err(Refused::Container);
        }
        within("cpuBurstUsec", *cpu_burst_usec, 0, MAX_BURST_USEC)?;
        within("cpuWeight", *cpu_weight, 1, MAX_WEIGHT)?;
        within("memoryHighBytes", *memory_high_bytes, MIN_MEMORY, MAX_SIZE)?;
        within("memorySwapMaxBytes", *memory_swap_max_bytes, 0, MAX_SIZE)?;
        within("pidsMax", *pids_max, 1, MAX_PIDS)?;
        if io.len() > MAX_DEVICES {
            return Err(Refused::TooManyDevices);
        }
        let mut devices = BTreeSet::new();
        for (index, IoLimits { device, rbps, wbps, riops, wiops }) in io.iter().enumerate() {
            for (name, value, to) in [
                ("rbps", rbps, MAX_SIZE),
                ("wbps", wbps, MAX_SIZE),
                ("riops", riops, MAX_OPERATIONS),
                ("wiops", wiops, MAX_OPERATIONS),
            ] {
                within(&format!("io[{index}].{name}"), value.map(NonZeroU64::get), 1, to)?;
            }
            if [rbps, wbps, riops, wiops].into_iter().all(Option::is_none) {
                return Err(Refused::NoLimit(index));
            }
            if !devices.insert(device) {
                return Err(Refused::Twice(index));
            }
        }
        Ok(())
    }

    /// The text of the annotation.
    #[must_use]
    pub fn to_annotation(&self) -> String {
        // A struct of numbers and texts is always JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// By what the agent says which text of the annotation it speaks of: the first eight bytes of its SHA-256, big-endian.
#[must_use]
pub fn fingerprint(annotation: &str) -> u64 {
    let digest = Sha256::digest(annotation.as_bytes());
    digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

fn within(field: &str, value: Option<u64>, from: u64, to: u64) -> Result<(), Refused> {
    match value {
        Some(value) if value < from || value > to => Err(Refused::Range { field: field.to_owned(), value, from, to }),
        Some(_) | None => Ok(()),
    }
}

/// The beginning of a text that somebody else wrote, safe to show.
fn shown(text: &str, longest: usize) -> String {
    let mut shown = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if shown.len().saturating_add(c.len_utf8()) > longest {
            break;
        }
        shown.push(c);
    }
    shown
}

impl DeviceNumber {
    /// A device by its numbers; `None` when they are larger than the kernel's.
    #[must_use]
    pub fn new(major: u32, minor: u32) -> Option<Self> {
        (major <= MAX_MAJOR && minor <= MAX_MINOR).then_some(Self { major, minor })
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DeviceNumber {
    type Err = NotADevice;

    fn from_str(text: &str) -> Result<Self, NotADevice> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
            if digits { text.parse().map_err(|_| NotADevice) } else { Err(NotADevice) }
        };
        let (major, minor) = text.split_once(':').ok_or(NotADevice)?;
        Self::new(number(major)?, number(minor)?).ok_or(NotADevice)
    }
}

impl DeviceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceName {
    type Err = NotADevice;

    fn from_str(text: &str) -> Result<Self, NotADevice> {
        let character = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        let starts = text.bytes().next().is_some_and(|c| c.is_ascii_alphabetic());
        (starts && text.len() <= 32 && text.bytes().all(character)).then(|| Self(text.into())).ok_or(NotADevice)
    }
}

impl FromStr for IoDevice {
    type Err = NotADevice;

    fn from_str(text: &str) -> Result<Self, NotADevice> {
        match text {
            "*" => Ok(Self::All),
            text if text.contains(':') => text.parse().map(Self::Number),
            text => text.parse().map(Self::Name),
        }
    }
}

impl TryFrom<String> for IoDevice {
    type Error = NotADevice;

    fn try_from(text: String) -> Result<Self, NotADevice> {
        text.parse()
    }
}

impl From<IoDevice> for String {
    fn from(device: IoDevice) -> Self {
        device.to_string()
    }
}

impl fmt::Display for IoDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name.as_str()),
        }
    }
}
