//! Makes a case smaller while it keeps what is of interest in it.

use anyhow::Result;
use serde_json::{Map, Value, json};

/// Takes things out of a case, or makes them plain, as long as `keeps` says that what is left will do. It is asked
/// about many candidates at once and says for each.
///
/// # Errors
/// When `keeps` fails.
pub fn shrink(case: Value, mut keeps: impl FnMut(&[Value]) -> Result<Vec<bool>>) -> Result<Value> {
    let mut case = case;
    loop {
        let candidates = smaller(&case);
        let kept = keeps(&candidates)?;
        match candidates.into_iter().zip(kept).find(|(_, kept)| *kept) {
            Some((candidate, _)) => case = candidate,
            None => return Ok(case),
        }
    }
}

/// Every case that is one step smaller, those that take most away first.
fn smaller(case: &Value) -> Vec<Value> {
    let mut candidates = Vec::new();
    let mut candidate = |change: &dyn Fn(&mut Value)| {
        let mut smaller = case.clone();
        change(&mut smaller);
        if smaller != *case {
            candidates.push(smaller);
        }
    };

    candidate(&|case| retain_pods(case, |number, count| number < count / 2));
    candidate(&|case| retain_pods(case, |number, count| number >= count / 2));
    candidate(&|case| case["behavior"] = Value::Null);
    for member in ["recommendations", "scaleUpEvents", "scaleDownEvents"] {
        candidate(&|case| {
            if case[member].is_array() {
                case[member] = json!([]);
            }
        });
    }
    for member in ["initialConditions", "tags"] {
        candidate(&|case| remove(case, member));
    }
    for number in 0..length(&case["metrics"]) {
        candidate(&|case| {
            remove_at(&mut case["metrics"], number);
            remove_at(&mut case["samples"], number);
        });
    }
    for number in 0..length(&case["pods"]) {
        candidate(&|case| retain_pods(case, |other, _| other != number));
    }
    for member in ["recommendations", "scaleUpEvents", "scaleDownEvents", "initialConditions"] {
        for number in 0..length(&case[member]) {
            candidate(&|case| remove_at(&mut case[member], number));
        }
    }
    for direction in ["scaleUp", "scaleDown"] {
        candidate(&|case| remove(&mut case["behavior"], direction));
        for member in ["tolerance", "selectPolicy", "stabilizationWindowSeconds", "policies"] {
            candidate(&|case| remove(at(case, &["behavior", direction]), member));
        }
        for number in 0..length(&case["behavior"][direction]["policies"]) {
            candidate(&|case| remove_at(at(case, &["behavior", direction, "policies"]), number));
        }
    }
    for (number, sample) in elements(&case["samples"]).iter().enumerate() {
        for pod in sample["pods"].as_object().into_iter().flat_map(Map::keys) {
            candidate(&|case| remove(at(&mut case["samples"][number], &["pods"]), pod));
        }
        for value in 0..length(&sample["valuesMilli"]) {
            candidate(&|case| remove_at(at(&mut case["samples"][number], &["valuesMilli"]), value));
        }
    }
    for (number, pod) in elements(&case["pods"]).iter().enumerate() {
        for member in ["initContainers", "podRequests"] {
            candidate(&|case| remove(&mut case["pods"][number], member));
        }
        for container in 0..length(&pod["containers"]) {
            candidate(&|case| remove_at(at(&mut case["pods"][number], &["containers"]), container));
        }
    }
    for gate in case["settings"]["featureGates"].as_object().into_iter().flat_map(Map::keys) {
        candidate(&|case| remove(at(case, &["settings", "featureGates"]), gate));
    }
    let plain = json!({"tolerance": 0.1, "cpuInitializationPeriodSeconds": 300, "initialReadinessDelaySeconds": 30, "downscaleStabilizationSeconds": 300});
    for (member, value) in plain.as_object().into_iter().flatten() {
        candidate(&|case| case["settings"][member] = value.clone());
    }
    candidate(&|case| case["statusReplicas"] = case["currentReplicas"].clone());
    candidates
}

/// Keeps some of the pods, and only their samples; `keep` gets the number of a pod and how many there are.
fn retain_pods(case: &mut Value, keep: impl Fn(usize, usize) -> bool) {
    let Some(pods) = case["pods"].as_array_mut() else { return };
    let (count, mut number, mut gone) = (pods.len(), 0, Vec::new());
    pods.retain(|pod| {
        let kept = keep(number, count);
        number += 1;
        if !kept {
            gone.extend(pod["name"].as_str().map(str::to_owned));
        }
        kept
    });
    for sample in case["samples"].as_array_mut().into_iter().flatten() {
        if let Some(pods) = sample.get_mut("pods").and_then(Value::as_object_mut) {
            pods.retain(|name, _| !gone.contains(name));
        }
    }
}

fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn length(value: &Value) -> usize {
    elements(value).len()
}

/// The value at the end of a path; the start where the path ends earlier, which no removal then fits.
fn at<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Value {
    let mut value = value;
    for member in path {
        if value.get(member).is_none() {
            break;
        }
        value = &mut value[*member];
    }
    value
}

fn remove(value: &mut Value, member: &str) {
    if let Some(object) = value.as_object_mut() {
        object.remove(member);
    }
}

fn remove_at(value: &mut Value, number: usize) {
    if let Some(array) = value.as_array_mut()
        && number < array.len()
    {
        array.remove(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hpa_cases::generate;

    #[test]
    fn what_is_of_no_interest_goes() {
        let cases = generate(3, 200);
        let case = cases.iter().find(|case| case.pods.len() > 5 && case.behavior.is_some()).expect("such a case");
        let interesting = |case: &Value| length(&case["pods"]) >= 2;
        let small =
            shrink(json!(case), |candidates| Ok(candidates.iter().map(interesting).collect())).expect("it shrinks");
        assert_eq!(length(&small["pods"]), 2);
        assert_eq!((&small["behavior"], length(&small["metrics"]), length(&small["samples"])), (&Value::Null, 0, 0));
        assert_eq!(small["name"], case.name);
    }
}
