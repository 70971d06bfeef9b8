use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use redis::{ConnectionAddr, IntoConnectionInfo};

/// A PING on a connection of its own, for a canary's thread: SLOWLOG and LATENCY show nothing of a Redis that is
/// paused or stopped. Speaks plain TCP; a Redis that asks for a password answers too, if only to refuse, and that is
/// all the canary wants to know.
#[derive(Debug)]
pub struct RedisPing {
    host: String,
    port: u16,
    stream: Option<TcpStream>,
}

impl RedisPing {
    /// For the first of these URLs; `None` where it is not plain TCP.
    #[must_use]
    pub fn new(urls: &[String]) -> Option<Self> {
        let info = urls.first()?.as_str().into_connection_info().ok()?;
        match info.addr() {
            ConnectionAddr::Tcp(host, port) => Some(Self { host: host.clone(), port: *port, stream: None }),
            _ => None,
        }
    }

    /// One PING and its answer.
    ///
    /// # Errors
    /// When no answer came within `timeout`; the next call connects anew.
    pub fn ping(&mut self, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect(timeout)?,
        };
        stream.set_read_timeout(Some(left(deadline)?))?;
        stream.set_write_timeout(Some(left(deadline)?))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 256];
        let mut read = 0;
        while !answer.get(..read).is_some_and(|bytes| bytes.ends_with(b"\r\n")) {
            let room = answer.get_mut(read..).filter(|room| !room.is_empty());
            let room = room.ok_or_else(|| io::Error::other("the answer to a PING is too long"))?;
            match stream.read(room)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => read += more,
            }
        }
        self.stream = Some(stream);
        Ok(())
    }

    fn connect(&self, timeout: Duration) -> io::Result<TcpStream> {
        let address = (self.host.as_str(), self.port).to_socket_addrs()?.next();
        let address = address.ok_or_else(|| io::Error::other("the host has no address"))?;
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}
