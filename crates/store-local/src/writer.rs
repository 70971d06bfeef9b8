//! The one thread that writes: gathers calls, commits them together, answers; and opens the file anew when a commit failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use brisq_model::UnixMs;
use brisq_store::{Clock, Readings, StoreError};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::calls::{Call, Deliver};
use crate::config::{Durability, OpenError, Progress};
use crate::file::{self, StoreFile};
use crate::open::{GRAIN, Group, OpenStore, on_disk};
use crate::reserve::{Reserve, Room};
use crate::stats::CommitStats;

/// Calls of one commit.
const CALLS_PER_COMMIT_MAX: usize = 512;
/// Between two tries to open a file that failed.
const REOPEN_EVERY: Duration = Duration::from_secs(1);
/// Between two tries to make room inside the file.
const COMPACT_EVERY: Duration = Duration::from_secs(5);

/// Everything the writer's thread owns.
pub struct Writer {
    pub file: StoreFile,
    pub durability: Durability,
    pub stats: Arc<CommitStats>,
    pub readings: Box<dyn Fn() -> Readings + Send>,
    pub clock: Clock,
    pub reserve: Reserve,
    /// When the file was compacted last to make room.
    pub compacted_at: Option<Instant>,
    pub condition: Condition,
}

/// How it stands with the file.
pub enum Condition {
    /// Memory and file agree.
    Whole(Box<OpenStore>),
    /// They may not: the file is closed, and opened anew as soon as that can be done.
    Broken { why: StoreError, retry_at: Instant },
}

/// What the writer's thread does next.
enum Turn {
    Serve(Vec<Call>),
    Close(Vec<Call>),
}

/// Opens the file and reads it; the clock goes on behind the last time that was written down.
pub fn open(
    file: &StoreFile,
    readings: Readings,
    progress: &mut Progress,
) -> Result<(Clock, OpenStore), OpenError> {
    let database = file.open()?;
    let damaged = |error| OpenError::Damaged(file.place(), error);
    let last = file::last_clock(&database).map_err(damaged)?;
    let floor = if last == UnixMs(0) { last } else { last.plus_ms(GRAIN.as_millis() as u64) };
    let mut clock = Clock::new(floor, readings);
    let contents =
        file::read(&database, file.bytes_on_disk(), clock.tell(readings), progress).map_err(damaged)?;
    Ok((clock, OpenStore::new(database, contents)))
}

impl Writer {
    /// Serves calls until it is closed or all senders are gone. `runtime` is only there to wait with a time limit.
    pub fn run(mut self, mut calls: mpsc::Receiver<Call>, runtime: &Runtime) {
        loop {
            match self.next_turn(&mut calls, runtime) {
                Turn::Serve(group) => self.serve(group),
                Turn::Close(mut group) => {
                    let close = group.pop();
                    self.serve(group);
                    self.finish();
                    drop(calls);
                    if let Some(Call::Close(reply)) = close {
                        let _ = reply.send(Ok(()));
                    }
                    return;
                }
            }
        }
    }

    /// Waits for a call or for work of its own, and takes what else has gathered.
    fn next_turn(&mut self, calls: &mut mpsc::Receiver<Call>, runtime: &Runtime) -> Turn {
        let first = match self.next_wake() {
            None => runtime.block_on(calls.recv()),
            Some(at) => {
                let waited =
                    runtime.block_on(async { tokio::time::timeout_at(at.into(), calls.recv()).await });
                let Ok(first) = waited else { return Turn::Serve(Vec::new()) };
                first
            }
        };
        let Some(first) = first else { return Turn::Close(Vec::new()) };
        let mut group = vec![first];
        while group.len() < CALLS_PER_COMMIT_MAX && !matches!(group.last(), Some(Call::Close(_))) {
            let Ok(next) = calls.try_recv() else { break };
            group.push(next);
        }
        let closes = matches!(group.last(), Some(Call::Close(_)));
        if closes { Turn::Close(group) } else { Turn::Serve(group) }
    }

    fn next_wake(&mut self) -> Option<Instant> {
        let now = self.now();
        match &self.condition {
            Condition::Whole(open) => open.next_wake(now),
            Condition::Broken { retry_at, .. } => Some(*retry_at),
        }
    }

    fn now(&mut self) -> UnixMs {
        self.clock.tell((self.readings)())
    }

    fn serve(&mut self, calls: Vec<Call>) {
        let readings = (self.readings)();
        let now = self.clock.tell(readings);
        if let Condition::Broken { retry_at, .. } = &self.condition
            && *retry_at <= Instant::now()
        {
            self.mend();
        }
        let open = match &mut self.condition {
            Condition::Whole(open) => open,
            Condition::Broken { why, .. } => {
                calls.into_iter().for_each(|call| call.refuse(why));
                return;
            }
        };
        let mut deliveries: Vec<Deliver> = Vec::with_capacity(calls.len());
        let wanted: u64 = calls.iter().map(on_disk).sum();
        let mut room = if wanted > 0 { self.reserve.room() } else { Room::default() };
        let crowded = !room.has(wanted) && self.compacted_at.is_none_or(|at| at.elapsed() >= COMPACT_EVERY);
        let compacted = if crowded && open.is_mostly_air(self.file.bytes_on_disk()) {
            self.compacted_at = Some(Instant::now());
            let compacted = unless_it_panics(|| open.compact());
            room = self.reserve.room();
            compacted
        } else {
            Ok(())
        };
        let group = Group {
            calls,
            now,
            wall: readings.wall,
            durability: self.durability,
            stats: &self.stats,
            deliveries: &mut deliveries,
            room,
        };
        let outcome = compacted.and_then(|()| unless_it_panics(|| open.commit(group)));
        // Calls that were not reached are dropped with their replies, which their callers see as unavailable.
        deliveries.into_iter().for_each(|deliver| deliver(outcome.as_ref().err()));
        if let Err(error) = outcome {
            self.break_down(error);
        }
    }

    /// Closes a file that memory may not agree with any more, and opens it anew.
    fn break_down(&mut self, why: StoreError) {
        tracing::error!(error = %why, "a commit of the embedded store failed: its file is opened anew");
        if matches!(why, StoreError::Full(_)) {
            self.reserve.give_up();
        }
        // The file is closed by this, before it is opened again.
        self.condition = Condition::Broken { why, retry_at: Instant::now() };
        self.mend();
    }

    fn mend(&mut self) {
        let began = Instant::now();
        let mut progress: Progress = Box::new(|_, _| {});
        let opened = unless_it_panics(|| {
            open(&self.file, (self.readings)(), &mut progress)
                .map_err(|error| StoreError::Unavailable(error.to_string()))
        });
        match opened {
            Ok((_, open)) => {
                let took_ms = began.elapsed().as_millis();
                tracing::info!(took_ms, "the embedded store is open again");
                self.condition = Condition::Whole(Box::new(open));
            }
            Err(error) => {
                tracing::error!(%error, "the embedded store cannot be opened again; trying every second");
                if let Condition::Broken { retry_at, .. } = &mut self.condition {
                    *retry_at = Instant::now() + REOPEN_EVERY;
                }
            }
        }
    }

    /// Syncs what is not, and closes the file.
    fn finish(mut self) {
        let now = self.now();
        if let Condition::Whole(open) = &mut self.condition
            && let Err(error) = open.sync(now)
        {
            tracing::error!(%error, "the last answers of the embedded store could not be synced");
        }
    }
}

/// What `act` answers. Damaged pages can make redb panic, and a writer that has ended is mended by nobody: that too means to open
/// the file anew.
fn unless_it_panics<T>(act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| {
        Err(StoreError::Corrupt("a commit panicked: the log above says where".to_owned()))
    })
}
