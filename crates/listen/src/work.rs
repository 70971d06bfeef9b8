//! The work on one request, which may have to be carried out though its client leaves.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::Connection;
use crate::places::Place;

/// A request's work as hyper polls it. hyper drops it as soon as it sees the end of the connection, and sees the request's
/// last byte and the FIN behind it in one look, before the work has begun. What is to be [carried out](Connection::carry_out)
/// goes on as a task of its own then. Its connection and its place stay taken meanwhile, so descriptors keep their bound.
pub struct Work<F: Future + Send + 'static> {
    /// `None` once it is done.
    future: Option<Pin<Box<F>>>,
    begun: bool,
    connection: Connection,
    place: Arc<Place>,
}

impl<F: Future + Send + 'static> Work<F> {
    pub fn new(future: F, connection: Connection, place: Arc<Place>) -> Self {
        Self { future: Some(Box::pin(future)), begun: false, connection, place }
    }
}

impl<F: Future + Send + 'static> Future for Work<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.begun = true;
        let Some(future) = &mut self.future else { return Poll::Pending };
        let polled = future.as_mut().poll(cx);
        if polled.is_ready() {
            self.future = None;
        }
        polled
    }
}

impl<F: Future + Send + 'static> Drop for Work<F> {
    fn drop(&mut self) {
        let Some(mut future) = self.future.take() else { return };
        // Work that has not begun cannot have said what it is.
        let goes_on = !self.begun || self.connection.is_carried_out();
        // Drops may also run where no runtime is left.
        if !goes_on || Handle::try_current().is_err() {
            return;
        }
        let (connection, place) = (self.connection.clone(), Arc::clone(&self.place));
        tokio::spawn(async move {
            poll_fn(|cx| match future.as_mut().poll(cx) {
                Poll::Pending if connection.is_carried_out() => Poll::Pending,
                // Done, or nothing that is done for nobody.
                Poll::Pending | Poll::Ready(_) => Poll::Ready(()),
            })
            .await;
            drop((future, connection, place));
        });
    }
}
