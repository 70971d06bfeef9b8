//! Frames over a Unix socket: the sidecar starts first and listens, the recorded process connects and sends.
//!
//! A message is its length in bytes (4, big endian) and JSON; an empty one says goodbye, so that a receiver can tell an end
//! from a crash. Sending never holds anything up: it is done on a thread
//! of its own, a receiver that does not keep up loses frames, and one that is gone is looked for again each second.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Recorder;
use crate::engine::spawn_thread;
use crate::wire::{Frame, Hello, PROTOCOL_VERSION};

/// Largest message; a frame of a busy server has some hundred KiB.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Frames that wait on either side, s; what comes beyond is lost.
const FRAMES_PENDING_MAX: usize = 5;
/// After a connection that ended or was refused.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// A receiver that takes nothing for this long is left.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// A process that connects says who it is within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// What comes from a process that has connected.
#[derive(Debug)]
pub struct Received {
    /// Who it is.
    pub hello: Hello,
    /// Its frames; they end with its connection. A process that is stopped or gets no CPU sends none and ends none: the
    /// kernel closes the connection of one that has died.
    pub frames: Receiver<Arc<Frame>>,
    /// Whether it said goodbye before it ended.
    pub goodbye: Arc<AtomicBool>,
}

/// Sends hello and frames to whoever listens at `socket`, until the recorder ends or is gone. The thread then ends within
/// some seconds.
///
/// # Errors
/// When the thread cannot be started.
pub fn send_frames(recorder: &Arc<Recorder>, socket: PathBuf) -> io::Result<JoinHandle<()>> {
    let recorder = Arc::downgrade(recorder);
    spawn_thread("brisq-frames", move || {
        while let Some(frames) = connect(&recorder, &socket) {
            if let Some((mut stream, frames)) = frames {
                // An end of either side is no error: the recorder has ended, or the sidecar has and may come back.
                let sent = frames.iter().try_for_each(|frame| send(&mut stream, frame.as_ref()));
                if sent.is_ok() {
                    // Whoever does not hear it takes the end for a crash, which costs a capture and nothing else.
                    let _ = stream.write_all(&[0; 4]);
                    return;
                }
            }
            sleep(RECONNECT_PAUSE);
        }
    })
}

/// `None` when the recorder is gone; `Some(None)` when nobody listens.
fn connect(recorder: &Weak<Recorder>, socket: &Path) -> Option<Option<(UnixStream, Receiver<Arc<Frame>>)>> {
    let recorder = recorder.upgrade().filter(|recorder| !recorder.has_ended())?;
    let greeted = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        send(&mut stream, &recorder.hello())?;
        Ok::<_, io::Error>(stream)
    };
    Some(greeted().ok().map(|stream| (stream, recorder.subscribe(FRAMES_PENDING_MAX))))
}

/// Reads the hello of a process that has connected, and from then on its frames. They end with the process.
///
/// # Errors
/// When it does not say hello in time or in another version of the protocol.
pub fn receive_frames(mut stream: UnixStream) -> io::Result<Received> {
    stream.set_read_timeout(Some(HELLO_TIMEOUT))?;
    let hello: Hello = receive(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if hello.protocol != PROTOCOL_VERSION {
        let text = format!("the server speaks protocol {}, this program {PROTOCOL_VERSION}", hello.protocol);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    stream.set_read_timeout(None)?;
    let (sender, frames) = sync_channel(FRAMES_PENDING_MAX);
    let goodbye = Arc::new(AtomicBool::new(false));
    let said = Arc::clone(&goodbye);
    spawn_thread("brisq-frames", move || {
        loop {
            match receive(&mut stream) {
                Ok(Some(frame)) => {
                    if matches!(sender.try_send(Arc::new(frame)), Err(TrySendError::Disconnected(_))) {
                        return;
                    }
                }
                Ok(None) => return said.store(true, Ordering::SeqCst),
                Err(_) => return,
            }
        }
    })?;
    Ok(Received { hello, frames, goodbye })
}

fn send<T: Serialize>(stream: &mut UnixStream, message: &T) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length as usize <= MESSAGE_MAX_BYTES);
    let length = length.ok_or(io::ErrorKind::FileTooLarge)?;
    bytes.splice(..4, length.to_be_bytes());
    stream.write_all(&bytes)
}

/// `None` is goodbye.
fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length == 0 {
        return Ok(None);
    }
    if length > MESSAGE_MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    stream.take(length as u64).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;
    use crate::{ClaimLog, RecorderConfig};

    fn recorder() -> Arc<Recorder> {
        let claims = Arc::new(ClaimLog::new(Duration::from_millis(5)));
        Arc::new(Recorder::start(RecorderConfig { claims, engine: false }).unwrap())
    }

    #[test]
    fn frames_cross_the_socket_and_a_sidecar_that_comes_back_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profiler.sock");
        let recorder = recorder();
        send_frames(&recorder, path.clone()).unwrap();
        for _ in 0..2 {
            let listener = UnixListener::bind(&path).unwrap();
            let Received { hello, frames, .. } = receive_frames(listener.accept().unwrap().0).unwrap();
            assert_eq!(hello, recorder.hello());
            let first = frames.recv_timeout(Duration::from_secs(5)).unwrap();
            let second = frames.recv_timeout(Duration::from_secs(5)).unwrap();
            assert_eq!(first.uptime_ms + (second.to_ms - second.from_ms), second.uptime_ms);
            drop((listener, frames));
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn frames_end_with_the_recorder_which_says_goodbye() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profiler.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let recorder = recorder();
        let sender = send_frames(&recorder, path).unwrap();
        let Received { frames, goodbye, .. } = receive_frames(listener.accept().unwrap().0).unwrap();
        recorder.end();
        sender.join().unwrap();
        let began = Instant::now();
        while frames.recv_timeout(Duration::from_secs(5)).is_ok() {}
        assert!(began.elapsed() < Duration::from_secs(5), "the end was seen as one");
        assert!(goodbye.load(Ordering::SeqCst));
    }

    #[test]
    fn another_protocol_and_noise_are_refused() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let hello = Hello { protocol: PROTOCOL_VERSION + 1, ..recorder().hello() };
        send(&mut ours, &hello).unwrap();
        assert!(receive_frames(theirs).unwrap_err().to_string().contains("protocol"));
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&[0xff; 64]).unwrap();
        assert_eq!(receive_frames(theirs).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
