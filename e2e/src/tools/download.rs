//! Released programs, where they can be had: from where their projects publish them, against the checksum that is
//! published there. A checksum that does not fit ends the start; whatever cannot be reached in time is built instead.
//!
//! Checksums come by HTTPS from the project's own release, so they protect against a damaged or cut download and a
//! mirror, not against the project. `CATAMARAN_DOWNLOAD=off` turns this off.

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::future::join_all;
use reqwest::{Client, StatusCode, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Module, Tool};

/// How long a server may take to accept a connection: without a network this is what a start loses.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How long a server may say nothing, before its answer and within it.
const SILENT_FOR: Duration = Duration::from_secs(10);
/// The longest text that is read: lists of checksums have a few KiB, GitHub's description of a release some 100.
const LONGEST_TEXT: usize = 4 << 20;

/// Where the projects publish. Without a slash at the end.
#[derive(Clone, Debug)]
pub(super) struct Origins {
    kubernetes: String,
    github: String,
    github_api: String,
    helm: String,
    /// Whether anything else than HTTPS will do, as for a server of a test.
    plain: bool,
}

impl Origins {
    /// The Internet; nothing when the user does not want that.
    pub(super) fn published() -> Option<Self> {
        let off = env::var_os("CATAMARAN_DOWNLOAD").is_some_and(|set| set == "off");
        (!off).then(|| Self {
            kubernetes: "https://dl.k8s.io".to_owned(),
            github: "https://github.com".to_owned(),
            github_api: "https://api.github.com".to_owned(),
            helm: "https://get.helm.sh".to_owned(),
            plain: false,
        })
    }
}

/// A published file.
#[derive(Debug, PartialEq, Eq)]
struct Release {
    url: String,
    checksum: Checksum,
    /// The program's place in it; `None` when it is the program itself.
    member: Option<String>,
}

/// Where the SHA-256 of a published file is.
#[derive(Debug, PartialEq, Eq)]
enum Checksum {
    /// In a text: that alone, or lines of checksum and file name.
    Text(String),
    /// In what GitHub says of the files of a release.
    GitHub(String),
}

/// The release of a program for this machine. `None` when there is none that would do.
fn release(tool: Tool, origins: &Origins) -> Option<Release> {
    let arch = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        _ => return None,
    };
    // What runs in the guest is linked in a way of its own, and lies in its disk image.
    if tool.of_the_guest() || env::consts::OS != "linux" {
        return None;
    }
    let version = tool.module().version();
    let github = |project: &str| format!("{}/{project}/releases/download/{version}", origins.github);
    Some(match tool.module() {
        Module::Kubernetes => {
            let url = format!("{}/{version}/bin/linux/{arch}/{}", origins.kubernetes, tool.name());
            Release { checksum: Checksum::Text(format!("{url}.sha256")), url, member: None }
        }
        Module::Etcd => {
            let (folder, name) = (github("etcd-io/etcd"), format!("etcd-{version}-linux-{arch}"));
            Release {
                url: format!("{folder}/{name}.tar.gz"),
                checksum: Checksum::Text(format!("{folder}/SHA256SUMS")),
                member: Some(format!("{name}/{}", tool.name())),
            }
        }
        Module::Kwok => Release {
            url: format!("{}/kwok-linux-{arch}", github("kubernetes-sigs/kwok")),
            // It publishes no list of checksums.
            checksum: Checksum::GitHub(format!(
                "{}/repos/kubernetes-sigs/kwok/releases/tags/{version}",
                origins.github_api
            )),
            member: None,
        },
        Module::Helm => {
            let url = format!("{}/helm-{version}-linux-{arch}.tar.gz", origins.helm);
            let member = Some(format!("linux-{arch}/{}", tool.name()));
            Release { checksum: Checksum::Text(format!("{url}.sha256sum")), url, member }
        }
        Module::MetricsServer
        | Module::Prometheus
        | Module::Oracle
        | Module::Containerd
        | Module::Runc
        | Module::Cni
        | Module::CoreDns
        | Module::Guest => return None,
    })
}

/// How a download ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The file is not what its project published: nobody goes on with that.
    #[error("{url} has the SHA-256 {found}, and its project published {published}; it is not used")]
    Checksum { url: String, found: String, published: String },
    /// It cannot be had, and is built instead.
    #[error("{0:#}")]
    Unavailable(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Unavailable(error)
    }
}

/// Downloads those of the programs that are published, each to its place. Gives those that are there now. Blocks.
///
/// # Errors
/// A file does not have the checksum that was published for it.
pub(super) fn fetch(wanted: &[(Tool, PathBuf)], origins: &Origins) -> Result<Vec<Tool>> {
    let releases: Vec<_> =
        wanted.iter().filter_map(|(tool, target)| Some((*tool, target, release(*tool, origins)?))).collect();
    if releases.is_empty() {
        return Ok(Vec::new());
    }
    // A thread of its own, since this one may be of a runtime already.
    let outcomes = thread::scope(|scope| {
        let all = scope.spawn(|| -> Result<_> {
            let client = client(origins)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(join_all(
                releases.iter().map(|(tool, target, release)| download(&client, *tool, release, target)),
            )))
        });
        all.join().map_err(|_| anyhow!("the thread that downloads panicked"))?
    })?;
    let mut there = Vec::new();
    let mut told = false;
    for ((tool, ..), outcome) in releases.iter().zip(outcomes) {
        match outcome {
            Ok(()) => there.push(*tool),
            Err(wrong @ Failure::Checksum { .. }) => {
                return Err(anyhow!(wrong)
                    .context("try again, or build it from source instead: CATAMARAN_DOWNLOAD=off cargo xtask ..."));
            }
            // Without a network all say the same.
            Err(Failure::Unavailable(why)) if !told => {
                eprintln!("{} is not to be had, and is built: {why:#}", tool.name());
                told = true;
            }
            Err(Failure::Unavailable(_)) => {}
        }
    }
    Ok(there)
}

fn client(origins: &Origins) -> Result<Client> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(!origins.plain)
        // To the servers that hold the files.
        .redirect(redirect::Policy::limited(5))
        .connect_timeout(CONNECT_WITHIN)
        .read_timeout(SILENT_FOR)
        .user_agent("catamaran-xtask")
        .build()?)
}

/// Downloads one program, and puts it to its place when it is whole and right.
async fn download(client: &Client, tool: Tool, release: &Release, target: &Path) -> Result<(), Failure> {
    let start = Instant::now();
    // The checksum first: it is short, and says at once whether there is a way.
    let published = published(client, release).await?;
    eprintln!("downloading {} {} from {} ...", tool.name(), tool.module().version(), release.url);
    let folder = target.parent().context("the cache has a folder for each version")?;
    fs::create_dir_all(folder).context("cannot write to the cache")?;
    let staging = tempfile::tempdir_in(folder).context("cannot write to the cache")?;
    let file = staging.path().join("download");
    let (found, bytes) = save(client, &release.url, &file).await?;
    if found != published {
        return Err(Failure::Checksum { url: release.url.clone(), found, published });
    }
    let program = match &release.member {
        Some(member) => unpack(&file, member, &staging.path().join(tool.name()))?,
        None => file,
    };
    put(&program, target)?;
    eprintln!(
        "downloaded {} ({} MiB) in {} s, with the SHA-256 that its project publishes",
        tool.name(),
        bytes >> 20,
        start.elapsed().as_secs()
    );
    Ok(())
}

/// The checksum that was published, in lower case.
async fn published(client: &Client, release: &Release) -> Result<String> {
    let name = release.url.rsplit('/').next().unwrap_or_default();
    match &release.checksum {
        Checksum::Text(url) => {
            let text = text(client, url).await?;
            checksum_of(name, &text).with_context(|| format!("{url} has no SHA-256 of {name}"))
        }
        Checksum::GitHub(url) => {
            let text = text(client, url).await?;
            digest_of(name, &text).with_context(|| format!("{url} has no SHA-256 of {name}"))
        }
    }
}

/// The checksum of a file in a text: the first word of the line that names it, or of the only line.
fn checksum_of(name: &str, text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_checksum = |word: &str| word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit());
    let named = lines.clone().find(|line| {
        // A star says that the file was read as binary.
        line.split_whitespace().nth(1).is_some_and(|word| word.trim_start_matches('*') == name)
    });
    let alone = || lines.next().filter(|line| is_checksum(line) && lines.next().is_none());
    let word = named.or_else(alone)?.split_whitespace().next()?;
    is_checksum(word).then(|| word.to_ascii_lowercase())
}

/// The checksum of a file in GitHub's description of a release.
fn digest_of(name: &str, json: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Description {
        assets: Vec<Asset>,
    }
    #[derive(Deserialize)]
    struct Asset {
        name: String,
        digest: Option<String>,
    }
    let description: Description = serde_json::from_str(json).ok()?;
    let asset = description.assets.into_iter().find(|asset| asset.name == name)?;
    checksum_of(name, asset.digest?.strip_prefix("sha256:")?)
}

async fn text(client: &Client, url: &str) -> Result<String> {
    let mut response = answer(client, url).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        ensure!(bytes.len() + chunk.len() <= LONGEST_TEXT, "{url} is longer than any list of checksums");
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).with_context(|| format!("{url} is no text"))
}

/// Saves a file. Gives its SHA-256 and its length.
async fn save(client: &Client, url: &str, path: &Path) -> Result<(String, u64)> {
    let mut response = answer(client, url).await?;
    let mut file = File::create(path)?;
    let (mut sha, mut length) = (Sha256::new(), 0);
    while let Some(chunk) = response.chunk().await.with_context(|| format!("{url} ended early"))? {
        sha.update(&chunk);
        length += u64::try_from(chunk.len())?;
        file.write_all(&chunk)?;
    }
    Ok((sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), length))
}

async fn answer(client: &Client, url: &str) -> Result<reqwest::Response> {
    let response =
        client.get(url).send().await.map_err(|error| anyhow!(error.without_url()).context(url.to_owned()))?;
    match response.status() {
        StatusCode::OK => Ok(response),
        other => bail!("{url} answers {other}"),
    }
}

/// Takes one file out of an archive.
fn unpack(archive: &Path, member: &str, to: &Path) -> Result<PathBuf> {
    let status = Command::new("tar")
        .args(["--extract", "--gzip", "--to-stdout", "--file"])
        .arg(archive)
        .args(["--", member])
        .stdin(Stdio::null())
        .stdout(File::create(to)?)
        .status()
        .context("cannot run tar")?;
    ensure!(status.success(), "the archive has no {member}");
    Ok(to.to_owned())
}

/// Moves a program to its place, where it can be run.
fn put(program: &Path, target: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))?;
    fs::rename(program, target).with_context(|| format!("cannot write {}", target.display()))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, future::pending, sync::Arc};

    use axum::{Router, extract::Request, response::IntoResponse};
    use tokio::net::TcpListener;

    use super::*;

    /// What a project's server does.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Server {
        Good,
        /// Its files are not those that it published checksums of.
        Altered,
        Empty,
        /// It takes connections, and says nothing.
        Silent,
        /// The connection ends in the middle of a file.
        Cut,
    }

    fn sha256(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A program, which says its name.
    fn program(tool: Tool) -> Vec<u8> {
        format!("#!/bin/sh\necho {}\n", tool.name()).into_bytes()
    }

    fn archive(member: &str, content: &[u8]) -> Result<Vec<u8>> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join(member);
        fs::create_dir_all(file.parent().context("a folder")?)?;
        fs::write(file, content)?;
        let output = Command::new("tar").arg("-C").arg(folder.path()).args(["-cz", member]).output()?;
        ensure!(output.status.success());
        Ok(output.stdout)
    }

    /// The files of all releases by path, in the layout of their projects.
    fn layout(origins: &Origins) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        let path = |url: &str| url.splitn(4, '/').nth(3).unwrap_or_default().to_owned();
        for tool in Tool::GROUND {
            let release = release(tool, origins).context("all of the ground are published")?;
            let content = match &release.member {
                Some(member) => archive(member, &program(tool))?,
                None => program(tool),
            };
            let (name, sum) = (release.url.rsplit('/').next().unwrap_or_default(), sha256(&content));
            let (url, checksum) = match &release.checksum {
                Checksum::Text(url) if url.ends_with(".sha256") => (url, sum),
                Checksum::Text(url) => (url, format!("{}  another\n{sum}  {name}\n", "0".repeat(64))),
                Checksum::GitHub(url) => (
                    url,
                    serde_json::json!({"assets": [{"name": "kwokctl", "digest": null},
                        {"name": name, "digest": format!("sha256:{sum}")}]})
                    .to_string(),
                ),
            };
            files.insert(path(url), checksum.into_bytes());
            files.insert(path(&release.url), content);
        }
        Ok(files)
    }

    async fn serve(server: Server) -> Result<Origins> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let origins = Origins {
            kubernetes: origin.clone(),
            github: origin.clone(),
            github_api: origin.clone(),
            helm: origin,
            plain: true,
        };
        let files = Arc::new(layout(&origins)?);
        let router = Router::new().fallback(move |request: Request| {
            let content = files.get(request.uri().path().trim_start_matches('/')).cloned();
            async move {
                let Some(mut content) = content.filter(|_| server != Server::Empty) else {
                    return StatusCode::NOT_FOUND.into_response();
                };
                let checksum = content.len() > 32 && !content.starts_with(b"#!") && !content.starts_with(&[0x1f, 0x8b]);
                match server {
                    Server::Silent => pending().await,
                    Server::Altered if !checksum => content.push(b'!'),
                    Server::Cut if !checksum => {
                        let half = content.len() / 2;
                        let stream = futures::stream::iter([
                            Ok(content[..half].to_vec()),
                            Err(std::io::Error::other("the connection is gone")),
                        ]);
                        return axum::body::Body::from_stream(stream).into_response();
                    }
                    Server::Good | Server::Altered | Server::Empty | Server::Cut => {}
                }
                content.into_response()
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(origins)
    }

    /// Downloads everything, as a start does.
    async fn run(origins: Origins) -> Result<(tempfile::TempDir, Result<Vec<Tool>>)> {
        let folder = tempfile::tempdir()?;
        let wanted: Vec<_> =
            Tool::GROUND.map(|tool| (tool, folder.path().join("v1").join(tool.name()))).into_iter().collect();
        let outcome = tokio::task::spawn_blocking(move || fetch(&wanted, &origins)).await?;
        Ok((folder, outcome))
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder.join("v1")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[tokio::test]
    async fn published_programs_are_taken() -> Result<()> {
        let (folder, outcome) = run(serve(Server::Good).await?).await?;
        assert_eq!(outcome?, Tool::GROUND);
        for tool in Tool::GROUND {
            let output = Command::new(folder.path().join("v1").join(tool.name())).output()?;
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), tool.name());
        }
        assert_eq!(files(folder.path()).len(), Tool::GROUND.len(), "and nothing else is left");
        Ok(())
    }

    #[tokio::test]
    async fn a_wrong_checksum_ends_the_start() -> Result<()> {
        let (folder, outcome) = run(serve(Server::Altered).await?).await?;
        let told = format!("{:#}", outcome.expect_err("refused"));
        assert!(told.contains("CATAMARAN_DOWNLOAD=off") && told.contains("its project published"), "{told}");
        assert_eq!(files(folder.path()), Vec::<String>::new(), "nothing is kept");
        Ok(())
    }

    #[tokio::test]
    async fn what_is_not_to_be_had_is_left_to_a_build() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let closed = format!("http://{}", listener.local_addr()?);
        drop(listener);
        let nobody = Origins {
            kubernetes: closed.clone(),
            github: closed.clone(),
            github_api: closed.clone(),
            helm: closed,
            plain: true,
        };
        for origins in [serve(Server::Empty).await?, serve(Server::Cut).await?, nobody] {
            let (folder, outcome) = run(origins).await?;
            assert_eq!(outcome?, []);
            assert_eq!(files(folder.path()), Vec::<String>::new());
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_server_that_hangs_is_left_soon() -> Result<()> {
        let start = Instant::now();
        let (_folder, outcome) = run(serve(Server::Silent).await?).await?;
        assert_eq!(outcome?, []);
        assert!(start.elapsed() < SILENT_FOR * 2, "all at once, {:?}", start.elapsed());
        Ok(())
    }

    #[test]
    fn checksums_are_read_as_they_are_published() {
        let sum = "AB".repeat(32);
        let lower = sum.to_ascii_lowercase();
        for (text, expected) in [
            (sum.clone(), Some(lower.clone())),
            (format!("{sum}\n"), Some(lower.clone())),
            (format!("{sum}  etcd.tar.gz\n"), Some(lower.clone())),
            (format!("{}  other\n{sum} *etcd.tar.gz\n", "0".repeat(64)), Some(lower.clone())),
            (format!("{sum}  other\n"), None),
            (format!("{sum}\n{sum}\n"), None),
            ("<html>etcd.tar.gz</html>".to_owned(), None),
            (format!("{}  etcd.tar.gz", &sum[1..]), None),
            (String::new(), None),
        ] {
            assert_eq!(checksum_of("etcd.tar.gz", &text), expected, "{text}");
        }
        let json = format!(r#"{{"assets":[{{"name":"b","digest":null}},{{"name":"a","digest":"sha256:{lower}"}}]}}"#);
        assert_eq!(digest_of("a", &json), Some(lower));
        assert_eq!(digest_of("b", &json), None);
        assert_eq!(digest_of("c", &json), None);
    }

    #[test]
    fn releases_are_where_their_projects_publish_them() {
        let origins = Origins::published().expect("nobody turned it off");
        let arch = if env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
        let version = |tool: Tool| tool.module().version();
        let of = |tool| release(tool, &origins).expect("it is published");
        let kubectl = of(Tool::Kubectl);
        let url = format!("https://dl.k8s.io/{}/bin/linux/{arch}/kubectl", version(Tool::Kubectl));
        assert_eq!(kubectl.checksum, Checksum::Text(format!("{url}.sha256")));
        assert_eq!((kubectl.url, kubectl.member), (url, None));
        let (etcd, v) = (of(Tool::Etcd), version(Tool::Etcd));
        assert_eq!(
            etcd.url,
            format!("https://github.com/etcd-io/etcd/releases/download/{v}/etcd-{v}-linux-{arch}.tar.gz")
        );
        assert_eq!(etcd.member, Some(format!("etcd-{v}-linux-{arch}/etcd")));
        assert_eq!(of(Tool::Helm).member, Some(format!("linux-{arch}/helm")));
        assert_eq!(release(Tool::Kubelet, &origins), None);
    }
}
