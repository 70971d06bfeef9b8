//! What other threads tell the loop. Nobody waits for anybody: the loop looks ten times a second.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brisq_recorder::wire::Frame;
use brisq_slo::Objective;

use crate::events::{CaptureOrder, Refused, Settings};

/// Ordered captures that wait for their turn.
pub(super) const ORDERS_PENDING_MAX: usize = 8;

#[derive(Default)]
pub(super) struct Inbox(Mutex<Told>);

/// What the loop has not heard yet.
#[derive(Default)]
struct Told {
    news: News,
    orders: VecDeque<CaptureOrder>,
    again: Option<Connection>,
    over: bool,
}

/// Frames of the process, and where it says goodbye.
pub(super) type Connection = (Receiver<Arc<Frame>>, Arc<AtomicBool>);

/// What came since the loop looked last.
#[derive(Default)]
pub(super) struct News {
    /// Judge by another objective, or by none.
    pub(super) armed: Option<Option<Objective>>,
    /// Work otherwise.
    pub(super) settings: Option<Settings>,
    /// Captures that were begun and failed.
    pub(super) failed: u32,
    pub(super) stop: bool,
}

impl Inbox {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn news(&self) -> News {
        std::mem::take(&mut self.told().news)
    }

    pub(super) fn arm(&self, objective: Option<Objective>) {
        self.told().news.armed = Some(objective);
    }

    pub(super) fn adjust(&self, settings: Settings) {
        self.told().news.settings = Some(settings);
    }

    pub(super) fn capture_failed(&self) {
        self.told().news.failed += 1;
    }

    /// Gives the connection back when it is too late.
    pub(super) fn go_on(&self, again: Connection) -> Result<(), Connection> {
        let mut told = self.told();
        if told.over {
            return Err(again);
        }
        told.again = Some(again);
        Ok(())
    }

    pub(super) fn again(&self) -> Option<Connection> {
        self.told().again.take()
    }

    pub(super) fn stop(&self) {
        self.told().news.stop = true;
    }

    pub(super) fn order(&self, order: CaptureOrder) -> Result<(), Refused> {
        let mut told = self.told();
        if told.over {
            return Err(Refused::Over);
        }
        if told.orders.len() >= ORDERS_PENDING_MAX {
            return Err(Refused::Full);
        }
        told.orders.push_back(order);
        Ok(())
    }

    pub(super) fn waits_for(&self, name: &str) -> bool {
        self.told().orders.iter().any(|order| order.name == name)
    }

    /// The order whose turn it is. It waits here until it is [`Self::served`], so that a caller who asks for it meanwhile
    /// finds it waiting or begun, and never neither.
    pub(super) fn first_order(&self) -> Option<CaptureOrder> {
        self.told().orders.front().cloned()
    }

    pub(super) fn served(&self) {
        self.told().orders.pop_front();
    }

    /// Takes no more orders.
    pub(super) fn close(&self) {
        self.told().over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.told().over
    }
}
