use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use brisq_api::{ScheduleRequest, ScheduleSpec};
use brisq_model::{LeaseToken, QueueName, TaskState};
use brisq_store::engine::Bounds;
use brisq_store::{ClaimOp, MemoryStore, QueueInfo, Readings, Store, WorkDone, WorkOp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::auth::Auth;
use crate::state::App;

/// 2026-11-30T12:00:30Z.
const BEGAN: u64 = 1_796_040_030_000;

/// A store whose clocks are the runtime's, which stands still but for what tests wait for.
fn store() -> MemoryStore {
    let began = tokio::time::Instant::now();
    let readings = move || {
        let steady = began.elapsed();
        Readings { wall: UnixMs(BEGAN).plus_ms(steady.as_millis() as u64), steady }
    };
    MemoryStore::new(readings, Bounds::default())
}

/// A server on the store; it lives as long as the sender.
fn server(store: &MemoryStore) -> (App, watch::Sender<bool>) {
    let (down, is_down) = watch::channel(false);
    (Arc::new(AppState::of_store(Arc::new(store.another_handle()), is_down)), down)
}

fn spec(body: &Value) -> ScheduleSpec {
    let body = body.to_string();
    brisq_api::parse::<ScheduleRequest<'_>>(body.as_bytes()).unwrap().into_spec(unplaced()).unwrap()
}

fn caller() -> Arc<Caller> {
    match Auth::off() {
        Auth::Off(caller) => caller,
        Auth::Tokens(_) => unreachable!("it is off"),
    }
}

fn name(text: &str) -> ScheduleName {
    ScheduleName::new(text).unwrap()
}

async fn put(app: &App, text: &str, body: Value) -> (Kept, Option<UnixMs>) {
    app.put_schedule(&caller(), &name(text), spec(&body)).await.unwrap()
}

async fn look(app: &App, text: &str) -> (Kept, Option<UnixMs>) {
    app.schedule(&caller(), &name(text)).await.unwrap()
}

/// Takes what is ready in the queue, and completes it. Answers the payloads, with how many there were of each.
async fn drain(store: &MemoryStore, queue: &str) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    let (tenant, queue) = (caller().tenant.clone(), QueueName::new(queue).unwrap());
    let Some(number) = store.find_queue(&tenant, &queue).await.unwrap() else { return all };
    let info = QueueInfo { number, tenant, name: queue };
    loop {
        let token = LeaseToken::new(rand::rng().random());
        let claim = WorkOp::Claim(ClaimOp { max: 256, lease_ms: 60_000, worker: None, token });
        let Ok(WorkDone::Claimed(tasks)) = store.work(&info, vec![claim]).await.unwrap().results.remove(0)
        else {
            unreachable!("a claim answers tasks");
        };
        if tasks.is_empty() {
            return all;
        }
        let end =
            |task: &brisq_model::Task| WorkOp::Complete { id: task.id, token, result: None, used_cost: None };
        store.work(&info, tasks.iter().map(end).collect()).await.unwrap();
        for task in tasks {
            *all.entry(String::from_utf8(task.payload.to_vec()).unwrap()).or_insert(0) += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_tick_becomes_one_task_however_many_servers_die() {
    for seed in 0..20 {
        let store = store();
        let mut chance = StdRng::seed_from_u64(seed);
        let (app, _up) = server(&store);
        let every = [("1", "* * * * *", 600), ("7", "*/7 * * * *", 90), ("60", "@hourly", 10)];
        for (text, cron, _) in every {
            // No task outlives its end: only the queue's memory of the tick stands against a second one.
            let task = json!({"payload": text, "retention": {"completedMs": 0}});
            put(
                &app,
                &format!("s{text}"),
                json!({"queue": "q", "cron": cron, "task": task, "missed": "all"}),
            )
            .await;
        }
        let mut servers: Vec<Option<(JoinHandle<()>, watch::Sender<bool>)>> = vec![None, None, None];
        let mut fired: BTreeMap<String, usize> = BTreeMap::new();
        let began = tokio::time::Instant::now();
        // Ten hours, and a moment to see to the last of them.
        while began.elapsed() < Duration::from_secs(36_000) {
            let which = chance.random_range(0..servers.len());
            match servers[which].take() {
                Some((running, _)) => running.abort(),
                None => {
                    let (app, up) = server(&store);
                    servers[which] = Some((tokio::spawn(run(app)), up));
                }
            }
            tokio::time::sleep(Duration::from_millis(chance.random_range(1..40_000))).await;
            for (payload, count) in drain(&store, "q").await {
                *fired.entry(payload).or_insert(0) += count;
            }
        }
        let end = BEGAN + began.elapsed().as_millis() as u64;
        let (app, _up) = server(&store);
        let last = tokio::spawn(run(app));
        tokio::time::sleep(Duration::from_secs(20)).await;
        last.abort();
        for (payload, count) in drain(&store, "q").await {
            *fired.entry(payload).or_insert(0) += count;
        }
        for (text, cron, least) in every {
            let calendar = Calendar::of(cron, "UTC").unwrap();
            let ticks = std::iter::successors(calendar.after(UnixMs(BEGAN)), |at| calendar.after(*at));
            let certain = ticks.clone().take_while(|at| at.0 <= end).count();
            let possible = ticks.take_while(|at| at.0 <= end + 20_000).count();
            let fired = fired.get(&format!("\"{text}\"")).copied().unwrap_or(0);
            assert!(
                certain >= least && (certain..=possible).contains(&fired),
                "seed {seed}, {cron}: {fired} of {certain}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tick_is_left_out_while_the_task_before_has_not_ended() {
    let store = store();
    let (app, _up) = server(&store);
    let every = json!({"queue": "q", "cron": "* * * * *", "task": {"payload": 1}, "overlap": "skip"});
    put(&app, "s", every).await;
    let running = tokio::spawn(run(Arc::clone(&app)));
    tokio::time::sleep(Duration::from_secs(151)).await;
    let (kept, _) = look(&app, "s").await;
    assert_eq!(kept.last_at, Some(BEGAN + 30_000));
    let skipped = kept.last_skipped.expect("the second and the third tick");
    assert_eq!((skipped.at, skipped.reason.as_str()), (BEGAN + 150_000, "overlap"));
    assert_eq!(drain(&store, "q").await.values().sum::<usize>(), 1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(look(&app, "s").await.0.last_at, Some(BEGAN + 210_000));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_fired_is_told_and_holds_no_other_up() {
    let store = store();
    let (app, _up) = server(&store);
    let minutely = |payload: &str| json!({"queue": "q", "cron": "* * * * *", "task": {"payload": payload}});
    let (good, next_at) = put(&app, "good", minutely("good")).await;
    let task = serde_json::from_str(r#"{"payload":1,"priority":99}"#).unwrap();
    let refused = Kept { spec: ScheduleSpec { task, ..good.spec.clone() }, ..good.clone() };
    let zone =
        Kept { spec: ScheduleSpec { time_zone: "Mars/Olympus".to_owned(), ..good.spec.clone() }, ..good };
    let damaged = Schedule { body: "{".into(), ..refused.schedule(&name("damaged"), next_at) };
    let odd = [refused.schedule(&name("refused"), next_at), zone.schedule(&name("zone"), next_at), damaged];
    let tenant = caller().tenant.clone();
    for schedule in odd {
        let named = schedule.name.clone();
        assert!(store.change_schedule(&tenant, &named, None, Some(schedule)).await.unwrap());
    }
    let running = tokio::spawn(run(Arc::clone(&app)));
    tokio::time::sleep(Duration::from_secs(95)).await;
    running.abort();
    assert_eq!(drain(&store, "q").await, BTreeMap::from([("\"good\"".to_owned(), 2)]));
    let (kept, next_at) = look(&app, "refused").await;
    let skipped = kept.last_skipped.expect("what the queue says");
    assert_eq!((skipped.reason.as_str(), next_at), ("refused", Some(UnixMs(BEGAN + 150_000))));
    assert!(skipped.message.is_some_and(|message| message.contains("0 to 9")));
    for rests in ["zone", "damaged"] {
        let (kept, _) = store.schedule(&tenant, &name(rests)).await.unwrap();
        assert_eq!(kept.expect("it stays").next_at, None, "{rests}");
    }
    assert!(app.schedule(&caller(), &name("damaged")).await.is_err());
    app.delete_schedule(&caller(), &name("damaged")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_schedule_that_is_put_again_goes_on_unless_its_times_are_others() {
    let store = store();
    let (app, _up) = server(&store);
    let of = |cron: &str, payload: u64, paused: bool| json!({"queue": "q", "cron": cron, "task": {"payload": payload}, "missed": "all", "paused": paused});
    let (first, next_at) = put(&app, "s", of("*/2 * * * *", 1, false)).await;
    assert_eq!(next_at, Some(UnixMs(BEGAN + 90_000)));
    // Its ticks are due, and nobody has fired them.
    tokio::time::sleep(Duration::from_secs(300)).await;
    let rows = [
        ("the same", of("*/2 * * * *", 1, false), Some(90)),
        ("another task", of("*/2 * * * *", 2, false), Some(90)),
        ("other times", of("*/3 * * * *", 2, false), Some(330)),
        ("at rest", of("*/3 * * * *", 2, true), None),
        ("at rest, put again", of("*/3 * * * *", 2, true), None),
        ("going on", of("*/3 * * * *", 2, false), Some(330)),
    ];
    for (what, body, seconds) in rows {
        let (kept, next_at) = put(&app, "s", body).await;
        assert_eq!(next_at, seconds.map(|seconds: u64| UnixMs(BEGAN + seconds * 1_000)), "{what}");
        assert_eq!(
            kept.made_at == first.made_at,
            seconds == Some(90),
            "{what}: other times have ticks of their own"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_trigger_fires_at_once_and_moves_no_tick() {
    let store = store();
    let (app, _up) = server(&store);
    let body =
        json!({"queue": "q", "cron": "@daily", "task": {"payload": 5}, "overlap": "skip", "paused": true});
    put(&app, "s", body).await;
    for _ in 0..2 {
        let (kept, next_at) = app.trigger_schedule(&caller(), &name("s")).await.unwrap();
        assert_eq!((kept.last_at, next_at), (Some(BEGAN), None));
        let id = brisq_api::task_id(&kept.last_task_id.unwrap()).unwrap();
        assert_eq!(store.get(id).await.unwrap().unwrap().state, TaskState::Ready);
    }
    assert_eq!(drain(&store, "q").await.values().sum::<usize>(), 2);
    let missing = app.trigger_schedule(&caller(), &name("none")).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::ScheduleNotFound);
}
