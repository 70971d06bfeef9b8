//! Many tasks of a queue at once: lists, purges and redrives, in slices that hold nobody else up.

use std::sync::Arc;

use brisq_api::{ApiError, PurgeView, Redrive, RedriveView};
use brisq_model::{Task, TaskId, TaskState, TaskStates, limits};
use brisq_store::{PageOf, Parts, StoreError, TaskPage, WorkDone, WorkOp, WorkResult};
use futures_util::stream::{self, StreamExt as _};

use super::{NotDone, reply};
use crate::cursor::Cursor;
use crate::error::noted;
use crate::queue::LOOKUPS_MAX;
use crate::shard::ShardHandle;
use crate::state::AppState;

/// Tasks of one slice: what one store call purges or redrives, so that no claim waits long behind it.
const SLICE: usize = 250;

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
        loop {
            let page = PageOf { state: from.state, after: from.after, limit: limit - listed.len(), parts };
            let TaskPage { mut tasks, next } = self.store.tasks(shard.shard(), &page).await.map_err(noted)?;
            listed.append(&mut tasks);
            let goes_on = next.map(|place| Cursor { after: Some(place), ..from });
            let behind = || {
                let state = TaskState::from_code(from.state.code() + 1).filter(|_| all)?;
                Some(Cursor { state, after: None })
            };
            let is_done =
                listed.len() == limit || !listed.is_empty() && (next.is_some() || parts == Parts::Whole);
            match goes_on.or_else(behind) {
                Some(next) if !is_done => from = next,
                next => return Ok((listed, next)),
            }
        }
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
                self.purge_state(shard, state, states, there, &mut view).await?;
            }
        }
        Ok(view)
    }

    /// Takes up to `there` tasks away: those that come meanwhile stay.
    async fn purge_state(
        &self,
        shard: &Arc<ShardHandle>,
        state: TaskState,
        states: TaskStates,
        there: u64,
        view: &mut PurgeView,
    ) -> Result<(), ApiError> {
        let (mut from, mut left) = (Some(Cursor { state, after: None }), there);
        while let Some(cursor) = from.filter(|_| left > 0) {
            let limit = SLICE.min(usize::try_from(left).unwrap_or(SLICE));
            let (tasks, next) = self.list(shard, cursor, false, limit, Parts::Outline).await?;
            let op = |id| match state {
                TaskState::Leased => WorkOp::Cancel { id },
                _ => WorkOp::Purge { id, states },
            };
            let ops = tasks.iter().map(|task| op(task.id)).collect();
            for result in done(shard, ops).await? {
                view.matched +=
                    u64::from(matches!(result, Ok(WorkDone::Purged(true) | WorkDone::Cancelled(_))));
                view.purged += u64::from(result == Ok(WorkDone::Purged(true)));
            }
            left = left.saturating_sub(tasks.len() as u64);
            from = next;
        }
        Ok(())
    }

    /// Makes dead letters tasks again.
    ///
    /// # Errors
    /// When the cursor is none, or the store does not answer: what was redriven stays so, and a repeat goes on.
    pub async fn redrive(&self, shard: &Arc<ShardHandle>, asked: &Redrive) -> Result<RedriveView, ApiError> {
        let mut view = RedriveView::default();
        let mut from = match (&asked.ids, &asked.cursor) {
            (Some(ids), _) => {
                let tasks = self.dead_letters(shard, ids).await?;
                self.redrive_slice(shard, asked, &tasks, &mut view).await?;
                None
            }
            (None, Some(text)) => Some(Cursor::read(text)?),
            (None, None) => Some(Cursor { state: TaskState::Dead, after: None }),
        };
        while let Some(cursor) = from.filter(|_| view.matched < limits::REDRIVE_MAX_TASKS) {
            let (tasks, next) = self.list(shard, cursor, false, SLICE, Parts::Attempts).await?;
            let was_full = view.redriven == asked.limit;
            let taken = self.redrive_slice(shard, asked, &tasks, &mut view).await?;
            if !was_full && !asked.dry_run {
                // The next call goes on behind what this one looked at, not behind what it only counted.
                view.cursor = if taken < tasks.len() { Some(cursor.text()) } else { next.map(Cursor::text) };
            }
            from = next;
        }
        Ok(view)
    }

    /// Redrives those that match, up to the call's limit. How many tasks of the slice are done with.
    async fn redrive_slice(
        &self,
        shard: &Arc<ShardHandle>,
        asked: &Redrive,
        tasks: &[Task],
        view: &mut RedriveView,
    ) -> Result<usize, ApiError> {
        let (mut ops, mut done_with) = (Vec::new(), 0);
        for task in tasks {
            let matches = is_wanted(asked, task);
            view.matched += u64::from(matches);
            let is_room = view.redriven + (ops.len() as u64) < asked.limit;
            if matches && is_room && !asked.dry_run {
                ops.push(WorkOp::Redrive {
                    id: task.id,
                    delay_ms: delay_ms(asked, view.redriven + ops.len() as u64),
                });
            }
            done_with += usize::from(!matches || is_room);
        }
        let results = done(shard, ops).await?;
        view.redriven +=
            results.iter().filter(|result| matches!(result, Ok(WorkDone::Redriven(_)))).count() as u64;
        Ok(done_with)
    }

    async fn dead_letters(&self, shard: &ShardHandle, ids: &[TaskId]) -> Result<Vec<Task>, ApiError> {
        let own: Vec<TaskId> = ids.iter().copied().filter(|id| id.shard() == shard.shard()).collect();
        let mut found = stream::iter(own).map(|id| self.store.get(id)).buffered(LOOKUPS_MAX);
        let mut tasks = Vec::new();
        while let Some(task) = found.next().await {
            tasks.extend(task.map_err(noted)?.filter(|task| task.state == TaskState::Dead));
        }
        Ok(tasks)
    }
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
