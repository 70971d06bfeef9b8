//! A queue that is paused: what it says of itself, what it goes on to take, and when its claims come.

use super::*;

fn act(http: &mut Http, queue: &str, act: &str, body: &Value) -> Answer {
    post(http, &format!("/v1/queues/{queue}/{act}"), body)
}

/// A counter of the server's, by how its line begins.
fn counted(server: &Server, series: &str) -> u64 {
    let mut admin = Http::connect(&server.program.admin).expect("a connection");
    let answer = get(&mut admin, "/metrics");
    let text = answer.text();
    let line = text.lines().find(|line| line.starts_with(series));
    let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(count.is_some(), "no {series}: {text}");
    count.unwrap_or(0.0) as u64
}

/// Claims that had a task later than 0.2 s after it was to be had.
fn slow_claims(server: &Server) -> u64 {
    let upto = |limit: &str| counted(server, &format!("brisq_claim_latency_seconds_bucket{{le=\"{limit}"));
    upto("+Inf") - upto("0.204")
}

/// What falls due in a pause, and leases that end in it, wake a parked claim for one look each.
#[test]
fn a_claim_that_waits_for_a_resume_costs_next_to_nothing() {
    on_each_store(|http, server| {
        for delay_ms in [200, 400, 600, 800, 1_000] {
            enqueue(http, "q", &json!({"payload": 1, "delayMs": delay_ms}));
        }
        enqueue(http, "q", &json!({"payload": 1}));
        claim(http, "q", &json!({"leaseMs": 1_000}));
        ok(act(http, "q", "pause", &json!({})), 200);
        let before = counted(server, "brisq_store_calls_total");
        assert!(claim(http, "q", &json!({"waitMs": 2_500})).is_empty());
        let calls = counted(server, "brisq_store_calls_total") - before;
        assert!((2..=12).contains(&calls), "{calls} calls for 6 that fell due");
    });
}

#[test]
fn a_paused_queue_takes_all_and_hands_out_nothing() {
    on_each_store(|http, server| {
        enqueue(http, "q", &json!({"payload": 1}));
        let held = claim(http, "q", &json!({})).remove(0);
        let view = ok(act(http, "q", "pause", &json!({"reason": "the mailer is down"})), 200);
        assert_eq!(view["name"], "q");
        assert_eq!(view["paused"]["reason"], "the mailer is down");
        let since = view["paused"]["since"].clone();
        assert!(since.as_str().is_some_and(|text| text.ends_with('Z') && text.len() == 24), "{view}");
        assert_eq!(view["paused"].get("by"), None, "no token is needed here");

        // Where many read it, too.
        assert_eq!(ok(get(http, "/v1/queues/q"), 200)["paused"]["since"], since);
        assert_eq!(ok(get(http, "/v1/queues"), 200)["queues"][0]["paused"]["since"], since);

        enqueue(http, "q", &json!({"payload": 2}));
        let (id, token) = lease(&held);
        ok(post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token})), 200);
        assert!(claim(http, "q", &json!({"waitMs": 300})).is_empty());

        let again = ok(act(http, "q", "pause", &json!({})), 200);
        assert_eq!(again["paused"], json!({"since": since}), "since then, for no reason now");

        // A claim that waits gets its task from the resume, not from its own next look.
        let mut parked = server.program.http().expect("a connection");
        parked.send("POST", "/v1/queues/q/claims", r#"{"waitMs": 20000}"#).expect("sent");
        std::thread::sleep(Duration::from_millis(300));
        let view = ok(act(http, "q", "resume", &json!({})), 200);
        assert_eq!(view.get("paused"), None, "{view}");
        let began = Instant::now();
        let answer = ok(parked.receive().expect("an answer"), 200);
        assert_eq!(answer["tasks"][0]["payload"], 2, "{answer}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let slow = slow_claims(server);
        assert_eq!(slow, 0, "waiting for a resume is nobody's latency");
        assert_eq!(ok(act(http, "q", "resume", &json!({})), 200).get("paused"), None);
    });
}

#[test]
fn what_no_pause_can_be_is_refused() {
    on_each_store(|http, _| {
        enqueue(http, "q", &json!({"payload": 1}));
        refused(&act(http, "q", "pause", &json!({"reason": "x".repeat(1_025)})), 400, "invalid_field");
        refused(&act(http, "q", "pause", &json!({"reason": 1})), 400, "invalid_json");
        refused(&act(http, "q", "pause", &json!({"until": 1})), 400, "unknown_field");
        refused(&act(http, "q", "resume", &json!({"reason": "x"})), 400, "unknown_field");
        for what in ["pause", "resume"] {
            let body = refused(&act(http, "never-used", what, &json!({})), 404, "queue_not_found");
            assert_eq!(body["error"]["detail"]["queue"], "never-used");
            refused(&act(http, "-", what, &json!({})), 400, "invalid_name");
        }
        assert_eq!(ok(get(http, "/v1/queues/q"), 200).get("paused"), None);
        ok(act(http, "q", "pause", &json!({"reason": "x".repeat(1_024)})), 200);
    });
}
