//! A client that sends what it is told to, whether or not that is the protocol.

use anyhow::{Context, Result};
use catamaran_protocol::stream::proto::{
    Hello, Report, StreamRequest, StreamResponse, stream_request::Message, usage_intake_client::UsageIntakeClient,
};
use futures::stream;
use tokio::sync::mpsc;
use tonic::{
    Request, Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::support::{Ground, SERVER_NAME, soon};

/// A stream that was opened.
pub struct RawStream {
    pub sender: mpsc::Sender<StreamRequest>,
    pub answers: Streaming<StreamResponse>,
}

pub fn hello(node: &str) -> StreamRequest {
    StreamRequest { message: Some(Message::Hello(Hello { node: node.to_owned(), boot_id: "boot-1".to_owned() })) }
}

pub fn report(report: Report) -> StreamRequest {
    StreamRequest { message: Some(Message::Report(report)) }
}

impl Ground {
    /// A connection to the intake.
    pub async fn connect(&self) -> Result<Channel> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(std::fs::read(&self.ca_file)?))
            .domain_name(SERVER_NAME);
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address))?.tls_config(tls)?;
        soon("a connection", endpoint.connect()).await?.context("no connection")
    }

    /// Opens a stream with a first message.
    pub async fn open(&self, token: Option<&str>, first: StreamRequest) -> Result<Result<RawStream, Status>> {
        let channel = self.connect().await?;
        open_on(channel, token, first).await
    }
}

/// Opens a stream on a connection.
pub async fn open_on(channel: Channel, token: Option<&str>, first: StreamRequest) -> Result<Result<RawStream, Status>> {
    let (sender, messages) = mpsc::channel(16);
    sender.send(first).await?;
    let messages =
        stream::unfold(messages, |mut messages| async { messages.recv().await.map(|message| (message, messages)) });
    let mut request = Request::new(messages);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    }
    let answer = soon("an answer", UsageIntakeClient::new(channel).stream(request)).await?;
    Ok(answer.map(|answer| RawStream { sender, answers: answer.into_inner() }))
}

impl RawStream {
    /// The next sequence that is acknowledged.
    pub async fn acknowledged(&mut self) -> Result<u64> {
        let answer = soon("an acknowledgement", self.answers.message()).await??;
        Ok(answer.context("the stream ended")?.acknowledged)
    }

    /// How the stream ends, after any acknowledgements.
    pub async fn end(&mut self) -> Result<Status> {
        loop {
            match soon("the end", self.answers.message()).await? {
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("the stream ended without a status"),
                Err(status) => return Ok(status),
            }
        }
    }
}
