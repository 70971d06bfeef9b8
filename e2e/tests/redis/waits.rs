//! Waiting: while nothing comes it costs nothing, and when nobody can be told of what comes it is found all the same.

use std::process::Command;

use brisq_testkit::Forwarder;

use super::*;

/// Connections that answer nothing before one does again: at two seconds each, for the subscription alone.
const SILENT: u32 = 8;
/// A claim looks once a second while messages are lost.
const FOUND_MAX: Duration = Duration::from_secs(4);

/// Calls go on, on the connection that is there; the subscription is cut, and new connections are answered by nobody, as
/// where a machine is gone or a policy drops them.
#[test]
fn what_comes_while_the_subscription_is_dead_is_found_by_looking() {
    let redis = redis(&[]);
    let door = Forwarder::to(redis.port()).expect("a door");
    let (deaf, other) = (server(format!("redis://127.0.0.1:{}", door.port())), server(redis.url()));
    let (mut here, mut there) = (deaf.http().expect("a connection"), other.http().expect("a connection"));
    for queue in ["known", "held"] {
        enqueue(&mut there, queue, &json!({"payload": 1}));
        let task = claim(&mut here, queue, &json!({})).remove(0);
        ok(act(&mut here, &task, "complete"));
    }
    let held = enqueue(&mut there, "held", &json!({"payload": 2}));
    let task = claim(&mut there, "held", &json!({})).remove(0);
    let park = |path: &str| {
        let mut parked = deaf.http().expect("a connection");
        let method = if path.contains("/claims") { "POST" } else { "GET" };
        parked.send(method, path, if method == "POST" { r#"{"waitMs":40000}"# } else { "" }).expect("sent");
        parked
    };
    let paths = ["/v1/queues/known/claims".to_owned(), "/v1/queues/unknown/claims".to_owned()];
    let before = paths.each_ref().map(|path| park(path));
    let mut result = park(&format!("/v1/tasks/{held}/result?waitMs=40000"));
    std::thread::sleep(Duration::from_millis(500));
    assert!(metric(&deaf, "brisq_wakeups_lost").abs() < 0.5);

    let made = door.connections();
    door.swallow(made..made + SILENT);
    redis.command("CLIENT KILL TYPE pubsub").expect("an answer");
    until("it is told", || metric(&deaf, "brisq_wakeups_lost") > 0.5);
    let after = paths.each_ref().map(|path| park(path));
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    for queue in ["known", "unknown"] {
        for n in 0..2 {
            enqueue(&mut there, queue, &json!({ "payload": n }));
        }
    }
    ok(act(&mut there, &task, "complete"));
    for mut parked in before.into_iter().chain(after) {
        let answer = ok(parked.receive().expect("an answer"));
        assert_eq!(answer["tasks"].as_array().map(Vec::len), Some(1), "{answer}");
    }
    assert_eq!(ok(result.receive().expect("an answer"))["state"], "completed");
    assert!(began.elapsed() < FOUND_MAX, "{:?}", began.elapsed());
    assert!(metric(&deaf, "brisq_wakeups_lost") > 0.5, "it was found while nothing could be told");
    // And when there is somebody again, messages flow again.
    until("it is over", || metric(&deaf, "brisq_wakeups_lost") < 0.5);
    let mut parked = park(&paths[0]);
    std::thread::sleep(Duration::from_millis(500));
    enqueue(&mut there, "known", &json!({"payload": 3}));
    assert_eq!(ok(parked.receive().expect("an answer"))["tasks"][0]["payload"], 3);
}

/// Claims that wait at once, and the fewest that are worth counting where descriptors are few.
const PARKED: (usize, usize) = (9_900, 2_000);
/// Descriptors of this process that are no claims.
const OWN: usize = 200;

/// This process may have as many descriptors as it is allowed; answers how many.
fn raise_descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
    let open = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let hard: usize = open.split_whitespace().nth(4).and_then(|hard| hard.parse().ok()).expect("a number");
    let own = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &own, &format!("--nofile={hard}:{hard}")]).status();
    assert!(raised.expect("prlimit").success());
    hard
}

#[test]
fn ten_thousand_parked_claims_ask_redis_nothing() {
    let parked_max = PARKED.0.min(raise_descriptors().saturating_sub(OWN));
    assert!(parked_max >= PARKED.1, "{parked_max} descriptors are too few");
    let redis = redis(&[]);
    let server = server(redis.url());
    let mut http = server.http().expect("a connection");
    // Half of them wait for a queue that is there, half for one that is not.
    enqueue(&mut http, "known", &json!({"payload": 1}));
    let task = claim(&mut http, "known", &json!({})).remove(0);
    ok(act(&mut http, &task, "complete"));
    let seconds = 5;
    let at_rest = calls_in(&redis, seconds);
    let parked: Vec<Http> = (0..parked_max)
        .map(|n| {
            let queue = if n % 2 == 0 { "known" } else { "unknown" };
            let mut claim = server.http().expect("a connection");
            claim.send("POST", &format!("/v1/queues/{queue}/claims"), r#"{"waitMs":60000}"#).expect("sent");
            claim
        })
        .collect();
    let waiting = |http: &mut Http| ok(get(http, "/v1/queues/known"))["claimersWaiting"].as_u64();
    until("they all wait", || waiting(&mut http) == Some(parked_max.div_ceil(2) as u64));
    // The last of them has asked; those of the unknown name came in turn.
    std::thread::sleep(Duration::from_secs(1));
    let asked = calls_in(&redis, seconds);
    println!("{parked_max} parked claims: {asked} calls in {seconds} s, at rest {at_rest}");
    assert!(asked <= at_rest + seconds, "{parked_max} parked claims asked {asked} times, at rest {at_rest}");
    // One task is for one of them, and the others are left alone.
    let (before, mut looks) = (calls(&redis), 0);
    enqueue(&mut http, "known", &json!({"payload": "one"}));
    let rest = parked_max.div_ceil(2) as u64 - 1;
    let took = until("one has it", || {
        looks += 1;
        waiting(&mut http) == Some(rest)
    });
    let asked = calls(&redis) - before;
    println!("one task for {parked_max} claims: {asked} calls in {took:?}, {looks} of them to look");
    assert!(took < Duration::from_secs(seconds), "{took:?}");
    assert!(asked <= looks + 20, "{asked} calls in {took:?}, {looks} of them this test's");
    assert_eq!(ok(get(&mut http, "/v1/queues/known"))["counts"]["leased"], 1);
    drop(parked);
}
