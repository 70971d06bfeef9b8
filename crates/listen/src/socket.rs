//! The stream as hyper drives it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Connection;

/// Notes what passes in the connection's state.
#[derive(Debug)]
pub struct Socket(pub Connection);

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.0.stream();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let unfilled = buf.initialize_unfilled();
            match stream.try_read(unfilled) {
                Ok(read) => {
                    let bytes = unfilled.get(..read).unwrap_or_default();
                    if !bytes.is_empty() {
                        self.0.with(|state| state.came(bytes, Instant::now()));
                    }
                    buf.advance(read);
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
        let first = slices.iter().find(|slice| !slice.is_empty());
        if first.is_some_and(|bytes| self.0.with(|state| state.refuses(bytes))) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let stream = self.0.stream();
        loop {
            let Poll::Ready(ready) = stream.poll_write_ready(cx) else {
                self.0.with(|state| state.blocked(Instant::now()));
                return Poll::Pending;
            };
            ready?;
            match stream.try_write_vectored(slices) {
                Ok(written) => {
                    if written > 0 {
                        // Called outside the state's lock.
                        let calls = self.0.with(crate::state::State::went);
                        calls.into_iter().for_each(|call| call());
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

    /// hyper flushes when it has handed over all that it has.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.with(|state| state.flushed(Instant::now()));
        Poll::Ready(Ok(()))
    }

    /// The FIN is sent by whoever drives the connection: a refusal may have to go out before.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
