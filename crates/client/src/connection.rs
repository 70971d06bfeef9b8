//! One HTTP/1.1 connection, made by hand: in a benchmark the client shares the machine with the server.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest head of an answer.
const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Longest body of an answer: a claim of 256 tasks with their payloads.
const BODY_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not a URL that this client can call.
    #[error("{0}: give a URL such as http://127.0.0.1:7070 (https is not supported yet)")]
    Url(String),
    /// The server cannot be reached, or the connection ended.
    #[error("{0} cannot be reached: {1}")]
    Io(String, io::Error),
    /// The answer is not understood.
    #[error("the server's answer is not understood: {0}")]
    Answer(String),
    /// The server refused.
    #[error("{code}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Stable code.
        code: String,
        /// For people.
        message: String,
    },
}

impl ClientError {
    /// A short name for counting: the server's code, or what went wrong before it answered.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Url(_) => "url",
            Self::Io(..) => "connection",
            Self::Answer(_) => "answer",
            Self::Refused { code, .. } => code,
        }
    }
}

/// Where a server is, and how to be let in.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`.
    address: Arc<str>,
    /// Head fields that every request carries.
    head: Arc<str>,
}

impl Target {
    /// From a URL such as `http://127.0.0.1:7070` and a bearer token.
    ///
    /// # Errors
    /// When the URL is not of that form.
    pub fn new(url: &str, token: Option<&str>) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url(url.to_owned());
        let address = url.strip_prefix("http://").ok_or_else(wrong)?.trim_end_matches('/');
        if address.is_empty() || address.contains(['/', ' ', '\r', '\n']) {
            return Err(wrong());
        }
        let address = if address.contains(':') { address.to_owned() } else { format!("{address}:80") };
        let token = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
        let head = format!(" HTTP/1.1\r\nhost: {address}\r\n{token}content-length: ");
        Ok(Self { address: address.into(), head: head.into() })
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// An answer's status and body.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// HTTP status.
    pub status: u16,
    /// Body as it came.
    pub body: &'a [u8],
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Connection {
    target: Target,
    stream: Option<TcpStream>,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Connection {
    /// Connects at the first call, and again after one that failed.
    #[must_use]
    pub fn new(target: &Target) -> Self {
        Self { target: target.clone(), stream: None, out: Vec::new(), input: Vec::new() }
    }

    /// One request and its answer.
    ///
    /// # Errors
    /// When the server cannot be reached or its answer is not understood; not for an answer that is an error.
    pub async fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Response<'_>, ClientError> {
        self.out.clear();
        for part in [method, " ", path, &self.target.head] {
            self.out.extend_from_slice(part.as_bytes());
        }
        self.out.extend_from_slice(body.len().to_string().as_bytes());
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(body);
        match self.exchange().await {
            Ok((status, begin, end)) => {
                let body = self.input.get(begin..end).unwrap_or_default();
                Ok(Response { status, body })
            }
            Err(error) => {
                self.stream = None;
                Err(error)
            }
        }
    }

    /// As [`Connection::send`], but an answer that is an error is one.
    ///
    /// # Errors
    /// Also when the server refuses.
    pub async fn call(&mut self, method: &str, path: &str, body: &[u8]) -> Result<&[u8], ClientError> {
        let response = self.send(method, path, body).await?;
        if response.status < 400 {
            return Ok(response.body);
        }
        Err(refusal(response.status, response.body))
    }

    async fn exchange(&mut self) -> Result<(u16, usize, usize), ClientError> {
        let address = Arc::clone(&self.target.address);
        let failed = |error| ClientError::Io(address.to_string(), error);
        // A server that drains ends idle connections: a request sent after its end would be lost.
        if self.stream.as_ref().is_some_and(has_ended) {
            self.stream = None;
        }
        if self.stream.is_none() {
            let stream = TcpStream::connect(&*self.target.address).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else { return Err(failed(io::ErrorKind::NotConnected.into())) };
        stream.write_all(&self.out).await.map_err(failed)?;
        self.input.clear();
        let mut head_end = None;
        loop {
            if stream.read_buf(&mut self.input).await.map_err(failed)? == 0 {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            if head_end.is_none() {
                head_end = end_of_head(&self.input);
            }
            match head_end {
                None if self.input.len() > HEAD_MAX_BYTES => {
                    return Err(ClientError::Answer("its head is too long".to_owned()));
                }
                None => {}
                Some(begin) => {
                    let Head { status, length, last } =
                        read_head(self.input.get(..begin).unwrap_or_default())?;
                    if self.input.len() >= begin + length {
                        if last {
                            self.stream = None;
                        }
                        return Ok((status, begin, begin + length));
                    }
                    self.input.reserve(begin + length - self.input.len());
                }
            }
        }
    }
}

/// Whether the other side has closed a connection on which nothing is awaited, or sent what nobody asked for.
fn has_ended(stream: &TcpStream) -> bool {
    !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn end_of_head(input: &[u8]) -> Option<usize> {
    input.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: usize,
    /// The server takes no further request on this connection.
    last: bool,
}

fn read_head(head: &[u8]) -> Result<Head, ClientError> {
    let strange = |what: &str| ClientError::Answer(what.to_owned());
    let head = std::str::from_utf8(head).map_err(|_| strange("its head is not text"))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| strange("it has no status"))?;
    let field = |wanted: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let last = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    match field("content-length").and_then(|value| value.parse::<usize>().ok()) {
        Some(length) if length <= BODY_MAX_BYTES => Ok(Head { status, length, last }),
        Some(_) => Err(strange("its body is too long")),
        // An answer without content says so by its status.
        None if status == 204 => Ok(Head { status, length: 0, last }),
        None => Err(strange("it has no content-length")),
    }
}

fn refusal(status: u16, body: &[u8]) -> ClientError {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |pointer: &str| value.pointer(pointer).and_then(|v| v.as_str()).map(str::to_owned);
    ClientError::Refused {
        status,
        code: text("/error/code").unwrap_or_else(|| format!("http_{status}")),
        message: text("/error/message").unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        assert_eq!(Target::new("http://a:1/", None).unwrap().address(), "a:1");
        assert_eq!(Target::new("http://a", None).unwrap().address(), "a:80");
        for bad in ["https://a", "a:1", "http://", "http://a/b", "http://a b"] {
            assert!(Target::new(bad, None).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_the_server_ended_while_idle_is_replaced() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        let mut connection = Connection::new(&Target::new(&url, None).unwrap());
        for _ in 0..3 {
            assert_eq!(connection.send("GET", "/", b"").await.unwrap().status, 200);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    #[test]
    fn heads_are_read() {
        let head = b"HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(end_of_head(head), Some(head.len()));
        assert_eq!(read_head(head).unwrap(), Head { status: 201, length: 12, last: false });
        let last = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        assert!(read_head(last).unwrap().last);
        assert!(read_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        let none = b"HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(read_head(none).unwrap(), Head { status: 204, length: 0, last: false });
    }
}
