//! What the adapter serves, and which of it a selector takes.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// The labels of one series.
pub(super) type Labels = BTreeMap<String, String>;

/// Quantities by the labels of their series.
pub(super) type SeriesByLabels = BTreeMap<Labels, String>;

/// An object with a metric.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectMetric {
    pub(super) namespace: String,
    /// As adapters know it: `pods`, `deployments.apps`.
    pub(super) resource: String,
    pub(super) name: String,
    pub(super) metric: String,
}

/// All values.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    pub(super) objects: BTreeMap<ObjectMetric, SeriesByLabels>,
    /// By namespace and metric.
    pub(super) external: BTreeMap<(String, String), SeriesByLabels>,
}

impl Values {
    /// The values of one object that a metric selector takes.
    pub(super) fn of_object(&self, object: &ObjectMetric, selector: &MetricSelector) -> Vec<&str> {
        let series = self.objects.get(object);
        series.into_iter().flatten().filter(|(labels, _)| selector.takes(labels)).map(|(_, v)| v.as_str()).collect()
    }

    /// Whether any object of a resource has a metric.
    pub(super) fn knows(&self, namespace: &str, resource: &str, metric: &str) -> bool {
        self.objects
            .keys()
            .any(|known| known.namespace == namespace && known.resource == resource && known.metric == metric)
    }
}

/// A label selector with equality and sets.
#[derive(Clone, Debug, Default)]
pub(super) struct MetricSelector(Vec<(String, Vec<String>)>);

impl MetricSelector {
    /// Reads the text of a parameter: `a=b`, `a==b` and `a in (b,c)`, separated by commas.
    ///
    /// Errors: another kind of requirement.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut requirements = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            // A comma inside of brackets separates values.
            let comma = match (rest.find(','), rest.find('('), rest.find(')')) {
                (Some(comma), Some(open), Some(close)) if open < comma => {
                    rest[close..].find(',').map(|after| close + after)
                }
                (comma, _, _) => comma,
            };
            let (requirement, after) = comma.map_or((rest, ""), |comma| (&rest[..comma], &rest[comma + 1..]));
            requirements.push(Self::requirement(requirement.trim())?);
            rest = after.trim();
        }
        Ok(Self(requirements))
    }

    fn requirement(text: &str) -> Result<(String, Vec<String>)> {
        if let Some((key, values)) = text.split_once(" in (") {
            let values = values.trim_end_matches(')').split(',').map(|value| value.trim().to_owned()).collect();
            return Ok((key.trim().to_owned(), values));
        }
        match text.split_once('=') {
            Some((key, value)) if !key.ends_with('!') => {
                Ok((key.trim().to_owned(), vec![value.trim_start_matches('=').trim().to_owned()]))
            }
            _ => bail!("this adapter does not know the selector {text:?}"),
        }
    }

    /// Whether labels satisfy all of it.
    pub(super) fn takes(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, values)| labels.get(key).is_some_and(|value| values.contains(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_take_what_they_say() {
        let labels: Labels = [("a", "1"), ("b", "2")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (selector, takes) in [
            ("", true),
            ("a=1", true),
            ("a==1,b=2", true),
            ("a=2", false),
            ("c=1", false),
            ("a in (3,1),b=2", true),
            ("b=2,a in (3,4)", false),
            ("a in (1), b in (2, 3)", true),
        ] {
            assert_eq!(MetricSelector::parse(selector).map(|s| s.takes(&labels)).ok(), Some(takes), "{selector}");
        }
        assert!(MetricSelector::parse("a!=1").is_err());
        assert!(MetricSelector::parse("a").is_err());
    }
}
