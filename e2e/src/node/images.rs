//! The images of the guest's disk, all made here: no registry is asked for any.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::image::Image;
use crate::tools::{Tool, Tools};

// No tag is `latest`: that would make Kubernetes ask a registry each time.

/// Holds the namespaces of each pod.
pub const PAUSE: &str = "catamaran.test/pause:1";
/// A shell with the usual tools.
pub const BUSYBOX: &str = "docker.io/library/busybox:1";
/// Prints `Hello, world!` and ends; with `--stay` it then waits for SIGTERM.
pub const HELLO: &str = "docker.io/library/hello-world:linux";
/// Puts a known load on CPU, memory, disk or processes: see `e2e/guest/load`.
pub const LOAD: &str = "catamaran.test/load:1";
/// Answers for the names of Services; [`Node::serve_names`](super::Node::serve_names) runs it.
const COREDNS: &str = "catamaran.test/coredns:1";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All of them.
pub(super) fn all(tools: &Tools, busybox: &Path) -> Result<Vec<Image>> {
    Ok(vec![
        Image::new(PAUSE).program("pause", tools.path(Tool::GuestPause)?)?.entrypoint(&["/pause"]).user("65535:65535"),
        Image::new(HELLO).program("hello", tools.path(Tool::GuestHello)?)?.entrypoint(&["/hello"]),
        Image::new(LOAD)
            .program("load", tools.path(Tool::GuestLoad)?)?
            .folder("data", 0o1777)
            .entrypoint(&["/load"])
            .command(&["serve"]),
        Image::new(COREDNS).program("coredns", tools.path(Tool::CoreDns)?)?.entrypoint(&["/coredns"]),
        busybox_image(busybox)?,
    ])
}

fn busybox_image(busybox: &Path) -> Result<Image> {
    let mut image = Image::new(BUSYBOX)
        .program("bin/busybox", busybox)?
        .folder("tmp", 0o1777)
        .folder("root", 0o700)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        .file("etc/group", 0o644, "root:x:0:\nnobody:x:65534:\n")
        .command(&["sh"])
        .environment("PATH", PATH);
    for applet in applets(busybox)? {
        image = image.link(&format!("bin/{applet}"), "busybox");
    }
    Ok(image)
}

/// The tools that a busybox is, by its own word.
pub(super) fn applets(busybox: &Path) -> Result<Vec<String>> {
    let output = Command::new(busybox).arg("--list").output().context("cannot run busybox")?;
    ensure!(output.status.success(), "busybox --list failed ({})", output.status);
    let list = String::from_utf8_lossy(&output.stdout);
    Ok(list.lines().filter(|applet| *applet != "busybox").map(str::to_owned).collect())
}
