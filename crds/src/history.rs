//! A JSON object that nobody looks into between two starts of an operator.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, ser::Error as _};
use serde_json::{Map, Value};

/// What an operator that starts anew has to know of the past. Kept as its text, since one is in memory for each
/// workload and as a tree it would be ten times as large. Equal contents are equal texts: the fields are in the order
/// of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredHistory(Option<Box<str>>);

impl StoredHistory {
    /// What `value` is as JSON; nothing if that is no object.
    #[must_use]
    pub fn store(value: &impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(Value::Object(fields)) => Self::from(fields),
            Ok(_) | Err(_) => Self::default(),
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What is in it, if it is of that form.
    #[must_use]
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.0.as_deref()?).ok()
    }
}

impl From<Map<String, Value>> for StoredHistory {
    fn from(fields: Map<String, Value>) -> Self {
        Self((!fields.is_empty()).then(|| Value::Object(fields).to_string().into()))
    }
}

impl Serialize for StoredHistory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields: Map<String, Value> = match &self.0 {
            Some(text) => serde_json::from_str(text).map_err(S::Error::custom)?,
            None => Map::new(),
        };
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StoredHistory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_the_same_object_again_whatever_the_order() {
        let (one, other) =
            (json!({"b": [1, {"y": 2, "x": null}], "a": "é\"\n"}), r#"{"a":"é\"\n","b":[1,{"x":null,"y":2}]}"#);
        let kept: StoredHistory = serde_json::from_value(one.clone()).expect("an object");
        assert_eq!(serde_json::to_value(&kept).expect("an object"), one);
        assert_eq!(kept, serde_json::from_str(other).expect("an object"));
        assert_eq!(kept, StoredHistory::store(&one));
        assert_eq!(kept.read::<Value>(), Some(one));
    }

    #[test]
    fn what_is_empty_or_no_object_is_nothing() {
        assert!(serde_json::from_str::<StoredHistory>("{}").expect("an object").is_empty());
        assert!(StoredHistory::store(&3).is_empty());
        assert!(serde_json::from_str::<StoredHistory>("3").is_err());
        assert_eq!(serde_json::to_string(&StoredHistory::default()).expect("text"), "{}");
    }
}
