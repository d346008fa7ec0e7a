//! `decide` on the example cases of the conformance format: what a case asserts has to come out, member by member.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
    thread,
};

use serde_json::{Value, json};

const EXAMPLES: &str = include_str!("cases/hpa-cases.example.jsonl");

fn decide(input: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-catamaran"))
        .arg("decide")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads its input");
    output
}

fn results(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("a result")).collect()
}

/// What a result says differently from what is expected: only members that are present are asserted.
fn differences(expected: &Value, result: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for member in ["replicas", "error"] {
        if let Some(wanted) = expected.get(member)
            && result.get(member) != Some(wanted)
        {
            found.push(format!("{member} is {}, not {wanted}", result[member]));
        }
    }
    if let Some(wanted) = expected.get("conditions") {
        let sorted = |value: &Value| {
            let mut lines: Vec<String> = value.as_array().into_iter().flatten().map(Value::to_string).collect();
            lines.sort();
            lines
        };
        if sorted(wanted) != sorted(&result["conditions"]) {
            found.push(format!("conditions are {}, not {wanted}", result["conditions"]));
        }
    }
    for (index, wanted) in expected["currentMetrics"].as_array().into_iter().flatten().enumerate() {
        for (member, wanted) in wanted.as_object().into_iter().flatten().filter(|(_, wanted)| !wanted.is_null()) {
            let got = &result["currentMetrics"][index][member];
            if got != wanted {
                found.push(format!("{member} of metric {index} is {got}, not {wanted}"));
            }
        }
    }
    found
}

#[test]
fn the_examples_agree() {
    let output = decide(EXAMPLES, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cases: Vec<Value> = EXAMPLES.lines().map(|line| serde_json::from_str(line).expect("a case")).collect();
    let results = results(&output);
    assert_eq!(results.len(), cases.len());
    assert_eq!(cases.len(), 25);
    let mut disagreements = Vec::new();
    for (case, result) in cases.iter().zip(&results) {
        assert_eq!(case["name"], result["name"]);
        let found = differences(&case["expect"], result);
        disagreements.extend(found.into_iter().map(|difference| format!("{}: {difference}", case["name"])));
    }
    assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
}

#[test]
fn the_comparison_sees_what_differs() {
    let result = json!({"replicas": 3, "error": false, "conditions": [{"type": "A", "status": "True", "reason": "B"}],
        "currentMetrics": [null, {"type": "Pods", "averageValueMilli": 5}]});
    assert!(differences(&json!({"currentMetrics": [null, {"averageValueMilli": 5}]}), &result).is_empty());
    for expected in [
        json!({"replicas": 4}),
        json!({"error": true}),
        json!({"conditions": []}),
        json!({"currentMetrics": [{"type": "Pods"}]}),
        json!({"currentMetrics": [null, {"averageValueMilli": 6}]}),
    ] {
        assert_eq!(differences(&expected, &result).len(), 1, "{expected}");
    }
}

#[test]
fn a_line_that_is_no_case_is_named_and_stops_no_other() {
    let first = EXAMPLES.lines().next().expect("an example");
    let input = format!("{first}\n{{\"name\":\"half\"\n\n{first}\nnull\n{first}");
    let output = decide(&input, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(results(&output).len(), 3);
    let errors = String::from_utf8(output.stderr).expect("text");
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 2, "{errors}");
    assert!(lines[0].starts_with("error: line 2: not a case: EOF"), "{errors}");
    assert!(lines[1].starts_with("error: line 5: not a case: invalid type: null"), "{errors}");
}

#[test]
fn what_the_api_server_would_refuse_is_refused() {
    let mut case: Value = serde_json::from_str(EXAMPLES.lines().next().expect("an example")).expect("a case");
    case["metrics"][0]["object"]["target"]["value"] = json!("12 apples");
    let output = decide(&case.to_string(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(error, "error: line 1: \"12 apples\" is not a quantity; write for example 250m, 2 or 512Mi\n");
}

#[test]
fn a_decision_can_be_told_in_words() {
    let output = decide(EXAMPLES.lines().next().expect("an example"), &["--explain"]);
    let told = String::from_utf8(output.stdout).expect("text");
    assert!(
        told.starts_with(
            "example/00: go from 0 to 1 replica\nbounds: 1 to 54 replicas\n* object-0 of Service thing: 3.486"
        ),
        "{told}"
    );
}
