use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::state::{RequestTimes, State};

/// What a request's handler may know of its connection: every request carries one among its extensions. The stream itself
/// is shared, never duplicated: a second descriptor would delay the FIN.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stream: TcpStream,
    state: Mutex<State>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Shared { stream, state: Mutex::new(State::new(Instant::now())) }))
    }

    /// When the request that is being served came.
    #[must_use]
    pub fn request(&self) -> RequestTimes {
        self.0.state.lock().request()
    }

    /// Has `call` called once the first byte of the answer is handed to the socket. If the connection ends before, `call`
    /// is dropped.
    pub fn on_first_byte(&self, call: impl FnOnce() + Send + 'static) {
        self.0.state.lock().on_first_byte(Box::new(call));
    }

    /// Until what this answers is dropped, the request that is being served is carried out though its client leaves. All else
    /// is dropped then. To be called before the request's body is waited for: what came whole counts, and nobody asks again.
    #[must_use = "the request is carried out for as long as this is kept"]
    pub fn carry_out(&self) -> CarryingOut {
        self.with(|state| state.carry_out(true));
        CarryingOut(self.clone())
    }

    pub(crate) fn is_carried_out(&self) -> bool {
        self.with(|state| state.is_carried_out())
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.0.stream
    }

    /// Works on the state; nothing waits in `work`.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.state.lock())
    }
}

/// The request of a connection is carried out for as long as this is kept.
#[derive(Debug)]
pub struct CarryingOut(Connection);

impl Drop for CarryingOut {
    fn drop(&mut self) {
        self.0.with(|state| state.carry_out(false));
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.stream.as_fd()
    }
}
