//! Thousands who wait, and one cause that fails all of them.

use super::*;

/// Claims that wait, and as many who wait for a result.
const WAITERS: usize = 500;
/// Lines of a server whose Redis stops and comes back, whoever waits: each cause at each place once, and what was left out.
const LINES_MAX: usize = 60;

fn waiting(server: &Program, method: &str, path: &str, body: &str) -> Vec<Http> {
    let wait = |_| {
        let mut http = server.http().expect("a connection");
        http.send(method, path, body).expect("sent");
        http
    };
    (0..WAITERS).map(wait).collect()
}

#[test]
fn a_redis_that_stops_under_a_thousand_waiters_makes_few_lines() {
    let mut redis = redis(&[]);
    let server = server(redis.url());
    let mut http = server.http().expect("a connection");
    enqueue(&mut http, "held", &json!({"payload": 1}));
    let task = claim(&mut http, "held", &json!({"leaseMs": 600_000})).remove(0);
    let id = task["id"].as_str().expect("an id");
    let mut claims = waiting(&server, "POST", "/v1/queues/empty/claims", r#"{"waitMs":60000}"#);
    let mut results = waiting(&server, "GET", &format!("/v1/tasks/{id}/result?waitMs=60000"), "");
    std::thread::sleep(Duration::from_secs(1));
    let before = server.log().lines().count();
    redis.kill9();
    // Each that waits is answered, and comes again, as workers do.
    for _ in 0..3 {
        for (n, waiter) in claims.iter_mut().chain(&mut results).enumerate() {
            let answer = waiter.receive().expect("an answer");
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.text());
            let result = format!("/v1/tasks/{id}/result?waitMs=60000");
            let again = match n < WAITERS {
                true => waiter.send("POST", "/v1/queues/empty/claims", r#"{"waitMs":60000}"#),
                false => waiter.send("GET", &result, ""),
            };
            again.expect("sent");
        }
    }
    redis.restart().expect("it comes back");
    until("it goes on", || get(&mut http, "/readyz").status == 200);
    let log = server.log();
    let lines: Vec<&str> = log.lines().skip(before).collect();
    println!("{} lines for {} failures", lines.len(), 6 * WAITERS);
    assert!(lines.len() <= LINES_MAX, "{} lines:\n{}", lines.len(), lines.join("\n"));
    assert!(!lines.is_empty(), "it is told");
}

/// The acts of a batch are done when its claim waits, and its answer says both: what was done, and why nothing was claimed.
#[test]
fn a_claim_that_the_store_fails_stands_beside_what_was_done() {
    let mut redis = redis(&[]);
    let server = server(redis.url());
    let mut http = server.http().expect("a connection");
    enqueue(&mut http, "q", &json!({"payload": 1}));
    let task = claim(&mut http, "q", &json!({"leaseMs": 600_000})).remove(0);
    let item = json!({"id": task["id"], "token": task["lease"]["token"]});
    let batch = json!({"items": [item], "claim": {"waitMs": 30_000}}).to_string();
    http.send("POST", "/v1/leases/complete", &batch).expect("sent");
    std::thread::sleep(Duration::from_millis(500));
    redis.kill9();
    let answer = ok(http.receive().expect("an answer"));
    assert_eq!(answer["results"], json!([{}]), "{answer}");
    assert_eq!(answer["error"]["code"], "store_unavailable", "{answer}");
    assert!(answer.get("tasks").is_none(), "{answer}");
    redis.restart().expect("it comes back");
    until("it goes on", || get(&mut http, "/readyz").status == 200);
    let id = task["id"].as_str().expect("an id");
    assert_eq!(ok(get(&mut http, &format!("/v1/tasks/{id}")))["state"], "completed");
}

/// Batches of heartbeats that fill a queue's lane.
const LANE_BATCHES: usize = 21;

#[test]
fn a_claim_that_finds_its_lane_full_is_answered_so() {
    let redis = redis(&[]);
    let server = server(redis.url());
    let mut http = server.http().expect("a connection");
    let held = held(&mut http, 1).remove(0);
    redis.signal("STOP").expect("stopped");
    let beats = json!({"items": vec![held.clone(); 1_000]}).to_string();
    let mut filling: Vec<Http> = Vec::new();
    for _ in 0..=LANE_BATCHES {
        let mut one = server.http().expect("a connection");
        one.send("POST", "/v1/leases/heartbeat", &beats).expect("sent");
        filling.push(one);
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    let answer = ok(post(&mut http, "/v1/leases/complete", &json!({"items": [held], "claim": {}})));
    redis.signal("CONT").expect("continued");
    assert_eq!(answer["results"][0]["error"]["code"], "overloaded", "{answer}");
    assert_eq!(answer["error"]["code"], "overloaded", "{answer}");
    until("it goes on", || {
        let answer = ok(post(&mut http, "/v1/leases/complete", &json!({"items": [held], "claim": {}})));
        answer == json!({"results": [{}], "tasks": []})
    });
}
