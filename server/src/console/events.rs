//! What the page shows, once a second: one look at the store for each tenant, shared by all who look at its page, and none
//! while nobody does.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use brisq_api::{ApiError, ErrorCode};
use brisq_model::TenantName;
use brisq_store::StoreError;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::viewers::{QueueRow, Row, STREAMS_MAX, Seen, Snapshot};
use super::watch::Watch;
use crate::auth::Caller;
use crate::error::{Failure, noted};
use crate::metrics::Moved;
use crate::routes::queues::LIST_MAX;
use crate::state::{App, AppState};

const REFRESH: Duration = Duration::from_secs(1);
/// How long the store may take for one look before the page says that it does not answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Queues that a page shows: the first of those that its viewer may see.
const ROWS_MAX: usize = 200;

/// A snapshot as one viewer may see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    store: &'a str,
    queues: Vec<&'a QueueRow>,
    /// Whether the viewer has more queues than these.
    more: bool,
    /// Whether any task was ever claimed from the viewer's queues here.
    claimed: bool,
    watch: &'a Watch,
}

struct Viewer {
    app: App,
    caller: Arc<Caller>,
    seen: watch::Receiver<Option<Seen>>,
    _place: OwnedSemaphorePermit,
}

/// The page's events, for as long as its viewer looks.
pub async fn events(State(app): State<App>, Extension(caller): Extension<Arc<Caller>>) -> Response {
    let Ok(place) = Arc::clone(&app.viewers.places).try_acquire_owned() else {
        let message = format!("{STREAMS_MAX} pages are looked at, which is the limit. Close one of them.");
        return Failure(ApiError::new(ErrorCode::Overloaded, message)).into_response();
    };
    let seen = look_for(&app, &caller.tenant);
    let viewer = Viewer { app, caller, seen, _place: place };
    let stream = stream::unfold(viewer, |mut viewer| async move {
        let seen = loop {
            tokio::select! {
                changed = viewer.seen.changed() => changed.ok()?,
                () = viewer.app.drain_begins() => return None,
            }
            // Nothing yet: the first look has not come back.
            if let Some(seen) = viewer.seen.borrow_and_update().clone() {
                break seen;
            }
        };
        Some((Ok::<_, Infallible>(event(seen, &viewer.caller)), viewer))
    });
    Sse::new(stream).keep_alive(KeepAlive::default()).into_response()
}

fn event(seen: Seen, caller: &Caller) -> Event {
    match seen {
        Ok(snapshot) => {
            let mut visible = snapshot.rows.iter().filter(|row| caller.sees(&row.name)).map(|row| &row.view);
            let claimed = visible.clone().any(|row| row.claimed_total > 0);
            let queues = visible.by_ref().take(ROWS_MAX).collect();
            let more = visible.next().is_some();
            let page = Page { store: &snapshot.store, queues, more, claimed, watch: &snapshot.watch };
            Event::default().json_data(page).unwrap_or_default()
        }
        Err(trouble) => Event::default().event("trouble").data(trouble),
    }
}

/// What is seen of the tenant's queues, from now on.
fn look_for(app: &App, tenant: &TenantName) -> watch::Receiver<Option<Seen>> {
    let mut looks = app.viewers.looks.lock();
    looks.retain(|_, look| look.strong_count() > 0);
    if let Some(look) = looks.get(tenant).and_then(Weak::upgrade) {
        let mut seen = look.subscribe();
        // Who comes later sees at once what was seen last.
        seen.mark_changed();
        return seen;
    }
    let (sender, seen) = watch::channel(None);
    let sender = Arc::new(sender);
    looks.insert(tenant.clone(), Arc::downgrade(&sender));
    tokio::spawn(look(Arc::clone(app), tenant.clone(), sender));
    seen
}

/// Looks once a second until nobody wants to know.
async fn look(app: App, tenant: TenantName, seen: Arc<watch::Sender<Option<Seen>>>) {
    let mut refresh = interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        refresh.tick().await;
        {
            // Nobody can come in between: a viewer subscribes under this lock.
            let mut looks = app.viewers.looks.lock();
            if seen.receiver_count() == 0 {
                looks.remove(&tenant);
                return;
            }
        }
        let look = timeout(LOOK_TIMEOUT, snapshot(&app, &tenant)).await;
        let look = look.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".to_owned())));
        seen.send_replace(Some(look.map(Arc::new).map_err(|error| noted(error).message)));
    }
}

async fn snapshot(app: &AppState, tenant: &TenantName) -> Result<Snapshot, StoreError> {
    let infos = app.store.queues(tenant, None, LIST_MAX).await?;
    let views = app.views(&infos).await?;
    let rows = infos.into_iter().zip(views).map(|(info, (queue, _))| {
        let shard = app.queues.known(tenant, &info.name).and_then(|queue| queue.present());
        let total = |what| shard.as_ref().map_or(0, |shard| shard.meter.total(what));
        let view = QueueRow {
            enqueued_total: total(Moved::Enqueued),
            completed_total: total(Moved::Completed),
            claimed_total: total(Moved::Claimed),
            queue,
        };
        Row { name: info.name, view }
    });
    Ok(Snapshot {
        store: app.store.describe(),
        rows: rows.collect(),
        watch: app.console.watch.read().clone(),
    })
}
