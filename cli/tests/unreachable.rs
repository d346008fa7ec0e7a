//! What people see when there is nobody to ask: one line, with the way out, and exit code 1.

use std::{fs, path::Path, process::Command};

/// A port that nobody listens on (discard).
const NOBODY: &str = "http://127.0.0.1:9";

fn fails(arguments: &[&str], kubeconfig: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-catamaran"))
        .args(arguments)
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env("KUBECONFIG", kubeconfig)
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn nobody_to_ask() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kubeconfig = folder.join("nobody.kubeconfig");
    let config = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": "NOBODY"}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}]}"#;
    fs::write(&kubeconfig, config.replace("NOBODY", NOBODY)).expect("a file");

    for command in [["status", "web"], ["explain", "web"], ["top", "web"]] {
        let error = fails(&command, &kubeconfig);
        assert!(error.starts_with("error: the API server cannot be reached: "), "{error}");
        assert_eq!(error.matches("refused").count(), 1, "{error}");
    }
    let direct = fails(&["top", "--operator-url", NOBODY], &kubeconfig);
    assert!(direct.starts_with("error: the operator at http://127.0.0.1:9/ cannot be reached: "), "{direct}");
    let context = fails(&["status", "--context", "other"], &kubeconfig);
    assert!(context.contains("other") && context.contains("--kubeconfig"), "{context}");
    let missing = fails(&["status"], &folder.join("missing.kubeconfig"));
    assert!(missing.contains("no configuration for an API server") && missing.contains("--kubeconfig"), "{missing}");
}
