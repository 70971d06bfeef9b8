//! A Redis that answers, and does not take what it is sent.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use brisq_testkit::Process;

use super::*;

/// Something that happens to a Redis that works in this folder.
type Happens = fn(&Redis, &Path);

fn says(redis: &Redis, line: &str, answer: &str) {
    let said = redis.command(line).expect("an answer");
    assert!(said.starts_with(answer), "{line}: {said}");
}

/// It saves, and can or cannot: a file cannot take the place of a folder.
fn save(redis: &Redis, answer: &str) {
    until("it has tried to save", || {
        // One at a time.
        let _ = redis.command("BGSAVE");
        redis.command("SET probe 1").is_ok_and(|said| said.starts_with(answer))
    });
}

fn follow_nobody(redis: &Redis) {
    says(redis, "REPLICAOF 127.0.0.1 1", "+OK");
}

fn follow_no_more(redis: &Redis, _: &Path) {
    says(redis, "REPLICAOF NO ONE", "+OK");
}

/// What Redis calls it, what `/readyz` says of it, how it begins and how it ends.
const REFUSALS: [(&str, &str, Happens, Happens); 4] = [
    (
        "MISCONF",
        "MISCONF",
        |redis, folder| {
            std::fs::create_dir(folder.join("dump.rdb")).expect("in its way");
            save(redis, "-MISCONF");
        },
        |redis, folder| {
            std::fs::remove_dir(folder.join("dump.rdb")).expect("out of its way");
            save(redis, "+OK");
        },
    ),
    (
        "NOREPLICAS",
        "NOREPLICAS",
        |redis, _| says(redis, "CONFIG SET min-replicas-to-write 1", "+OK"),
        |redis, _| says(redis, "CONFIG SET min-replicas-to-write 0", "+OK"),
    ),
    ("READONLY", "read only replica", |redis, _| follow_nobody(redis), follow_no_more),
    (
        "MASTERDOWN",
        // What functions that may write are told first.
        "read only replica",
        |redis, _| {
            says(redis, "CONFIG SET replica-serve-stale-data no", "+OK");
            follow_nobody(redis);
        },
        follow_no_more,
    ),
];

#[test]
fn a_redis_that_refuses_writes_for_a_while_stops_calls_for_that_while() {
    for (what, reason, begins, ends) in REFUSALS {
        let folder = tempfile::tempdir().expect("a folder");
        let redis = redis(&["--save", "3600 1", "--dir", &folder.path().display().to_string()]);
        let server = server(redis.url());
        let mut http = server.http().expect("a connection");
        for n in 0..3 {
            enqueue(&mut http, "q", &json!({ "payload": n }));
        }
        let task = claim(&mut http, "q", &json!({"leaseMs": 600_000})).remove(0);
        begins(&redis, folder.path());
        for round in 0..5 {
            for answer in [
                post(&mut http, "/v1/queues/q/tasks", &json!({"payload": "refused"})),
                post(&mut http, "/v1/queues/q/claims", &json!({"max": 10})),
                post(&mut http, "/v1/queues/new/tasks", &json!({"payload": "refused"})),
                act(&mut http, &task, "heartbeat"),
                act(&mut http, &task, "complete"),
            ] {
                let error = later(&answer, 503, "store_unavailable");
                assert!(!error["message"].as_str().unwrap_or_default().is_empty(), "{what}, round {round}");
            }
            std::thread::sleep(Duration::from_millis(150));
        }
        let error = later(&get(&mut http, "/readyz"), 503, "store_unavailable");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(reason)), "{what}: {error}");
        assert_eq!(get(&mut http, "/healthz").status, 200, "{what}: no restart would mend it");
        ends(&redis, folder.path());
        let took = until("it goes on", || act(&mut http, &task, "complete").status == 200);
        println!("{what}: went on after {took:?}");
        until("it is ready", || get(&mut http, "/readyz").status == 200);
        enqueue(&mut http, "q", &json!({"payload": 3}));
        let left = claim(&mut http, "q", &json!({"max": 10}));
        let payloads: Vec<_> = left.iter().filter_map(|task| task["payload"].as_u64()).collect();
        assert_eq!(payloads, [1, 2, 3], "{what}: what was refused is not there, all else is");
        assert_eq!(get(&mut http, "/v1/queues/new").status, 404, "{what}");
    }
}

const PASSWORD: &str = "hunter2";

/// A server that may never become ready, once it listens.
fn server_as(redis: &Redis, user: &str, folder: &Path) -> (Process, String) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let listen = free.expect("a free port").to_string();
    let log = File::create(folder.join("log")).expect("a log");
    let mut command = Command::new(binary("brisq-server").expect("built"));
    command.args(["--redis", &redis.url_of(user, PASSWORD), "--listen", &listen]);
    command.args([
        "--admin-listen",
        "127.0.0.1:0",
        "--ready-file",
        &folder.join("ready").display().to_string(),
    ]);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
    let process = Process::spawn(&mut command).expect("a server");
    until("it listens", || TcpStream::connect(&listen).is_ok());
    (process, listen)
}

#[test]
fn a_server_whose_user_lacks_a_right_names_it_and_stores_nothing() {
    for (user, rights, named, grant) in [
        // As Redis 7 makes users: without channels.
        ("channels", "~* +@all", "+publish &{q*", "&*"),
        ("zadd", "~* &* +@all -zadd", "+zadd ~{q*", "+zadd"),
        ("registry", "~{q* &* +@all", "~{brisq}:*", "~*"),
    ] {
        let redis = redis(&[]);
        says(&redis, &format!("ACL SETUSER {user} on >{PASSWORD} {rights}"), "+OK");
        let folder = tempfile::tempdir().expect("a folder");
        let (mut process, listen) = server_as(&redis, user, folder.path());
        let mut http = Http::connect(&listen).expect("a connection");
        until("the right is named", || get(&mut http, "/readyz").text().contains(named));
        let ready = get(&mut http, "/readyz");
        assert_eq!((ready.status, ready.header("retry-after")), (503, Some("1")), "{}", ready.text());
        assert!(ready.text().contains("docs/redis.md"), "{user}: {}", ready.text());
        assert_eq!(get(&mut http, "/healthz").status, 200);
        for path in ["/v1/queues/q/tasks", "/v1/queues/q/claims"] {
            let body = if path.ends_with("tasks") { json!({"payload": 1}) } else { json!({}) };
            let answer = post(&mut http, path, &body);
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
        }
        assert_eq!(redis.command("DBSIZE").expect("an answer"), ":0", "{user}");
        says(&redis, &format!("ACL SETUSER {user} {grant}"), "+OK");
        until("it is ready without a restart", || get(&mut http, "/readyz").status == 200);
        enqueue(&mut http, "q", &json!({"payload": 1}));
        assert_eq!(claim(&mut http, "q", &json!({})).len(), 1, "{user}");
        process.signal("TERM").expect("sent");
        assert!(process.wait(SOON).expect("it ends").success());
        let log = std::fs::read_to_string(folder.path().join("log")).expect("a log");
        assert!(log.contains(named) && !log.contains(PASSWORD), "{user}: {log}");
    }
}

/// The number of the queue that an id names: the 24 bits behind the variant.
fn number_of(id: &str) -> u128 {
    let bits = u128::from_str_radix(&id.replace('-', ""), 16).expect("an id");
    (bits >> 38) & 0xff_ffff
}

#[test]
fn a_queue_that_a_newer_version_wrote_is_refused_and_left_alone() {
    let redis = redis(&[]);
    let server = server(redis.url());
    let mut http = server.http().expect("a connection");
    enqueue(&mut http, "q", &json!({"payload": 1}));
    enqueue(&mut http, "q", &json!({"payload": 2}));
    let task = claim(&mut http, "q", &json!({"leaseMs": 600_000})).remove(0);
    let id = task["id"].as_str().expect("an id");
    let meta = format!("{{q{}.0}}:meta", number_of(id));
    assert_eq!(redis.command(&format!("HEXISTS {meta} now")).expect("an answer"), ":1");
    says(&redis, &format!("HSET {meta} schema 6"), ":");
    for answer in [
        post(&mut http, "/v1/queues/q/tasks", &json!({"payload": 3})),
        post(&mut http, "/v1/queues/q/claims", &json!({})),
        act(&mut http, &task, "complete"),
        get(&mut http, &format!("/v1/tasks/{id}")),
        get(&mut http, "/v1/queues/q"),
    ] {
        let error = later(&answer, 503, "store_newer");
        assert_eq!(error["detail"], json!({"schema": "6", "schemaKnown": "5"}));
    }
    // Other queues of the same store go on.
    enqueue(&mut http, "other", &json!({"payload": 1}));
    says(&redis, &format!("HSET {meta} schema 1"), ":");
    assert_eq!(ok(act(&mut http, &task, "complete")), json!({}));
    assert_eq!(claim(&mut http, "q", &json!({"max": 10})).len(), 1);
}

/// At 80 % of its memory new tasks are refused with when to come again, and all that frees memory goes on, one by one and
/// in batches.
#[test]
fn a_nearly_full_redis_takes_every_act_and_no_new_task() {
    let redis = redis(&["--maxmemory", "60mb", "--maxmemory-policy", "noeviction"]);
    let server = server(redis.url());
    let mut http = server.http().expect("a connection");
    let brief = json!({"completedMs": 0});
    let acts = ["heartbeat", "fail", "release", "complete"];
    let held: Vec<_> = (0..2 * acts.len())
        .map(|n| {
            enqueue(&mut http, "held", &json!({"payload": n, "retention": brief}));
            claim(&mut http, "held", &json!({"leaseMs": 600_000})).remove(0)
        })
        .collect();
    let large = json!({"payload": "x".repeat(500_000), "retention": brief});
    let mut large_ones = 0;
    let refused = loop {
        let answer = post(&mut http, "/v1/queues/large/tasks", &large);
        if answer.status != 201 {
            break answer;
        }
        large_ones += 1;
        assert!(large_ones < 200, "it never fills up");
    };
    later(&refused, 429, "store_full");
    // The last one was too large for what was left; how full Redis is is looked at once a second.
    let small = json!({"payload": 1, "retention": brief});
    until("nothing is taken", || post(&mut http, "/v1/queues/large/tasks", &small).status == 429);
    later(&post(&mut http, "/v1/queues/another/tasks", &json!({"payload": 1})), 429, "store_full");
    for (n, what) in acts.into_iter().enumerate() {
        ok(act(&mut http, &held[2 * n], what));
        let item = json!({"id": held[2 * n + 1]["id"], "token": held[2 * n + 1]["lease"]["token"]});
        let batch = ok(post(&mut http, &format!("/v1/leases/{what}"), &json!({"items": [item]})));
        assert!(batch["results"][0].get("error").is_none(), "{what}: {batch}");
    }
    later(&post(&mut http, "/v1/queues/held/tasks", &json!({"payload": 1})), 429, "store_full");
    let mut done = 0;
    loop {
        let tasks = claim(&mut http, "large", &json!({"max": 20}));
        if tasks.is_empty() {
            break;
        }
        for task in &tasks {
            ok(act(&mut http, task, "complete"));
        }
        done += tasks.len();
    }
    assert!(done >= large_ones, "{done} of {large_ones}");
    until("there is room", || {
        post(&mut http, "/v1/queues/large/tasks", &json!({"payload": 1})).status == 201
    });
}
