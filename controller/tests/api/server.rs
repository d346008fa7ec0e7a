//! A server that does one thing after the other, whatever it is asked.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use catamaran_controller::client::{Limits, connect_within};
use kube::{Client, Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Short ones, so that tests are.
pub const LIMITS: Limits = Limits {
    connect: Duration::from_millis(300),
    answer: Duration::from_millis(600),
    silence: Duration::from_millis(900),
    pause: Duration::from_millis(10),
};

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Does {
    /// Answers with this text, byte for byte, and closes the connection.
    Says(String),
    /// Says this and nothing more, and keeps the connection.
    SaysAndHangs(String),
    /// Closes the connection.
    Resets,
}

/// Nothing, for as long as the client waits.
pub const HANGS: Does = Does::SaysAndHangs(String::new());

/// An answer with its length; `head` is the status line and headers.
pub fn answer(head: &str, body: &str) -> Does {
    Does::Says(format!("HTTP/1.1 {}\r\nContent-Length: {}\r\n\r\n{body}", head.replace('\n', "\r\n"), body.len()))
}

/// An object.
pub fn found() -> Does {
    answer("200 OK", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{}}"#)
}

/// The head of a watch's answer, and these events.
pub fn stream(events: &[&str]) -> String {
    let chunks = events.iter().map(|event| format!("{:x}\r\n{event}\n\r\n", event.len() + 1));
    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunks.collect::<String>())
}

/// The end of a stream.
pub const END: &str = "0\r\n\r\n";

pub struct Server {
    pub client: Client,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// A server that does these, and the last of them for ever.
    pub async fn start(does: Vec<Does>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address")).parse().expect("a URL");
        let (does, requests) = (Arc::new(does), Arc::new(Mutex::new(Vec::new())));
        let log = requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, does.clone(), log.clone()));
            }
        });
        Self { client: connect_within(Config::new(url), LIMITS).expect("a client"), requests }
    }

    /// The request lines so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut stream: TcpStream, does: Arc<Vec<Does>>, log: Arc<Mutex<Vec<String>>>) {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(length) if length > 0 => head.extend_from_slice(&buffer[..length]),
            Ok(_) | Err(_) => return,
        }
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let nth = {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(line);
        log.len() - 1
    };
    match &does[nth.min(does.len() - 1)] {
        Does::Says(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Does::SaysAndHangs(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            // Until the client closes it.
            while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
        }
        Does::Resets => {}
    }
}
