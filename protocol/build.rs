//! Generates the messages, the client and the server of the usage stream.

#[cfg(feature = "stream")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (root, file) = ("proto", "proto/catamaran/usage/v1alpha1/usage.proto");
    println!("cargo:rerun-if-changed={file}");
    // protox reads the file in Rust: no protoc is needed on the machine.
    tonic_prost_build::configure().compile_fds(protox::compile([file], [root])?)?;
    Ok(())
}

#[cfg(not(feature = "stream"))]
fn main() {}
