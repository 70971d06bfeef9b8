use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// An address whose owner changes, as a Service's or a virtual one does: connections that are there stay with the old owner.
#[derive(Debug)]
pub struct Forwarder {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: AtomicU16,
    /// Numbers of connections that pass nothing on any more.
    silent: Mutex<HashSet<u32>>,
    connections: AtomicU32,
    /// How long bytes are under way, µs.
    delay_us: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
    over: AtomicBool,
}

impl Forwarder {
    /// Passes connections on to this port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn to(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            target: AtomicU16::new(target),
            silent: Mutex::default(),
            connections: AtomicU32::new(0),
            delay_us: AtomicU64::new(0),
            open: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.over.load(Ordering::SeqCst) {
                    return;
                }
                // A target that refuses is one whose clients are closed: the stream is dropped.
                let _ = accepting.join(&client);
            }
        });
        Ok(Self { port, shared })
    }

    /// Its own port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on new connections go to this port.
    pub fn turn_to(&self, target: u16) {
        self.shared.target.store(target, Ordering::SeqCst);
    }

    /// These connections, by the order in which they came, pass nothing on any more and are not closed: their machine is gone.
    pub fn swallow(&self, connections: Range<u32>) {
        self.shared.silent.lock().unwrap_or_else(PoisonError::into_inner).extend(connections);
    }

    /// From now on bytes are under way for so long in each direction, those that come together as long as one.
    pub fn delay(&self, by: Duration) {
        self.shared.delay_us.store(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// How many connections there have been.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Closes all connections.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // The other side may have closed it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the thread that accepts, so that it sees its end.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn join(self: &Arc<Self>, client: &TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(("127.0.0.1", self.target.load(Ordering::SeqCst)))?;
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        for (from, to) in [(client, &server), (&server, client)] {
            let (from, to, shared) = (from.try_clone()?, to.try_clone()?, Arc::clone(self));
            thread::spawn(move || shared.pass_on(number, from, to));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.extend([client.try_clone()?, server]);
        Ok(())
    }

    fn pass_on(&self, number: u32, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            thread::sleep(Duration::from_micros(self.delay_us.load(Ordering::SeqCst)));
            let heard = !self.silent.lock().unwrap_or_else(PoisonError::into_inner).contains(&number);
            if heard && to.write_all(bytes.get(..read).unwrap_or_default()).is_err() {
                break;
            }
        }
        // One direction that ends is the end of both.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
