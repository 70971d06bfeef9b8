//! Many tasks of a queue at once: lists, purges and redrives, in slices that hold nobody else up.

use std::collections::BTreeSet;
use std::sync::Arc;

use brisq_api::{ApiError, PurgeView, Redrive, RedriveView};
use brisq_model::{Task, TaskId, TaskState, TaskStates, UnixMs, limits};
use brisq_store::{PageOf, Parts, StoreError, TaskPage, WorkDone, WorkOp, WorkResult};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::stream::{self, StreamExt as _};

use super::{NotDone, reply};
use crate::cursor::Cursor;
use crate::error::noted;
use crate::shard::ShardHandle;
use crate::state::AppState;

/// Tasks of one slice: what one store call purges or redrives, so that no claim waits long behind it.
const SLICE: usize = 250;
/// Store calls that one page of a list is made of; a page of a rare state may be empty, and its cursor goes on.
const CALLS_PER_PAGE: usize = 20;
/// Dead letters that one redrive looks at, about.
const LOOKED_AT_MAX: usize = 10_000;
/// Tasks that are looked up by their ids at a time, with all that is known of them.
const LOOKED_UP_AT_A_TIME: usize = 8;

impl AppState {
    /// A page of the tasks in one state, or in `all` states, one after the other. One with payloads ends with its state.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(
        &self,
        shard: &ShardHandle,
        mut from: Cursor,
        all: bool,
        limit: usize,
        parts: Parts,
    ) -> Result<(Vec<Task>, Option<Cursor>), ApiError> {
        let mut listed = Vec::new();
        for _ in 0..CALLS_PER_PAGE {
            // In slices: beside each task its payload may be read, though it is not told.
            let most = SLICE.min(limit - listed.len());
            let page = PageOf { state: from.state, after: from.after, limit: most, parts };
            let TaskPage { mut tasks, next } = self.store.tasks(shard.shard(), &page).await.map_err(noted)?;
            let ended_early = tasks.len() < most && next.is_some();
            listed.append(&mut tasks);
            let goes_on = next.map(|place| Cursor { after: Some(place), ..from });
            let behind = || {
                let state = TaskState::from_code(from.state.code() + 1).filter(|_| all)?;
                Some(Cursor { state, after: None })
            };
            let Some(next) = goes_on.or_else(behind) else { return Ok((listed, None)) };
            from = next;
            if listed.len() == limit || !listed.is_empty() && (ended_early || parts == Parts::Whole) {
                break;
            }
        }
        Ok((listed, Some(from)))
    }

    /// Takes the tasks away that are in one of the states now; asks the workers that hold one to stop.
    ///
    /// # Errors
    /// When the store does not answer: what was purged stays purged, and a repeat goes on.
    pub async fn purge(
        &self,
        shard: &Arc<ShardHandle>,
        states: TaskStates,
        dry_run: bool,
    ) -> Result<PurgeView, ApiError> {
        let counts = self.store.counts(&[shard.shard()]).await.map_err(noted)?;
        let counts = counts.into_iter().next().ok_or_else(broke_off)?;
        let mut view = PurgeView::default();
        for state in TaskState::ALL.into_iter().filter(|state| states.has(*state)) {
            let there = counts.of(state);
            if dry_run {
                view.matched += there;
            } else {
                self.purge_state(shard, state, states, counts.now, &mut view).await?;
            }
        }
        Ok(view)
    }

    /// Takes the tasks of one state away that were enqueued until `now`: those that come meanwhile stay.
    async fn purge_state(
        &self,
        shard: &Arc<ShardHandle>,
        state: TaskState,
        states: TaskStates,
        now: UnixMs,
        view: &mut PurgeView,
    ) -> Result<(), ApiError> {
        let mut from = Some(Cursor { state, after: None });
        while let Some(cursor) = from {
            let (tasks, next) = self.list(shard, cursor, false, SLICE, Parts::Outline).await?;
            let op = |id| match state {
                TaskState::Leased => WorkOp::Cancel { id },
                _ => WorkOp::Purge { id, states },
            };
            let meant = tasks.iter().filter(|task| task.created_at <= now);
            for result in done(shard, meant.map(|task| op(task.id)).collect()).await? {
                view.matched +=
                    u64::from(matches!(result, Ok(WorkDone::Purged(true) | WorkDone::Cancelled(_))));
                view.purged += u64::from(result == Ok(WorkDone::Purged(true)));
            }
            // A line that grows as fast as it is purged is not followed for ever.
            let all_new = !tasks.is_empty() && tasks.iter().all(|task| task.created_at > now);
            from = next.filter(|_| !all_new);
        }
        Ok(())
    }

    /// Makes dead letters tasks again.
    ///
    /// # Errors
    /// When the cursor is none, or the store does not answer: what was redriven stays so, and a repeat goes on.
    pub async fn redrive(&self, shard: &Arc<ShardHandle>, asked: &Redrive) -> Result<RedriveView, ApiError> {
        let (mut view, mut chosen) = (RedriveView::default(), Vec::new());
        if let Some(ids) = &asked.ids {
            for some in ids.chunks(SLICE) {
                let tasks = self.dead_letters(shard, some).await?;
                choose(asked, &tasks, &mut chosen, &mut view);
            }
            self.redrive_all(shard, asked, &chosen, &mut view).await?;
            return Ok(view);
        }
        let first = Cursor { state: TaskState::Dead, after: None };
        let mut from = Some(asked.cursor.as_deref().map_or(Ok(first), Cursor::read_dead)?);
        // Behind what was redriven, and before what was only counted.
        let (mut resume, mut looked_at) = (None, 0);
        while let Some(cursor) = from.filter(|_| looked_at < LOOKED_AT_MAX) {
            let (tasks, next) = self.list(shard, cursor, false, SLICE, Parts::Attempts).await?;
            let done_with = choose(asked, &tasks, &mut chosen, &mut view);
            if done_with < tasks.len() {
                resume = resume.or(Some(cursor));
            }
            looked_at += tasks.len().max(1);
            from = next;
        }
        // They are listed by their ends, the last one first, and come back as they died: tasks of one ordering key in its order.
        chosen.reverse();
        self.redrive_all(shard, asked, &chosen, &mut view).await?;
        view.cursor = resume.or(from).map(Cursor::text);
        Ok(view)
    }

    /// Redrives these, in slices; with a rate the k-th of them waits for its time.
    async fn redrive_all(
        &self,
        shard: &Arc<ShardHandle>,
        asked: &Redrive,
        chosen: &[TaskId],
        view: &mut RedriveView,
    ) -> Result<(), ApiError> {
        let op = |(k, id): (u64, &TaskId)| WorkOp::Redrive { id: *id, delay_ms: delay_ms(asked, k) };
        let ops: Vec<WorkOp> = (0..).zip(chosen).map(op).collect();
        for some in ops.chunks(SLICE) {
            let results = done(shard, some.to_vec()).await?;
            view.redriven +=
                results.iter().filter(|result| matches!(result, Ok(WorkDone::Redriven(_)))).count() as u64;
        }
        Ok(())
    }

    /// Those of the ids that are dead letters of the queue, each once, without what may be large.
    async fn dead_letters(&self, shard: &ShardHandle, ids: &[TaskId]) -> Result<Vec<Task>, ApiError> {
        let own: BTreeSet<TaskId> = ids.iter().copied().filter(|id| id.shard() == shard.shard()).collect();
        let found = stream::iter(own).map(|id| self.store.get(id)).buffered(LOOKED_UP_AT_A_TIME);
        let mut found =
            found.map_ok(|task| Some(Task { payload: Bytes::new(), progress: None, result: None, ..task? }));
        let mut tasks = Vec::new();
        while let Some(task) = found.next().await {
            tasks.extend(task.map_err(noted)?.filter(|task| task.state == TaskState::Dead));
        }
        Ok(tasks)
    }
}

/// Adds those that match to the chosen ones, up to the call's limit. How many of the tasks are done with.
fn choose(asked: &Redrive, tasks: &[Task], chosen: &mut Vec<TaskId>, view: &mut RedriveView) -> usize {
    let mut done_with = 0;
    for task in tasks {
        let matches = is_wanted(asked, task);
        view.matched += u64::from(matches);
        let is_room = (chosen.len() as u64) < asked.limit;
        if matches && is_room && !asked.dry_run {
            chosen.push(task.id);
        }
        done_with += usize::from(!matches || is_room);
    }
    done_with
}

fn is_wanted(asked: &Redrive, task: &Task) -> bool {
    let kind = || task.attempts.last().map_or("", |attempt| &attempt.error.kind);
    let died = task.finished_at.unwrap_or(task.ready_at);
    asked.error_kind.as_ref().is_none_or(|wanted| kind() == wanted)
        && asked.reason.is_none_or(|wanted| task.dead_reason == Some(wanted))
        && asked.failed_after.is_none_or(|after| died >= after)
        && asked.failed_before.is_none_or(|before| died < before)
}

/// How long the k-th task of a redrive waits, from 0.
fn delay_ms(asked: &Redrive, k: u64) -> u64 {
    asked.rate_per_second.map_or(0, |rate| ((k as f64 * 1_000.0 / rate) as u64).min(limits::DELAY_MAX_MS))
}

async fn done(shard: &Arc<ShardHandle>, ops: Vec<WorkOp>) -> Result<Vec<WorkResult>, ApiError> {
    if ops.is_empty() {
        return Ok(Vec::new());
    }
    reply(shard.work(ops)).await.map(|(results, ..)| results).map_err(NotDone::into)
}

fn broke_off() -> ApiError {
    noted(StoreError::Corrupt("no counts of a queue".to_owned()))
}
