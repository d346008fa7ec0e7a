//! Connections: TLS, its certificate, and peers that hold one without using it.

use std::time::Duration;

use anyhow::{Context, Result};
use catamaran_operator::intake::settings::Timing;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use crate::{
    raw::{hello, report},
    support::{Authority, Differences, Ground, eventually, pod, snapshot, soon},
};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn peers_without_tls_are_dropped() -> Result<()> {
    let timing = Timing { handshake: SHORT, ..Timing::default() };
    let ground = Ground::start(Differences { timing, ..Differences::default() }).await?;
    // One says nothing, the other speaks plain HTTP/2, the third noise.
    for first in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0xFF; 4096]] {
        let mut connection = TcpStream::connect(ground.address).await?;
        connection.write_all(first).await?;
        let mut rest = Vec::new();
        // Either an end or a reset.
        let _ = soon("the end of the connection", connection.read_to_end(&mut rest)).await?;
    }
    eventually("no connection is left", || (ground.metric("usage_connections") == 0.0).then_some(())).await?;
    Ok(())
}

#[tokio::test]
async fn a_connection_without_a_stream_is_closed() -> Result<()> {
    let timing = Timing { unused: SHORT, ..Timing::default() };
    let ground = Ground::start(Differences { timing, ..Differences::default() }).await?;
    let token = ground.tokens.issue("node-1");
    let used = ground.open(Some(&token), hello("node-1")).await?.expect("a good token");
    let unused = ground.connect().await?;
    eventually("both are there", || (ground.metric("usage_connections") == 2.0).then_some(())).await?;
    eventually("one is closed", || (ground.metric("usage_connections") == 1.0).then_some(())).await?;
    used.sender.send(report(Default::default())).await?;
    drop(unused);
    Ok(())
}

#[tokio::test]
async fn an_unknown_authority_is_not_trusted() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    let agent = ground.agent("node-1")?;
    std::fs::write(&ground.ca_file, Authority::new()?.certificate())?;
    let agent = ground.agent_with("node-1", &std::fs::read_to_string(agent.token_file())?)?;
    let error = eventually("an error", || agent.status().last_error).await?;
    assert!(error.contains("UnknownIssuer") || error.contains("BadSignature"), "{error}");
    assert_eq!(ground.metric("usage_reports_total"), 0.0);
    Ok(())
}

#[tokio::test]
async fn a_bad_certificate_at_the_start_is_tried_again() -> Result<()> {
    let timing = Timing { certificate: Duration::from_millis(50), ..Timing::default() };
    let ground = Ground::start(Differences { timing, broken_certificate: true, ..Differences::default() }).await?;
    eventually("the error is counted, more than once", || {
        (ground.metric("usage_certificate_reads_total{outcome=\"Failure\"}") > 1.0).then_some(())
    })
    .await?;
    assert_eq!(ground.metric("usage_certificate_in_use"), 0.0);
    let authority = Authority::new()?;
    authority.sign(&ground.files)?;
    std::fs::write(&ground.ca_file, authority.certificate())?;
    eventually("it is used", || (ground.metric("usage_certificate_in_use") > 0.0).then_some(())).await?;
    ground.connect().await?;
    Ok(())
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart() -> Result<()> {
    let timing = Timing { certificate: Duration::from_millis(50), ..Timing::default() };
    let ground = Ground::start(Differences { timing, ..Differences::default() }).await?;
    ground.pods.everywhere();
    let (old, web) = (ground.agent("node-1")?, pod("web", "1"));
    old.report(snapshot(1_000, &[(&web, 0)])).await?;

    // A broken one is told, and the old one stays in use.
    let good = std::fs::read(&ground.files.certificate)?;
    std::fs::write(&ground.files.certificate, "not a certificate")?;
    eventually("the error is counted", || {
        (ground.metric("usage_certificate_reads_total{outcome=\"Failure\"}") > 0.0).then_some(())
    })
    .await?;
    ground.connect().await.context("the old certificate")?;
    std::fs::write(&ground.files.certificate, good)?;

    let authority = Authority::new()?;
    authority.sign(&ground.files)?;
    std::fs::write(&ground.ca_file, authority.certificate())?;
    eventually("the new one is read", || {
        (ground.metric("usage_certificate_reads_total{outcome=\"Success\"}") > 0.0).then_some(())
    })
    .await?;
    let new = ground.agent("node-2")?;
    new.report(snapshot(1_000, &[(&pod("api", "2"), 0)])).await?;
    // The stream that was open goes on.
    old.report(snapshot(1_500, &[(&web, 250_000)])).await?;
    assert_eq!((old.status().streams, ground.millicores(&web)), (1, Some(500)));
    Ok(())
}

#[tokio::test]
async fn other_calls_are_not_implemented() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    let mut client = tonic::client::Grpc::new(ground.connect().await?);
    client.ready().await?;
    let codec = tonic_prost::ProstCodec::<
        catamaran_protocol::stream::proto::Hello,
        catamaran_protocol::stream::proto::Hello,
    >::default();
    let path = "/catamaran.usage.v1alpha1.UsageIntake/Other".parse()?;
    let request = tonic::Request::new(catamaran_protocol::stream::proto::Hello::default());
    let status = client.unary(request, path, codec).await.expect_err("no such call");
    assert_eq!(status.code(), Code::Unimplemented);
    Ok(())
}

#[tokio::test]
async fn bytes_that_are_no_message_end_the_stream() -> Result<()> {
    let ground = Ground::start(Differences::default()).await?;
    let token = ground.tokens.issue("node-1");
    // `Container` has a text where `StreamRequest` has a message.
    let noise =
        catamaran_protocol::stream::proto::Container { name: "\u{7f}\u{7f}\u{7f}".to_owned(), id: String::new() };
    let mut client = tonic::client::Grpc::new(ground.connect().await?);
    client.ready().await?;
    let codec = tonic_prost::ProstCodec::<_, catamaran_protocol::stream::proto::StreamResponse>::default();
    let path = "/catamaran.usage.v1alpha1.UsageIntake/Stream".parse()?;
    let mut request = tonic::Request::new(futures::stream::iter([noise]));
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    let status = client.streaming(request, path, codec).await.expect_err("no message");
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    Ok(())
}
