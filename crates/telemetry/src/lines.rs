//! Lines of the log on their way out, written by a thread that alone waits for their reader.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::repeats::Repeats;

/// Lines that wait for their reader; further ones are lost, and counted.
const LINES_PENDING_MAX: usize = 8_192;
/// Bytes of the lines that wait.
const BYTES_PENDING_MAX: usize = 4 * 1024 * 1024;
/// How often the thread looks at what it has to tell of by itself.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long a program that ends waits for its last lines to be written.
const FLUSH_MAX: Duration = Duration::from_secs(1);

enum Order {
    Write(Vec<u8>),
    /// Answers once all before it is written.
    Flush(SyncSender<()>),
}

/// The way in.
#[derive(Debug)]
pub(crate) struct Lines {
    orders: SyncSender<Order>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes_pending: AtomicUsize,
    lost: AtomicU64,
    repeats: OnceLock<Arc<Repeats>>,
}

impl Lines {
    /// Starts the thread that writes to `to`.
    pub(crate) fn start(to: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let (orders, receiver) = sync_channel(LINES_PENDING_MAX);
        let state = Arc::new(State::default());
        let of_thread = Arc::clone(&state);
        std::thread::Builder::new()
            .name("brisq-log".to_owned())
            .spawn(move || write_all(&receiver, Sink { to, torn: false }, &of_thread))?;
        Ok(Arc::new(Self { orders, state }))
    }

    /// From now on the thread also tells of lines that were left out.
    pub(crate) fn tell_of(&self, repeats: Arc<Repeats>) {
        // Set once, with the one log of the program.
        let _ = self.state.repeats.set(repeats);
    }

    fn push(&self, line: &[u8]) {
        let pending = self.state.bytes_pending.fetch_add(line.len(), Ordering::Relaxed);
        let fits = pending + line.len() <= BYTES_PENDING_MAX;
        if !fits || self.orders.try_send(Order::Write(line.to_vec())).is_err() {
            self.state.bytes_pending.fetch_sub(line.len(), Ordering::Relaxed);
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A line to write.
    pub(crate) fn line(self: &Arc<Self>) -> Line {
        Line(Arc::clone(self), Vec::new())
    }

    /// Waits until what was logged is written, or the reader is too slow.
    pub(crate) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        let until = Instant::now() + FLUSH_MAX;
        let mut order = Order::Flush(done);
        while let Err(TrySendError::Full(back)) = self.orders.try_send(order) {
            if Instant::now() >= until {
                return;
            }
            order = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        // An error says that the thread has ended or did not get there in time: then nothing more can be done.
        let _ = is_done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

fn write_all<W: Write>(orders: &Receiver<Order>, mut sink: Sink<W>, state: &State) {
    let mut write = |line: Vec<u8>| {
        state.bytes_pending.fetch_sub(line.len(), Ordering::Relaxed);
        if sink.write(&line) {
            tell_of_lost(state);
        } else {
            state.lost.fetch_add(1, Ordering::Relaxed);
        }
    };
    let mut told = Instant::now();
    loop {
        // Not only when no line comes: a log in which much is written would never tell.
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            if let Some(repeats) = state.repeats.get() {
                repeats.tell_due();
            }
        }
        match orders.recv_timeout(TELL_EVERY) {
            Ok(Order::Write(line)) => write(line),
            Ok(Order::Flush(done)) => {
                if let Some(repeats) = state.repeats.get() {
                    repeats.tell_all();
                }
                // What was told just now stands behind this order in the queue.
                while let Ok(order) = orders.try_recv() {
                    if let Order::Write(line) = order {
                        write(line);
                    }
                }
                // Who asked may have stopped to wait.
                let _ = done.try_send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Called where a line has just been written, so that this one has a chance, too. It takes the way of all lines.
fn tell_of_lost(state: &State) {
    let lost = state.lost.swap(0, Ordering::Relaxed);
    if lost > 0 {
        tracing::warn!(lost, "lines of this log were lost: they could not be written, or not fast enough");
    }
}

struct Sink<W> {
    to: W,
    /// The last line was written in part.
    torn: bool,
}

impl<W: Write> Sink<W> {
    /// Whether the whole line was written.
    fn write(&mut self, line: &[u8]) -> bool {
        if self.torn {
            match self.to.write(b"\n") {
                Ok(1) => self.torn = false,
                _ => return false,
            }
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => break,
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.torn = !rest.is_empty() && rest.len() < line.len();
        rest.is_empty()
    }
}

/// One line, given on as a whole when it is complete.
pub(crate) struct Line(Arc<Lines>, Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.1.is_empty() {
            self.0.push(&self.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;

    use super::*;
    use crate::repeats::OneOfMany;

    /// Takes so many bytes, then fails until there is room again.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap();
            let taken = bytes.len().min(*room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= taken;
            written.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_was_full_gets_whole_lines_again() {
        let disk = Disk::default();
        disk.0.lock().unwrap().1 = 6;
        let lines = Lines::start(disk.clone()).unwrap();
        for line in ["one\n", "two\n", "three\n"] {
            lines.push(line.as_bytes());
            lines.flush();
        }
        assert_eq!(lines.state.lost.load(Ordering::Relaxed), 2);
        disk.0.lock().unwrap().1 = 100;
        lines.push(b"four\n");
        lines.flush();
        assert_eq!(String::from_utf8_lossy(&disk.0.lock().unwrap().0), "one\ntw\nfour\n");
        assert_eq!(lines.state.lost.load(Ordering::Relaxed), 0, "the loss was said");
    }

    #[test]
    fn what_is_left_out_is_told_however_much_else_is_logged() {
        let disk = Disk::default();
        disk.0.lock().unwrap().1 = usize::MAX;
        let lines = Lines::start(disk.clone()).unwrap();
        let repeats = Arc::new(Repeats::default());
        lines.tell_of(Arc::clone(&repeats));
        let layer = tracing_subscriber::fmt::layer().with_writer(move || lines.line());
        tracing_subscriber::registry().with(OneOfMany(repeats)).with(layer).init();
        let began = Instant::now();
        while !String::from_utf8_lossy(&disk.0.lock().unwrap().0).contains("left out") {
            assert!(began.elapsed() < Duration::from_secs(12), "not told");
            tracing::warn!("a store call failed");
            tracing::info!("something else");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Never returns while the lock is held.
    struct Stuck(Arc<Mutex<()>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            drop(self.0.lock().unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_has_stopped_holds_nobody_up_and_bounds_lines_and_bytes() {
        for (size, kept_max) in [(10, LINES_PENDING_MAX), (64 * 1024, BYTES_PENDING_MAX / (64 * 1024))] {
            let lock = Arc::new(Mutex::new(()));
            let held = lock.lock().unwrap();
            let lines = Lines::start(Stuck(Arc::clone(&lock))).unwrap();
            let began = Instant::now();
            for _ in 0..3 * LINES_PENDING_MAX {
                lines.push(&vec![b'x'; size]);
            }
            let kept =
                3 * LINES_PENDING_MAX - usize::try_from(lines.state.lost.load(Ordering::Relaxed)).unwrap();
            assert!((1..=kept_max + 1).contains(&kept), "{kept} lines of {size} bytes wait");
            lines.flush();
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
            drop(held);
        }
    }
}
