//! `--durability relaxed`: an answer comes before its commit is synced. A stop syncs all of them; a crash costs the last
//! second, and a little for the sync itself.

use super::*;

/// What was acknowledged so long ago is there after any crash: a second, and time for a slow disk to sync.
const SYNCED_AFTER: Duration = Duration::from_millis(2_500);

fn relaxed() -> Server {
    Server::start(Store::Embedded, &["--durability", "relaxed"]).expect("a server")
}

fn add(http: &mut Http, tasks: usize) -> Vec<String> {
    let tasks: Vec<Value> = (0..tasks).map(|n| json!({ "payload": n })).collect();
    let results = ok(post(http, "/v1/queues/q/tasks", &json!({ "tasks": tasks })), 200)["results"].clone();
    let id = |one: &Value| one["task"]["id"].as_str().expect("an id").to_owned();
    results.as_array().expect("results").iter().map(id).collect()
}

#[test]
fn a_stop_loses_nothing_whoever_waits_and_whatever_is_held() {
    let mut server = relaxed();
    let mut http = server.program.http().expect("a connection");
    add(&mut http, 10);
    let [done, held] = [(); 2].map(|()| claim(&mut http, "q", &json!({"leaseMs": 600_000})).remove(0));
    let mut parked = server.program.http().expect("a connection");
    parked.send("POST", "/v1/queues/empty/claims", r#"{"waitMs":60000}"#).expect("sent");
    std::thread::sleep(SYNCED_AFTER);
    // The last calls before the end: no timer has synced them.
    let (id, token) = lease(&done);
    ok(post(&mut http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token, "result": 7})), 200);
    add(&mut http, 5);
    server.program.process().signal("TERM").expect("sent");
    assert_eq!(ok(parked.receive().expect("an answer"), 200)["tasks"], json!([]));
    let status = server.program.process().wait(Duration::from_secs(20)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.program.log());

    server.program.restart().expect("it starts again");
    let mut http = server.program.http().expect("a connection");
    assert_eq!(ok(get(&mut http, &format!("/v1/tasks/{id}/result")), 200)["result"], 7);
    let (id, token) = lease(&held);
    let path = format!("/v1/tasks/{id}/complete");
    ok(post(&mut http, &path, &json!({ "token": token })), 200);
    assert_eq!(claim(&mut http, "q", &json!({"max": 100})).len(), 8 + 5);
}

#[test]
fn a_crash_loses_nothing_that_was_acknowledged_before_the_last_second() {
    let mut server = relaxed();
    for round in 1..=3 {
        let mut http = server.program.http().expect("a connection");
        let kept = add(&mut http, 50);
        let (id, token) = lease(&claim(&mut http, "q", &json!({"leaseMs": 600_000})).remove(0));
        std::thread::sleep(SYNCED_AFTER);
        // While others come.
        add(&mut http, 50);
        server.program.restart().expect("killed, it starts again");
        let mut http = server.program.http().expect("a connection");
        for id in kept {
            ok(get(&mut http, &format!("/v1/tasks/{id}")), 200);
        }
        ok(post(&mut http, &format!("/v1/tasks/{id}/complete"), &json!({ "token": token })), 200);
        let counts = ok(get(&mut http, "/v1/queues/q"), 200)["counts"].clone();
        assert_eq!(counts["completed"], round, "{counts}");
    }
}
