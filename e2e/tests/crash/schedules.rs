//! Schedules of three servers that are killed and stopped around the minute.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use brisq_testkit::{Program, ProgramOptions, Redis, RedisOptions, binary};

use super::*;

const SCHEDULES: usize = 25;
/// Minutes that begin while servers die.
const MINUTES: u64 = 2;
const MINUTE: u64 = 60_000;
/// A tick is fired by then, with a server that is up.
const SETTLED: Duration = Duration::from_secs(8);

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_millis() as u64
}

fn any<T>(programs: &[Program], ask: impl Fn(&mut Http) -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        let found = programs.iter().find_map(|program| ask(&mut program.http().ok()?));
        if let Some(found) = found {
            return found;
        }
        assert!(began.elapsed() < BACK_WITHIN, "no server answers");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Claims what is there and completes it; the ids by payload.
fn drain(programs: &[Program], seen: &mut HashMap<String, HashSet<String>>) {
    let tasks =
        any(programs, |http| post(http, "/v1/queues/ticks/claims", &json!({"max": 256, "leaseMs": 5_000})));
    let tasks = tasks["tasks"].as_array().expect("tasks").clone();
    for task in &tasks {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        seen.entry(text(&task["payload"])).or_default().insert(text(&task["id"]));
    }
    let item = |task: &Value| json!({"id": task["id"], "token": task["lease"]["token"]});
    let items = json!({"items": tasks.iter().map(item).collect::<Vec<_>>()});
    if !tasks.is_empty() {
        any(programs, |http| post(http, "/v1/leases/complete", &items));
    }
}

#[test]
fn each_tick_of_a_schedule_becomes_one_task_though_servers_are_killed_and_stopped() {
    let redis = Redis::start(RedisOptions::default()).expect("a Redis");
    let start = || {
        let options =
            ProgramOptions { args: vec!["--redis".into(), redis.url()], ..ProgramOptions::default() };
        Program::start(&binary("brisq-server").expect("built"), options).expect("a server")
    };
    let mut programs: Vec<Program> = (0..3).map(|_| start()).collect();
    // Far enough from the next minute that all of them see it.
    while wall_ms() % MINUTE > MINUTE - 8_000 {
        thread::sleep(Duration::from_millis(500));
    }
    let made = wall_ms();
    let mut http = programs[0].http().expect("a connection");
    for n in 0..SCHEDULES {
        // A task that is gone with its end: only the queue's memory of the tick stands against a second one.
        let task = json!({"payload": format!("s{n}"), "retention": {"completedMs": 0}});
        let body = json!({"queue": "ticks", "cron": "* * * * *", "missed": "all", "task": task});
        let answer = http.call("PUT", &format!("/v1/schedules/s{n}"), &body.to_string()).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let first = (made / MINUTE + 1) * MINUTE;
    let last = first + (MINUTES - 1) * MINUTE;
    let mut seen = HashMap::new();
    let (mut kills, mut stops) = (0, 0);
    for turn in 0.. {
        let now = wall_ms();
        if now > last + 4_000 {
            break;
        }
        drain(&programs, &mut seen);
        let around = (now + 1_000) % MINUTE < 4_000;
        if !around {
            thread::sleep(Duration::from_millis(100));
            continue;
        }
        let count = programs.len();
        let victim = &mut programs[turn % count];
        if turn % 3 == 2 {
            victim.process().signal("STOP").expect("stopped");
            thread::sleep(Duration::from_millis(700));
            victim.process().signal("CONT").expect("goes on");
            stops += 1;
        } else {
            victim.kill9();
            victim.restart().expect("starts again");
            kills += 1;
        }
    }
    let began = Instant::now();
    while began.elapsed() < SETTLED {
        drain(&programs, &mut seen);
        thread::sleep(Duration::from_millis(200));
    }
    let ticks = MINUTES + (wall_ms() / MINUTE * MINUTE).saturating_sub(last) / MINUTE;
    println!("{SCHEDULES} schedules, {ticks} ticks each, {kills} kills, {stops} stops");
    assert!(kills >= 4 && stops >= 2, "{kills} kills and {stops} stops were no test");
    let fired: HashMap<&str, usize> = seen.iter().map(|(name, ids)| (name.as_str(), ids.len())).collect();
    let wrong: Vec<_> = fired.iter().filter(|(_, fired)| **fired as u64 != ticks).collect();
    assert!(
        fired.len() == SCHEDULES && wrong.is_empty(),
        "{ticks} ticks each, but {wrong:?} of {}",
        fired.len()
    );
}
