//! Container images made without a container engine: OCI archives (image-spec v1.1), which `ctr images import`, `podman
//! load` and `skopeo` take.
//!
//! The same files give the same digests, at every time and on every host of one architecture.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use anyhow::{Context, Result};
use oci_spec::image::{
    Arch, ConfigBuilder, DescriptorBuilder, HistoryBuilder, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// The only time that images know: the epoch, so that they do not differ by when they were made.
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// An image that is being put together: from scratch, one layer, for machines like this one.
#[derive(Debug)]
pub struct Image {
    name: String,
    files: BTreeMap<String, Entry>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    environment: Vec<String>,
    user: Option<String>,
    labels: Vec<(String, String)>,
}

#[derive(Debug)]
enum Entry {
    Folder { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
}

impl Image {
    /// An empty image with its full name, such as `docker.io/library/busybox:1.36`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            files: BTreeMap::new(),
            entrypoint: Vec::new(),
            command: Vec::new(),
            environment: Vec::new(),
            user: None,
            labels: Vec::new(),
        }
    }

    /// The full name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A folder. Those above it have to be added, too, where something is to have other rights than 0755.
    #[must_use]
    pub fn folder(mut self, path: &str, mode: u32) -> Self {
        self.files.insert(path.trim_matches('/').to_owned(), Entry::Folder { mode });
        self
    }

    /// A file of root.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.trim_matches('/').to_owned(), Entry::File { mode, content: content.into() });
        self
    }

    /// A program of the host, as a file that all may run.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn program(self, path: &str, from: &Path) -> Result<Self> {
        let content = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        Ok(self.file(path, 0o755, content))
    }

    /// A symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.files.insert(path.trim_matches('/').to_owned(), Entry::Link { target: target.to_owned() });
        self
    }

    /// What containers run.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Its arguments, or what containers run where there is no entrypoint; pods override this by `args`.
    #[must_use]
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// Who containers run as, such as `65532:65532`; root by default.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// A label, such as `org.opencontainers.image.title`.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The OCI archive: a tar file with an `index.json` that names the image.
    ///
    /// # Errors
    /// When a path is too long for a tar file.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let layer = self.layer()?;
        let layer_digest = digest(&layer);
        let config = json(&self.configuration(&layer_digest)?)?;
        let manifest = json(
            &ImageManifestBuilder::default()
                .schema_version(2u32)
                .media_type(MediaType::ImageManifest)
                .config(descriptor(MediaType::ImageConfig, &config)?.build()?)
                .layers([descriptor(MediaType::ImageLayer, &layer)?.build()?])
                .build()?,
        )?;
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let names = [("io.containerd.image.name", self.name.as_str()), ("org.opencontainers.image.ref.name", tag)];
        let annotations = names.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let index = json(
            &ImageIndexBuilder::default()
                .schema_version(2u32)
                .media_type(MediaType::ImageIndex)
                .manifests([descriptor(MediaType::ImageManifest, &manifest)?
                    .annotations(HashMap::from(annotations))
                    .build()?])
                .build()?,
        )?;
        let mut archive = tar::Builder::new(Vec::new());
        append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut archive, "index.json", 0o644, &index)?;
        for blob in [manifest, config, layer] {
            append(&mut archive, &format!("blobs/sha256/{}", digest(&blob)), 0o644, &blob)?;
        }
        Ok(archive.into_inner()?)
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = tar::Builder::new(Vec::new());
        for (path, entry) in &self.files {
            match entry {
                Entry::Folder { mode } => {
                    let mut header = header(EntryType::Directory, *mode, 0);
                    layer.append_data(&mut header, format!("{path}/"), [].as_slice())
                }
                Entry::File { mode, content } => {
                    let mut header = header(EntryType::Regular, *mode, content.len() as u64);
                    layer.append_data(&mut header, path, content.as_slice())
                }
                Entry::Link { target } => {
                    let mut header = header(EntryType::Symlink, 0o777, 0);
                    layer.append_link(&mut header, path, target)
                }
            }
            .with_context(|| format!("cannot put {path} into a layer"))?;
        }
        Ok(layer.into_inner()?)
    }

    fn configuration(&self, layer_digest: &str) -> Result<oci_spec::image::ImageConfiguration> {
        let mut config = ConfigBuilder::default().env(self.environment.clone());
        if !self.entrypoint.is_empty() {
            config = config.entrypoint(self.entrypoint.clone());
        }
        if !self.command.is_empty() {
            config = config.cmd(self.command.clone());
        }
        if let Some(user) = &self.user {
            config = config.user(user);
        }
        if !self.labels.is_empty() {
            config = config.labels(self.labels.iter().cloned().collect::<HashMap<_, _>>());
        }
        let history = HistoryBuilder::default().created(EPOCH).created_by("catamaran").build()?;
        let image = ImageConfigurationBuilder::default()
            .created(EPOCH)
            .architecture(Arch::default())
            .os(Os::Linux)
            .config(config.build()?)
            .rootfs(RootFsBuilder::default().typ("layers").diff_ids([format!("sha256:{layer_digest}")]).build()?)
            .history([history])
            .build()?;
        Ok(image)
    }
}

fn descriptor(media_type: MediaType, blob: &[u8]) -> Result<DescriptorBuilder> {
    let digest: Sha256Digest = digest(blob).parse().context("a SHA-256 digest is one")?;
    Ok(DescriptorBuilder::default().media_type(media_type).size(blob.len() as u64).digest(digest))
}

/// JSON with the keys of every object in order, so that maps without an order give the same bytes each time.
fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&serde_json::to_value(value)?)?)
}

fn digest(blob: &[u8]) -> String {
    Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    archive.append_data(&mut header(EntryType::Regular, mode, content.len() as u64), path, content)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        io::{Cursor, Read},
    };

    use serde_json::Value;

    use super::{Image, digest};

    fn image() -> Image {
        Image::new("docker.io/library/test:1")
            .folder("/etc", 0o755)
            .file("/etc/passwd", 0o644, "root:x:0:0::/:\n")
            .link("/bin/sh", "busybox")
            .entrypoint(&["/bin/sh"])
            .environment("PATH", "/bin")
            .user("65532:65532")
            .label("b", "2")
            .label("a", "1")
            .label("c", "3")
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(Cursor::new(archive)).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(path, content);
        }
        files
    }

    #[test]
    fn the_same_files_give_the_same_archive() {
        assert_eq!(image().archive().unwrap(), image().archive().unwrap());
        assert_ne!(image().archive().unwrap(), image().file("/new", 0o644, "").archive().unwrap());
    }

    #[test]
    fn every_digest_is_that_of_a_blob() {
        let files = files(&image().archive().unwrap());
        let blob = |descriptor: &Value| {
            let named = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let content = &files[&format!("blobs/sha256/{named}")];
            assert_eq!(
                (digest(content), content.len() as u64),
                (named.to_owned(), descriptor["size"].as_u64().unwrap())
            );
            content.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let [named] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index}") };
        assert_eq!(named["annotations"]["io.containerd.image.name"], "docker.io/library/test:1");
        let manifest: Value = serde_json::from_slice(&blob(named)).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"][0], "/bin/sh");
        assert_eq!(config["config"]["Labels"], serde_json::json!({"a": "1", "b": "2", "c": "3"}));
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(&layer)));
        assert_eq!(self::files(&layer).into_keys().collect::<Vec<_>>(), ["bin/sh", "etc/", "etc/passwd"]);
    }
}
