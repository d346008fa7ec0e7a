//! What was written to the API server, by whom: read from its audit log.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::sleep;

use crate::control_plane::KWOK_USER;

/// The API server writes an event right after the answer; later than this only on a machine that stands still.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// An event has some hundreds of bytes.
const LONGEST_LINE: u64 = 64 * 1024;

/// The audit log of one control plane. It may be read while it is written.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

/// A place in the audit log: what comes after it was completed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

impl Mark {
    /// The start of the log.
    pub const START: Self = Self(0);
}

/// A request that wanted to change something: create, update, patch, delete or deletecollection. Refused ones are here
/// too, see `code`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// When the API server received the request.
    pub time: Timestamp,
    /// The user's name, such as `system:serviceaccount:catamaran-system:catamaran`.
    pub user: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// The verb, such as `patch`.
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource in the plural, such as `replicasets`.
    pub resource: String,
    /// The subresource, such as `status`; empty for the object itself.
    pub subresource: String,
    /// The namespace; empty for cluster-scoped resources.
    pub namespace: String,
    /// The object's name; empty when the server chose it (generateName).
    pub name: String,
    /// The HTTP status code of the answer.
    pub code: u16,
    /// Whether it was a dry run, which changes nothing.
    pub dry_run: bool,
}

impl Write {
    /// Whether the API server did what was asked, and kept it.
    pub fn took_effect(&self) -> bool {
        (200..300).contains(&self.code) && !self.dry_run
    }

    /// Whether it is a heartbeat of the ground itself: a Lease of a node or of the API server. It goes on while nothing
    /// happens.
    pub fn is_heartbeat(&self) -> bool {
        self.resource == "leases"
            && (self.namespace == "kube-node-lease" && self.user == KWOK_USER
                || self.namespace == "kube-system" && self.user == "system:apiserver")
    }

    /// The resource with its subresource, such as `pods/status`.
    pub fn resource_path(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} {}/{} -> {}",
            self.time,
            self.user,
            self.verb,
            self.resource_path(),
            self.namespace,
            self.name,
            self.code
        )
    }
}

/// Writes by user, verb and resource (with subresource).
pub type Counts = BTreeMap<(String, String, String), usize>;

/// Counts writes by user, verb and resource.
pub fn count<'a>(writes: impl IntoIterator<Item = &'a Write>) -> Counts {
    let mut counts = Counts::new();
    for write in writes {
        let key = (write.user.clone(), write.verb.clone(), write.resource_path());
        *counts.entry(key).or_default() += 1;
    }
    counts
}

impl Audit {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The present end of the log: that of its last whole line.
    pub fn mark(&self) -> Result<Mark> {
        let Some(mut file) = self.open()? else { return Ok(Mark::START) };
        let from = file.metadata()?.len().saturating_sub(LONGEST_LINE);
        file.seek(SeekFrom::Start(from))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        match end.iter().rposition(|byte| *byte == b'\n') {
            Some(newline) => Ok(Mark(from + u64::try_from(newline)? + 1)),
            None if from == 0 => Ok(Mark::START),
            None => bail!("a line of more than {LONGEST_LINE} bytes in {}", self.path.display()),
        }
    }

    /// The writes completed after a mark, in the order of their completion.
    pub fn writes_since(&self, mark: Mark) -> Result<Vec<Write>> {
        let Some(mut file) = self.open()? else { return Ok(Vec::new()) };
        file.seek(SeekFrom::Start(mark.0))?;
        let mut lines = BufReader::new(file);
        let mut writes = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            lines.read_until(b'\n', &mut line)?;
            // A line without an end is still being written: it is left for the next time.
            if line.last() != Some(&b'\n') {
                return Ok(writes);
            }
            let event: Event = serde_json::from_slice(&line)
                .with_context(|| format!("cannot parse {}", String::from_utf8_lossy(&line)))?;
            writes.extend(event.into_write());
        }
    }

    /// The writes received in a span of time, its start included.
    pub fn writes_between(&self, from: Timestamp, to: Timestamp) -> Result<Vec<Write>> {
        let mut writes = self.writes_since(Mark::START)?;
        writes.retain(|write| (from..to).contains(&write.time));
        Ok(writes)
    }

    /// Checks that nothing was written in a span of time, heartbeats of the ground and what `allow` accepts aside.
    /// Waits first until the span is over.
    ///
    /// Errors: there were writes; the message lists them.
    pub async fn assert_quiet(&self, from: Timestamp, to: Timestamp, allow: impl Fn(&Write) -> bool) -> Result<()> {
        // What is received later is completed later: of a span to come, the log so far tells nothing.
        let mark = if from >= Timestamp::now() { self.mark()? } else { Mark::START };
        let left = to.duration_since(Timestamp::now());
        if let Ok(left) = Duration::try_from(left) {
            sleep(left).await;
        }
        sleep(SETTLED_AFTER).await;
        let mut writes = self.writes_since(mark)?;
        writes.retain(|write| (from..to).contains(&write.time) && !write.is_heartbeat() && !allow(write));
        if writes.is_empty() {
            return Ok(());
        }
        let shown: Vec<String> = writes.iter().take(20).map(Write::to_string).collect();
        bail!("{} writes between {from} and {to}, the first of them:\n{}", writes.len(), shown.join("\n"))
    }

    /// Nothing before the API server makes it, with the first event.
    fn open(&self) -> Result<Option<File>> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(format!("cannot read {}", self.path.display())),
        }
    }
}

/// What is used of `audit.k8s.io/v1` Event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<Object>,
    response_status: Option<Status>,
    request_received_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    resource: String,
    namespace: String,
    name: String,
    api_group: String,
    subresource: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl Event {
    /// Nothing for requests that are not for a resource.
    fn into_write(self) -> Option<Write> {
        let object = self.object_ref?;
        Some(Write {
            time: self.request_received_timestamp,
            user: self.user.username,
            user_agent: self.user_agent,
            verb: self.verb,
            group: object.api_group,
            resource: object.resource,
            subresource: object.subresource,
            namespace: object.namespace,
            name: object.name,
            code: self.response_status.map_or(0, |status| status.code),
            dry_run: self.request_uri.contains("dryRun=All"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::{Audit, Mark, count};

    const EVENT: &str = r#"{"kind":"Event","level":"Metadata","stage":"ResponseComplete","requestURI":"/apis/apps/v1/namespaces/a/replicasets/b/status?dryRun=All","verb":"patch","user":{"username":"u","groups":["g"]},"userAgent":"agent/1","objectRef":{"resource":"replicasets","namespace":"a","name":"b","apiGroup":"apps","apiVersion":"v1","subresource":"status"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-11-23T08:00:00.123456Z","stageTimestamp":"2026-11-23T08:00:00.2Z"}"#;

    #[test]
    fn a_line_that_is_being_written_is_read_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::new(path.clone());
        assert_eq!(audit.mark().unwrap(), Mark::START);

        fs::write(&path, format!("{EVENT}\n{}", &EVENT[..40])).unwrap();
        let writes = audit.writes_since(Mark::START).unwrap();
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0].resource_path(), "replicasets/status");
        assert!(writes[0].dry_run && !writes[0].took_effect());
        let mark = audit.mark().unwrap();

        let mut file = fs::File::options().append(true).open(&path).unwrap();
        writeln!(file, "{}", &EVENT[40..]).unwrap();
        let writes = audit.writes_since(mark).unwrap();
        assert_eq!(writes.len(), 1);
        let key = ("u".to_owned(), "patch".to_owned(), "replicasets/status".to_owned());
        assert_eq!(count(&writes)[&key], 1);
    }
}
