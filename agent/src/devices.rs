//! The disks of the node, for io.max.

use std::{collections::BTreeMap, path::Path};

use catamaran_protocol::node_quota::{DeviceName, DeviceNumber, IoDevice, IoLimits};

use crate::{cgroup::Folder, files, knobs::IoField};

/// Kinds that `*` does not mean: memory, and what lies on another disk, whose limit counts for it already.
const NOT_DISKS: [&str; 4] = ["loop", "ram", "zram", "fd"];

/// A disk; parts of one are none, as io.max does not take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As in /sys/block.
    pub name: DeviceName,
    /// Its number.
    pub number: DeviceNumber,
    /// 512-byte sectors; 0 is a drive without a medium.
    pub sectors: u64,
}

impl Device {
    /// Whether `*` means this one.
    #[must_use]
    pub fn is_disk(&self) -> bool {
        let kind = self.name.as_str().trim_end_matches(|c: char| c.is_ascii_digit());
        self.sectors > 0 && !NOT_DISKS.contains(&kind)
    }
}

/// The devices in a folder such as /sys/block. What cannot be read is left out.
#[must_use]
pub fn list(sys_block: &Path) -> Vec<Device> {
    // Entries are symbolic links into /sys/devices, so they are opened by path; the path is ours, the names are the
    // kernel's.
    let Ok(entries) = std::fs::read_dir(sys_block) else { return Vec::new() };
    let mut devices: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().to_str()?.parse().ok()?;
            let folder = Folder::open(&entry.path()).ok()?;
            let text = |file| crate::cgroup::CgroupFiles::text(&folder, file).ok().flatten();
            let number = text("dev")?.trim_ascii().parse().ok()?;
            Some(Device { name, number, sectors: text("size").and_then(|size| files::single(&size)).unwrap_or(1) })
        })
        .collect();
    devices.sort_by_key(|device| device.number);
    devices
}

/// The limits of each device, and the names that no device has.
#[must_use]
pub fn resolve(entries: &[IoLimits], devices: &[Device]) -> (BTreeMap<(DeviceNumber, IoField), u64>, Vec<DeviceName>) {
    let (mut limits, mut unknown) = (BTreeMap::new(), Vec::new());
    let named = |entry: &IoLimits, device: &Device| match &entry.device {
        IoDevice::All => false,
        IoDevice::Number(number) => *number == device.number,
        IoDevice::Name(name) => *name == device.name,
    };
    for entry in entries {
        let mut limit = |number: DeviceNumber| {
            for (field, value) in IoField::of_limits(entry) {
                limits.insert((number, field), value);
            }
        };
        match &entry.device {
            // An entry of its own wins over `*` as a whole.
            IoDevice::All => devices
                .iter()
                .filter(|device| device.is_disk() && !entries.iter().any(|other| named(other, device)))
                .for_each(|device| limit(device.number)),
            IoDevice::Number(number) => limit(*number),
            IoDevice::Name(name) => match devices.iter().find(|device| device.name == *name) {
                Some(device) => limit(device.number),
                None => unknown.push(name.clone()),
            },
        }
    }
    (limits, unknown)
}
