use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// No answer takes longer in a test.
const TIMEOUT: Duration = Duration::from_secs(70);

/// One HTTP/1.1 connection, blocking and plain, so that a test sees the bytes that a server sent.
#[derive(Debug)]
pub struct Http {
    stream: BufReader<TcpStream>,
    token: Option<String>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Head, as it came.
    pub head: String,
    /// Body, as it came.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or("(not UTF-8)")
    }

    /// The body as JSON; `null` when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(header, value)| header.eq_ignore_ascii_case(name).then(|| value.trim()))
    }
}

impl Http {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream: BufReader::new(stream), token: None })
    }

    /// Sends this bearer token with every request.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// The socket, for tests that close or cut it.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// One request with a JSON body (empty: none), and its answer.
    ///
    /// # Errors
    /// When the connection ends before the answer is whole.
    pub fn call(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        self.send(method, path, body)?;
        self.receive()
    }

    /// As [`Self::call`], with the body's type said, for servers that ask for it.
    ///
    /// # Errors
    /// When the connection ends before the answer is whole.
    pub fn call_json(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        self.call_of_type("application/json", method, path, body)
    }

    /// The same for a body of any type.
    ///
    /// # Errors
    /// When the connection ends before the answer is whole.
    pub fn call_of_type(&mut self, kind: &str, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        self.write(method, path, &format!("content-type: {kind}\r\n"), body)?;
        self.receive()
    }

    /// Sends a request without waiting for its answer.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn send(&mut self, method: &str, path: &str, body: &str) -> io::Result<()> {
        self.write(method, path, "", body)
    }

    fn write(&mut self, method: &str, path: &str, fields: &str, body: &str) -> io::Result<()> {
        let token =
            self.token.as_ref().map_or_else(String::new, |t| format!("authorization: Bearer {t}\r\n"));
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{token}{fields}content-length: {length}\r\n\r\n"
        );
        self.stream.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat())
    }

    /// Reads the next answer.
    ///
    /// # Errors
    /// When the connection ends before it is whole.
    pub fn receive(&mut self) -> io::Result<Answer> {
        let mut head = String::new();
        loop {
            let before = head.len();
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if head.get(before..) == Some("\r\n") {
                break;
            }
        }
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut answer = Answer { status: status.unwrap_or(0), head, body: Vec::new() };
        if answer.header("transfer-encoding").is_some() {
            self.read_chunks(&mut answer.body)?;
        } else {
            let length = answer.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
            answer.body = vec![0; length];
            self.stream.read_exact(&mut answer.body)?;
        }
        Ok(answer)
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(());
            }
            body.extend_from_slice(chunk.get(..size).unwrap_or_default());
        }
    }
}
