use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use brisq_model::{Moment, NewTask, ScheduleName, TaskId, TaskState, Tick, UnixMs, limits};
use bytes::Bytes;

use super::queue::{Queue, claimed, complete};
use crate::{Enqueued, Schedule, StoreError, WorkDone, WorkOp};

const NOON: UnixMs = UnixMs(1_700_000_000_000);

fn name(text: &str) -> ScheduleName {
    ScheduleName::new(text).unwrap()
}

fn schedule(text: &str, version: u64, next_at: Option<UnixMs>) -> Schedule {
    Schedule { name: name(text), version, next_at, body: Bytes::from(format!("body {text} {version}")) }
}

/// Puts a schedule that was not there.
async fn put(queue: &Queue, new: &Schedule) {
    let done = queue.store().change_schedule(&queue.tenant, &new.name, None, Some(new.clone())).await;
    assert!(done.unwrap(), "{new:?}");
}

async fn get(queue: &Queue, text: &str) -> Option<Schedule> {
    queue.store().schedule(&queue.tenant, &name(text)).await.unwrap().0
}

fn tick(schedule: &str, made_at: u64, at: u64) -> Option<Arc<Tick>> {
    let moment = Moment { made_at: NOON.plus_ms(made_at), at: NOON.plus_ms(at) };
    Some(Arc::new(Tick { schedule: name(schedule), moment }))
}

/// Enqueues a task for a tick: a new task's id, or that of the task which the tick became before.
async fn fire(queue: &Queue, tick: Option<Arc<Tick>>) -> Result<TaskId, TaskId> {
    let task = NewTask { tick, ..queue.task("\"tick\"") };
    let id = task.id;
    match queue.enqueue_all(vec![task]).await.results.remove(0) {
        Ok(Enqueued::Created { .. }) => Ok(id),
        Ok(Enqueued::Fired(before)) => Err(before),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn a_schedule_is_kept_as_it_was_given(queue: &Queue) {
    assert_eq!(get(queue, "none").await, None);
    let bodies: [Bytes; 3] =
        [Bytes::new(), Bytes::from_static(b" a b \xff"), vec![7; limits::SCHEDULE_MAX_BYTES].into()];
    for (version, body) in (u64::MAX - 9..).zip(bodies) {
        for next_at in [None, Some(NOON)] {
            let name = name(&format!("kept-{version}-{}", next_at.is_some()));
            let given = Schedule { name, version, next_at, body: body.clone() };
            put(queue, &given).await;
            assert_eq!(get(queue, given.name.as_str()).await.as_ref(), Some(&given));
        }
    }
    let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let (_, wall) = queue.store().schedule(&queue.tenant, &name("none")).await.unwrap();
    assert!(wall.0.abs_diff(here) < 60_000, "{wall:?} is the wall clock");
}

pub(super) async fn of_two_changes_of_one_version_one_succeeds(queue: &Queue) {
    let first = schedule("s", 1, Some(NOON));
    put(queue, &first).await;
    let change = async |before, after: Option<Schedule>| {
        queue.store().change_schedule(&queue.tenant, &name("s"), before, after).await.unwrap()
    };
    let second = schedule("s", 2, None);
    let rows = [
        ("made though it is there", None, Some(second.clone()), false),
        ("changed at another version", Some(7), Some(second.clone()), false),
        ("taken away at another version", Some(2), None, false),
        ("changed", Some(1), Some(second.clone()), true),
        ("changed a second time", Some(1), Some(schedule("s", 3, None)), false),
        ("taken away by who read the first", Some(1), None, false),
        ("taken away", Some(2), None, true),
        ("taken away a second time", Some(2), None, false),
        ("changed though it is gone", Some(2), Some(first.clone()), false),
        ("made anew", None, Some(first.clone()), true),
    ];
    for (what, before, after, done) in rows {
        let kept = get(queue, "s").await;
        assert_eq!(change(before, after.clone()).await, done, "{what}");
        assert_eq!(get(queue, "s").await, if done { after } else { kept }, "{what}");
    }
}

pub(super) async fn schedules_are_listed_by_name_and_tenant(queue: &Queue) {
    let other = Queue::shared(queue.handles.clone()).await;
    for text in ["d", "b", "a", "c", "B"] {
        put(queue, &schedule(text, 1, None)).await;
        put(&other, &schedule("x", u64::from(text.as_bytes()[0]), None)).await;
        other
            .store()
            .change_schedule(&other.tenant, &name("x"), Some(u64::from(text.as_bytes()[0])), None)
            .await
            .unwrap();
    }
    let page = async |after: Option<&str>, limit| {
        let after = after.map(name);
        let page = queue.store().schedules(&queue.tenant, after.as_ref(), limit).await.unwrap();
        page.iter().map(|schedule| schedule.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 3).await, ["B", "a", "b"]);
    assert_eq!(page(Some("b"), 3).await, ["c", "d"]);
    assert_eq!(page(Some("bb"), 1).await, ["c"], "behind a name that there is not");
    assert!(page(Some("d"), 3).await.is_empty());
    assert!(other.store().schedules(&other.tenant, None, 10).await.unwrap().is_empty());
}

pub(super) async fn a_schedule_is_due_when_its_time_has_come(queue: &Queue) {
    let (_, wall) = queue.store().schedule(&queue.tenant, &name("x")).await.unwrap();
    let soon = wall.plus_ms(86_400_000);
    for (text, next_at) in [
        ("later", Some(wall)),
        ("first", Some(UnixMs(5))),
        ("second", Some(NOON)),
        ("never", None),
        ("tomorrow", Some(soon)),
    ] {
        put(queue, &schedule(text, 1, next_at)).await;
    }
    let due = async |limit| {
        let due = queue.store().due_schedules(limit).await.unwrap();
        assert!(due.due.len() <= limit && due.wall >= wall && due.next_at.is_some_and(|at| at <= soon));
        let own = due.due.into_iter().filter(|(tenant, _)| *tenant == queue.tenant);
        own.map(|(_, schedule)| schedule).collect::<Vec<_>>()
    };
    let names = |due: Vec<Schedule>| due.iter().map(|one| one.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(due(1_000).await), ["first", "second", "later"]);
    assert!(due(1).await.len() <= 1);
    let moved = schedule("second", 2, Some(soon));
    for (text, after) in
        [("second", Some(moved)), ("first", None), ("later", Some(schedule("later", 2, None)))]
    {
        assert!(queue.store().change_schedule(&queue.tenant, &name(text), Some(1), after).await.unwrap());
    }
    assert!(names(due(1_000).await).is_empty(), "moved, taken away, at rest");
    for (text, version) in [("second", 2), ("tomorrow", 1)] {
        queue.store().change_schedule(&queue.tenant, &name(text), Some(version), None).await.unwrap();
    }
}

pub(super) async fn a_tenant_has_room_for_so_many_schedules_and_bytes(queue: &Queue) {
    let too_many = async |new: Schedule| {
        let done = queue.store().change_schedule(&queue.tenant, &new.name.clone(), None, Some(new)).await;
        matches!(done, Err(StoreError::TooManySchedules(_)))
    };
    for n in 0..limits::SCHEDULES_PER_TENANT_MAX {
        put(queue, &schedule(&format!("s{n}"), 1, None)).await;
    }
    assert!(too_many(schedule("more", 1, None)).await);
    let grown = Schedule { body: vec![1; 99].into(), ..schedule("s1", 2, None) };
    assert!(queue.store().change_schedule(&queue.tenant, &name("s1"), Some(1), Some(grown)).await.unwrap());
    assert!(queue.store().change_schedule(&queue.tenant, &name("s0"), Some(1), None).await.unwrap());
    put(queue, &schedule("more", 1, None)).await;
    let other = Queue::shared(queue.handles.clone()).await;
    let large = |n| Schedule {
        body: vec![7; limits::SCHEDULE_MAX_BYTES].into(),
        ..schedule(&format!("l{n}"), 1, None)
    };
    let most = limits::SCHEDULES_PER_TENANT_MAX_BYTES / limits::SCHEDULE_MAX_BYTES as u64;
    let mut put_in = 0;
    while let Ok(done) =
        other.store().change_schedule(&other.tenant, &large(put_in).name, None, Some(large(put_in))).await
    {
        assert!(done && put_in < most, "{put_in}");
        put_in += 1;
    }
    assert!(put_in + 1 >= most, "{put_in} of {most}");
    let shrunk = Schedule { version: 2, body: Bytes::new(), ..large(0) };
    assert!(other.store().change_schedule(&other.tenant, &name("l0"), Some(1), Some(shrunk)).await.unwrap());
    put(&other, &large(put_in)).await;
    // What came of a tick is written all the same.
    let grown = Schedule { version: 2, body: vec![7; limits::SCHEDULE_MAX_BYTES + 500].into(), ..large(1) };
    assert!(other.store().change_schedule(&other.tenant, &name("l1"), Some(1), Some(grown)).await.unwrap());
}

pub(super) async fn a_tick_becomes_a_task_once(queue: &Queue) {
    let first = fire(queue, tick("s", 0, 60)).await.unwrap();
    let rows = [("again", tick("s", 0, 60)), ("an earlier one", tick("s", 0, 0))];
    for (what, tick) in rows {
        assert_eq!(fire(queue, tick).await, Err(first), "{what}");
    }
    let second = fire(queue, tick("s", 0, 120)).await.unwrap();
    assert_eq!(fire(queue, tick("s", 0, 60)).await, Err(second));
    for (what, tick) in [("of another schedule", tick("s2", 0, 60)), ("of none", None)] {
        assert!(fire(queue, tick).await.is_ok(), "{what}");
    }
    assert!(fire(&queue.neighbour("other").await, tick("s", 0, 60)).await.is_ok(), "of another queue");
    let twice = || NewTask { tick: tick("twice", 0, 1), ..queue.task("1") };
    let results = queue.enqueue_all(vec![twice(), twice(), queue.task("2")]).await.results;
    assert!(
        matches!(
            &results[..],
            [Ok(Enqueued::Created { .. }), Ok(Enqueued::Fired(_)), Ok(Enqueued::Created { .. })]
        ),
        "{results:?}"
    );
}

pub(super) async fn a_tick_is_remembered_whatever_became_of_its_task(queue: &Queue) {
    let mut minute = 0;
    for end in ["completed", "purged", "cancelled"] {
        minute += 1;
        let id = fire(queue, tick("s", 0, minute)).await.unwrap();
        match end {
            "completed" => {
                let task = queue.one().await;
                assert_eq!(task.id, id);
                queue.act(complete(&task, None)).await.unwrap();
            }
            "purged" => {}
            _ => drop(queue.act(WorkOp::Cancel { id }).await.unwrap()),
        }
        let purged = queue.act(WorkOp::Purge { id, states: TaskState::ALL.into_iter().collect() }).await;
        assert_eq!(purged, Ok(WorkDone::Purged(true)), "{end}");
        assert_eq!(fire(queue, tick("s", 0, minute)).await, Err(id), "{end}");
    }
    assert!(claimed(queue.act(queue.claim_op(10, 1_000)).await).is_empty());
}

pub(super) async fn another_schedule_of_a_name_has_ticks_of_its_own(queue: &Queue) {
    // The clock was ahead when the first was made: neither its making nor its ticks stand against those of the second.
    for (first, second) in [((1, 60), (2, 10)), ((1_000, 60), (2, 10)), ((1_000, 60), (2, 90))] {
        let name = format!("s{}-{}", first.0, second.1);
        fire(queue, tick(&name, first.0, first.1)).await.unwrap();
        let anew = fire(queue, tick(&name, second.0, second.1)).await.unwrap();
        assert_eq!(fire(queue, tick(&name, second.0, second.1)).await, Err(anew), "{name}");
        assert!(fire(queue, tick(&name, second.0, second.1 + 1)).await.is_ok(), "{name}");
    }
}

pub(super) async fn so_many_ticks_are_remembered(queue: &Queue) {
    let most = limits::TICKS_REMEMBERED_MAX as u64;
    let of = |n: u64| NewTask { tick: tick(&format!("s{n}"), 0, n), ..queue.task("1") };
    let all: Vec<u64> = (0..=most).collect();
    for some in all.chunks(limits::BATCH_MAX_ITEMS) {
        queue.enqueue_all(some.iter().map(|n| of(*n)).collect()).await;
    }
    let fired =
        async |n: u64| matches!(queue.enqueue_all(vec![of(n)]).await.results[..], [Ok(Enqueued::Fired(_))]);
    for (n, known) in [(most, true), (most / 2 + 1, true), (0, false), (most / 2 - 1, false)] {
        assert_eq!(fired(n).await, known, "{n}");
    }
}
