//! Policies: what they bound, and who hears of it.

use super::*;

fn put(http: &mut Http, queue: &str, policy: &Value) -> Answer {
    http.call("PUT", &format!("/v1/queues/{queue}"), &policy.to_string()).expect("an answer")
}

fn reason(http: &mut Http, queue: &str) -> Value {
    ok(get(http, &format!("/v1/queues/{queue}/explain")), 200)["reason"].clone()
}

#[test]
fn a_policy_is_answered_back_with_its_defaults() {
    on_each_store(|http, _| {
        let view = ok(put(http, "q", &json!({"limits": {"maxInFlight": 2, "perSecond": 2.5}})), 200);
        assert_eq!(view["policy"]["limits"], json!({"maxInFlight": 2, "perSecond": 2.5, "burst": 2}));
        assert_eq!(view["policy"]["retention"]["completedMs"], 3_600_000);
        assert_eq!(ok(get(http, "/v1/queues/q"), 200)["policy"], view["policy"]);
        assert_eq!(ok(get(http, "/v1/queues"), 200)["queues"][0].get("policy"), None);
        let view = ok(put(http, "q", &json!({})), 200);
        assert_eq!(view["policy"]["limits"], json!({}), "what is absent takes its default");
        enqueue(http, "other", &json!({"payload": 1}));
        assert_eq!(ok(get(http, "/v1/queues/other"), 200)["policy"], view["policy"]);
        for (wrong, code) in [
            (json!({"limits": {"maxInFlight": 0}}), "invalid_field"),
            (json!({"limits": {"burst": 3}}), "invalid_field"),
            (json!({"limits": {"keys": [{"match": "a"}]}}), "invalid_field"),
            (json!({"fairness": {"weights": {"a": 0}}}), "invalid_field"),
            (json!({"ordering": {"onFailure": "wait"}}), "invalid_field"),
            (json!({"nonsense": 1}), "unknown_field"),
        ] {
            refused(&put(http, "q", &wrong), 400, code);
        }
        refused(&put(http, "-q", &json!({})), 400, "invalid_name");
    });
}

#[test]
fn a_limit_holds_claims_back_until_a_task_ends() {
    on_each_store(|http, server| {
        ok(put(http, "q", &json!({"limits": {"maxInFlight": 1}})), 200);
        let tasks = json!({"tasks": [{"payload": 1}, {"payload": 2}]});
        ok(post(http, "/v1/queues/q/tasks", &tasks), 200);
        let (id, token) = lease(&claim(http, "q", &json!({"max": 5})).remove(0));
        assert!(claim(http, "q", &json!({})).is_empty());
        assert_eq!(reason(http, "q"), "limitFull");
        let mut other = server.program.http().expect("a connection");
        let waiter = std::thread::spawn(move || claim(&mut other, "q", &json!({"waitMs": 20_000})));
        std::thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        ok(post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token})), 200);
        assert_eq!(waiter.join().expect("an answer").len(), 1);
        assert!(began.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_higher_limit_lets_a_claim_go_that_waits() {
    on_each_store(|http, server| {
        ok(put(http, "q", &json!({"limits": {"maxInFlight": 1}})), 200);
        ok(post(http, "/v1/queues/q/tasks", &json!({"tasks": [{"payload": 1}, {"payload": 2}]})), 200);
        claim(http, "q", &json!({}));
        let mut other = server.program.http().expect("a connection");
        let waiter = std::thread::spawn(move || claim(&mut other, "q", &json!({"waitMs": 20_000})));
        std::thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        ok(put(http, "q", &json!({"limits": {"maxInFlight": 2}})), 200);
        assert_eq!(waiter.join().expect("an answer").len(), 1);
        assert!(began.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_claim_that_waits_has_its_task_when_a_token_comes() {
    on_each_store(|http, _| {
        ok(put(http, "q", &json!({"limits": {"perSecond": 1, "burst": 1}})), 200);
        let tasks = json!({"tasks": [{"payload": 1}, {"payload": 2}, {"payload": 3, "cost": 2}]});
        ok(post(http, "/v1/queues/q/tasks", &tasks), 200);
        let began = Instant::now();
        let (id, token) = lease(&claim(http, "q", &json!({"max": 5, "waitMs": 20_000})).remove(0));
        assert_eq!(reason(http, "q"), "rateLimited");
        assert_eq!(claim(http, "q", &json!({"max": 5, "waitMs": 20_000})).len(), 1);
        let waited = began.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
        let used = json!({"token": token, "usedCost": 0});
        ok(post(http, &format!("/v1/tasks/{id}/complete"), &used), 200);
        refused(&post(http, "/v1/queues/q/tasks", &json!({"payload": 1, "cost": 0})), 400, "invalid_field");
    });
}
