//! The root shell in a guest: requests and answers over a virtio port. The other side is `e2e/guest/node/shell.go`.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    time::timeout,
};

/// How long an answer may be under way after its command has ended.
const ON_THE_WAY: Duration = Duration::from_secs(30);

/// What a command in the guest left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit status; 128 and more stand for the signal that ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

#[derive(Serialize)]
struct Request<'a> {
    id: u64,
    command: &'a str,
    /// How many bytes for its standard input follow the line.
    input: usize,
    /// Milliseconds.
    within: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    id: u64,
    code: i32,
    timed_out: bool,
    /// How many bytes of standard output follow the line.
    stdout: usize,
    /// And then of standard error.
    stderr: usize,
}

/// Who waits for which answer; `None` once the guest is gone.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<(Answer, Output)>>>>>;

/// The host's end of the shell. Any number of commands may be under way at once.
#[derive(Debug)]
pub(super) struct Shell {
    requests: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Waiting,
    next: AtomicU64,
}

impl Shell {
    /// Connects to the socket that QEMU serves.
    pub(super) async fn connect(socket: &Path) -> Result<Self> {
        let (reader, writer) = UnixStream::connect(socket).await?.into_split();
        let (requests, inbox) = mpsc::unbounded_channel();
        let waiting = Waiting::new(Mutex::new(Some(HashMap::new())));
        // Both end with the guest, or when this is dropped.
        tokio::spawn(write(writer, inbox));
        let answers = waiting.clone();
        tokio::spawn(async move {
            // What is wrong is told to those who wait: the guest is gone.
            let _ = read(BufReader::new(reader), &answers).await;
            answers.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        Ok(Self { requests, waiting, next: AtomicU64::new(0) })
    }

    /// Runs a command by `sh -c` as root; with all that it started it is killed when it takes longer than `within`.
    pub(super) async fn run(&self, command: &str, input: &[u8], within: Duration) -> Result<Output> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(waiting) => waiting.insert(id, sender),
            None => bail!("the guest is gone"),
        };
        let request =
            Request { id, command, input: input.len(), within: u64::try_from(within.as_millis()).unwrap_or(u64::MAX) };
        let mut frame = serde_json::to_vec(&request)?;
        frame.push(b'\n');
        frame.extend_from_slice(input);
        self.requests.send(frame).map_err(|_| anyhow!("the guest is gone"))?;
        let (answer, output) = timeout(within.saturating_add(ON_THE_WAY), receiver)
            .await
            .with_context(|| format!("no answer from the guest to: {command}"))?
            .with_context(|| format!("the guest went away during: {command}"))?;
        ensure!(!answer.timed_out, "not within {within:?} in the guest: {command}\n{}{}", output.stdout, output.stderr);
        Ok(output)
    }
}

/// Whole requests only, so that one that is given up in the middle cannot spoil those after it.
async fn write(mut writer: OwnedWriteHalf, mut requests: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(request) = requests.recv().await {
        if writer.write_all(&request).await.is_err() {
            return;
        }
    }
}

async fn read(mut reader: BufReader<OwnedReadHalf>, waiting: &Waiting) -> Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line).await? > 0, "the guest is gone");
        let answer: Answer = serde_json::from_str(&line)?;
        let stdout = text(&mut reader, answer.stdout).await?;
        let stderr = text(&mut reader, answer.stderr).await?;
        let output = Output { code: answer.code, stdout, stderr };
        let asked = match &mut *waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(waiting) => waiting.remove(&answer.id),
            None => None,
        };
        // Whoever asked may have given up.
        if let Some(asked) = asked {
            let _ = asked.send((answer, output));
        }
    }
}

async fn text(reader: &mut BufReader<OwnedReadHalf>, length: usize) -> Result<String> {
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
