//! What the kernel knows of a client's socket and the handler does not.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// How long ago the kernel received the last data on this TCP socket, or accepted it when there was none yet: the
/// moment a blocked runtime hides from its own handlers. True to a jiffy (1 to 10 ms), so only a difference well
/// above one means anything.
///
/// # Errors
/// Those of getsockopt, such as for a socket that is not TCP.
pub fn last_data_received(socket: BorrowedFd<'_>) -> io::Result<Duration> {
    tcp_info(socket).map(|info| Duration::from_millis(info.tcpi_last_data_recv.into()))
}

/// Whether the peer has ended its side: closed, half-closed or reset. A peer that half-closed could still read, but no
/// HTTP client of ours does so, and a task handed to it is a task lost until its lease runs out. What cannot be asked
/// (not a TCP socket) is not gone.
#[must_use]
pub fn peer_gone(socket: BorrowedFd<'_>) -> bool {
    tcp_info(socket).is_ok_and(|info| {
        matches!(info.tcpi_state, TCP_TIME_WAIT | TCP_CLOSE | TCP_CLOSE_WAIT | TCP_LAST_ACK | TCP_CLOSING)
    })
}

// States of `include/net/tcp_states.h` that follow a peer's FIN or a reset.
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LAST_ACK: u8 = 9;
const TCP_CLOSING: u8 = 11;

#[expect(unsafe_code, reason = "TCP_INFO has no wrapper in std")]
fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed; the kernel writes at most `length` bytes to `info`, which
    // is that long, and the new length to `length`.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `tcp_info` is plain integers: valid when zeroed, whatever part of it the kernel wrote.
    Ok(unsafe { info.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Instant;

    /// A client and the server's end of its connection.
    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Loopback delivers a FIN or a reset at once, but not within the call that sends it.
    fn becomes_gone(server: &TcpStream) -> bool {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if peer_gone(server.as_fd()) {
                return true;
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    }

    #[test]
    fn data_is_as_old_as_it_lay_unread() {
        let (mut client, mut server) = connected();
        thread::sleep(Duration::from_millis(300));
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        let sent = Instant::now();
        thread::sleep(Duration::from_millis(120));
        let age = last_data_received(server.as_fd()).unwrap();
        // One jiffy of 10 ms at most is lost on either side.
        assert!(age >= Duration::from_millis(100), "{age:?}");
        assert!(age <= sent.elapsed() + Duration::from_millis(20), "{age:?}");
    }

    #[test]
    fn a_socket_without_data_is_as_old_as_its_connection() {
        let (_client, server) = connected();
        assert!(last_data_received(server.as_fd()).unwrap() < Duration::from_secs(5));
    }

    #[test]
    fn a_socket_that_is_not_tcp_has_no_data_time_and_no_gone_peer() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(last_data_received(ours.as_fd()).is_err());
        drop(theirs);
        assert!(!peer_gone(ours.as_fd()));
    }

    #[test]
    fn a_peer_that_waits_is_not_gone() {
        let (_client, server) = connected();
        assert!(!peer_gone(server.as_fd()));
    }

    #[test]
    fn a_peer_that_closed_is_gone_even_with_its_data_unread() {
        let (mut client, server) = connected();
        client.write_all(b"request").unwrap();
        drop(client);
        assert!(becomes_gone(&server));
    }

    #[test]
    fn a_peer_that_half_closed_is_gone() {
        let (client, server) = connected();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(becomes_gone(&server));
    }

    #[test]
    fn a_peer_that_reset_is_gone() {
        let (client, mut server) = connected();
        server.write_all(b"never read").unwrap();
        client.set_nonblocking(true).unwrap();
        while client.peek(&mut [0]).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        // Closing with unread data resets the connection.
        drop(client);
        assert!(becomes_gone(&server));
        assert!(server.read(&mut [0]).is_err());
        assert!(peer_gone(server.as_fd()), "also once the error was taken");
    }

    #[test]
    fn our_own_half_close_leaves_the_peer_there() {
        let (_client, server) = connected();
        server.shutdown(Shutdown::Write).unwrap();
        assert!(!peer_gone(server.as_fd()));
    }
}
