//! How simulated guests behave: defaults for all, and what the template of one says.

use std::{path::PathBuf, time::Duration};

use catamaran_crds::kubevirt::VirtualMachineInstance;
use kube::ResourceExt;

/// Prefix of the annotations of a VMI template that set a knob for its guests; values are milliseconds, or `true`.
pub const PREFIX: &str = "stand-in.catamaran.dev/";

/// How the simulated guests behave where their template does not say, and how late the controllers are.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// From Scheduled to Running; annotation `boot-delay`.
    pub boot_delay: Duration,
    /// From the deletion of the launcher pod until the guest has powered off; annotation `shutdown-delay`.
    pub shutdown_delay: Duration,
    /// From Running until the guest dies; annotation `crash-after`, or 500 ms for a disk image with the tag `crash`,
    /// and as many as it says for one with the tag `crash-N`.
    pub crash_after: Option<Duration>,
    /// From Scheduled until virt-launcher dies, and the guest with it; annotation `launcher-dies-after`, or a disk
    /// image with the tag `launcher-dies-N`.
    pub launcher_dies_after: Option<Duration>,
    /// The guest runs and never gets ready; annotation `never-ready`, or a disk image with the tag `unready`.
    pub never_ready: bool,
    /// How long a launcher pod is there after its guest has ended: real ones take 7 to 17 s.
    pub linger: Duration,
    /// How much later than the API server the caches of virt-controller are.
    pub cache_lag: Duration,
    /// A folder with KubeVirt's own CustomResourceDefinitions, as JSON files; without it ours are installed.
    pub definitions: Option<PathBuf>,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            boot_delay: Duration::from_secs(1),
            shutdown_delay: Duration::from_millis(300),
            crash_after: None,
            launcher_dies_after: None,
            never_ready: false,
            linger: Duration::ZERO,
            cache_lag: Duration::ZERO,
            definitions: None,
        }
    }
}

/// What one guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guest {
    pub(super) boot_delay: Duration,
    pub(super) shutdown_delay: Duration,
    pub(super) crash_after: Option<Duration>,
    pub(super) power_off_after: Option<Duration>,
    pub(super) launcher_dies_after: Option<Duration>,
    pub(super) never_ready: bool,
    pub(super) image: Image,
    pub(super) linger: Duration,
}

/// What the image of a guest's disk is good for, by its tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Image {
    /// It boots.
    #[default]
    Fine,
    /// It can be pulled, and there is no disk in it; tag `nodisk`.
    NoDisk,
    /// It cannot be pulled; tag `unpullable`.
    Unpullable,
}

impl Knobs {
    /// What the guest of a VMI does. `power-off-after` is known as an annotation only.
    pub(super) fn guest(&self, instance: &VirtualMachineInstance) -> Guest {
        let text = |name: &str| instance.annotations().get(&format!("{PREFIX}{name}"));
        let time = |name: &str| text(name).and_then(|value| value.parse().ok()).map(Duration::from_millis);
        let tags: Vec<&str> = instance
            .spec
            .body
            .get("volumes")
            .and_then(|volumes| volumes.as_array())
            .into_iter()
            .flatten()
            .filter_map(|volume| volume["containerDisk"]["image"].as_str()?.rsplit_once(':').map(|(_, tag)| tag))
            .collect();
        let tagged = |prefix: &str| tags.iter().find_map(|tag| tag.strip_prefix(prefix)?.parse().ok());
        let crash = if tags.contains(&"crash") { Some(500) } else { tagged("crash-") };
        let image = if tags.contains(&"nodisk") {
            Image::NoDisk
        } else if tags.contains(&"unpullable") {
            Image::Unpullable
        } else {
            Image::Fine
        };
        Guest {
            boot_delay: time("boot-delay").unwrap_or(self.boot_delay),
            shutdown_delay: time("shutdown-delay").unwrap_or(self.shutdown_delay),
            crash_after: time("crash-after").or(crash.map(Duration::from_millis)).or(self.crash_after),
            power_off_after: time("power-off-after"),
            launcher_dies_after: time("launcher-dies-after")
                .or(tagged("launcher-dies-").map(Duration::from_millis))
                .or(self.launcher_dies_after),
            never_ready: text("never-ready").map_or(self.never_ready, |value| value == "true")
                || tags.contains(&"unready"),
            image,
            linger: self.linger,
        }
    }
}
