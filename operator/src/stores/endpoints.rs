//! Which launcher pods the EndpointSlices of our Services still have: a guest is not deleted while it gets traffic.

use k8s_openapi::api::discovery::v1::EndpointSlice;

/// The launcher pods in one EndpointSlice, by name. Pods of containers are left out: nobody asks for them, and there
/// are many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceEntry {
    launchers: Box<[Box<str>]>,
}

/// What the name of a launcher pod begins with (KubeVirt).
const LAUNCHER_PREFIX: &str = "virt-launcher-";

impl SliceEntry {
    /// The launcher pods in it.
    pub fn launchers(&self) -> impl Iterator<Item = &str> {
        self.launchers.iter().map(|launcher| &**launcher)
    }

    /// Whether no launcher pod is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.launchers.is_empty()
    }
}

impl From<&EndpointSlice> for SliceEntry {
    fn from(slice: &EndpointSlice) -> Self {
        let targets = slice.endpoints.iter().filter_map(|endpoint| endpoint.target_ref.as_ref()?.name.as_deref());
        Self { launchers: targets.filter(|name| name.starts_with(LAUNCHER_PREFIX)).map(Into::into).collect() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn launcher_pods_are_found_and_others_left_out() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "web-abc"}, "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "virt-launcher-web1-x"}},
                {"addresses": ["10.0.0.2"], "targetRef": {"kind": "Pod", "name": "web-1"}},
                {"addresses": ["10.0.0.3"]},
            ],
        }))
        .expect("a slice");
        let entry = SliceEntry::from(&slice);
        assert!(entry.launchers().eq(["virt-launcher-web1-x"]) && !entry.is_empty());
        assert!(SliceEntry::default().is_empty());
    }
}
