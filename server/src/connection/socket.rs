//! A TCP stream that remembers when its requests began and tells waiting claims when their answer went out.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use brisq_recorder::{last_data_received, peer_gone};
use parking_lot::Mutex;
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::handout::HandedOut;

/// `TCP_INFO` counts in jiffies: below this age an arrival time of its is noise.
const ARRIVAL_GRAIN: Duration = Duration::from_millis(12);

/// What the connection is doing; decides which timeout applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle(Instant),
    /// The first bytes of a request came at this time, its head is not complete.
    Head(Instant),
    /// A request is being served.
    Serving,
}

#[derive(Debug)]
struct Shared {
    phase: Phase,
    request_began: Instant,
    serving: usize,
    handed_out: SmallVec<[HandedOut; 1]>,
}

/// What a request's handler may know of its connection. The stream itself is shared, never duplicated: a second
/// descriptor would delay the FIN.
#[derive(Clone, Debug)]
pub struct Connection {
    stream: Arc<TcpStream>,
    shared: Arc<Mutex<Shared>>,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        let now = Instant::now();
        let shared =
            Shared { phase: Phase::Head(now), request_began: now, serving: 0, handed_out: SmallVec::new() };
        Self { stream: Arc::new(stream), shared: Arc::new(Mutex::new(shared)) }
    }

    /// What it is doing now.
    pub fn phase(&self) -> Phase {
        self.shared.lock().phase
    }

    /// A request's head is complete and its handler runs.
    pub fn begin_serving(&self) {
        let mut shared = self.shared.lock();
        shared.serving += 1;
        shared.phase = Phase::Serving;
    }

    /// The handler answered, or was dropped.
    pub fn end_serving(&self) {
        let mut shared = self.shared.lock();
        shared.serving = shared.serving.saturating_sub(1);
        if shared.serving == 0 {
            shared.phase = Phase::Idle(Instant::now());
        }
    }

    /// When the first bytes of the request that is being served could be read. A runtime that was busy elsewhere
    /// read them late: where the kernel had its last data clearly earlier, that time counts.
    pub fn request_began(&self) -> Instant {
        let began = self.shared.lock().request_began;
        match last_data_received(self.stream.as_fd()) {
            Ok(age) if age >= ARRIVAL_GRAIN => {
                Instant::now().checked_sub(age).map_or(began, |arrived| arrived.min(began))
            }
            _ => began,
        }
    }

    /// Whether the client closed its side: what is written now is read by nobody.
    pub fn client_is_gone(&self) -> bool {
        peer_gone(self.stream.as_fd())
    }

    /// Keeps the claimed tasks until the first byte of the answer is handed to the socket. If the connection ends
    /// before, they are dropped, which gives them back.
    pub fn hand_out(&self, claim: HandedOut) {
        self.shared.lock().handed_out.push(claim);
    }

    fn bytes_came(&self) {
        let mut shared = self.shared.lock();
        if let Phase::Idle(_) = shared.phase {
            let now = Instant::now();
            shared.phase = Phase::Head(now);
            shared.request_began = now;
        }
    }

    fn bytes_went(&self) {
        let claims = {
            let mut shared = self.shared.lock();
            if shared.handed_out.is_empty() {
                return;
            }
            std::mem::take(&mut shared.handed_out)
        };
        for claim in claims {
            claim.written();
        }
    }
}

/// The stream as hyper drives it.
#[derive(Debug)]
pub struct Socket(pub Connection);

impl Socket {
    fn raw(&self) -> &TcpStream {
        &self.0.stream
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            std::task::ready!(self.raw().poll_read_ready(cx))?;
            match self.raw().try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    if read > 0 {
                        buf.advance(read);
                        self.0.bytes_came();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.raw().poll_write_ready(cx))?;
            match self.raw().try_write_vectored(slices) {
                Ok(written) => {
                    if written > 0 {
                        self.0.bytes_went();
                    }
                    return Poll::Ready(Ok(written));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shut_down_write(self.raw()))
    }
}

/// Sends the FIN. `TcpStream` only offers it through a `&mut`, which a shared stream has not.
fn shut_down_write(stream: &TcpStream) -> io::Result<()> {
    match SockRef::from(stream).shutdown(Shutdown::Write) {
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}
