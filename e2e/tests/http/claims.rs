//! Claims from several queues: who comes first, how much, and who is woken.

use super::*;

/// A lease that does not end within a test, however slow the machine.
const LONG_MS: u64 = 3_600_000;

fn claims(http: &mut Http, body: &Value) -> Vec<Value> {
    let body = ok(post(http, "/v1/claims", body), 200);
    body["tasks"].as_array().expect("tasks").clone()
}

fn queues_of(tasks: &[Value]) -> Vec<&str> {
    tasks.iter().map(|task| task["queue"].as_str().expect("a queue")).collect()
}

fn fill(http: &mut Http, queue: &str, count: usize) {
    let tasks: Vec<Value> = (0..count).map(|n| json!({ "payload": n })).collect();
    ok(post(http, &format!("/v1/queues/{queue}/tasks"), &json!({ "tasks": tasks })), 200);
}

/// A claim on a connection of its own that waits.
fn park(server: &Server, path: &str, body: &Value) -> Http {
    let mut http = server.program.http().expect("a connection");
    http.send("POST", path, &body.to_string()).expect("sent");
    std::thread::sleep(Duration::from_millis(300));
    http
}

#[track_caller]
fn woken(parked: &mut Http) -> Vec<Value> {
    let body = ok(parked.receive().expect("an answer"), 200);
    body["tasks"].as_array().expect("tasks").clone()
}

#[test]
fn a_claim_takes_in_order_and_no_more_than_its_max_from_all() {
    on_each_store(|http, _| {
        for (n, (max, order, wanted)) in [
            (1, ["a", "b", "c"], &["a"][..]),
            (3, ["b", "a", "c"], &["b", "b", "a"]),
            (4, ["c", "b", "a"], &["b", "b", "a", "a"]),
            (256, ["a", "c", "b"], &["a", "a", "b", "b"]),
        ]
        .into_iter()
        .enumerate()
        {
            // "c" is never made.
            let name = |queue: &str| format!("{queue}{n}");
            fill(http, &name("a"), 2);
            fill(http, &name("b"), 2);
            let tasks = claims(http, &json!({"max": max, "queues": order.map(name), "worker": "w"}));
            let wanted: Vec<String> = wanted.iter().map(|queue| name(queue)).collect();
            assert_eq!(queues_of(&tasks), wanted, "{max} of {order:?}");
            for task in &tasks {
                let (id, token) = lease(task);
                ok(post(http, &format!("/v1/tasks/{id}/complete"), &json!({ "token": token })), 200);
            }
            let left = claims(http, &json!({"max": 256, "queues": order.map(name)}));
            assert_eq!(left.len(), 4 - tasks.len(), "what was not handed out is there still");
            refused(&get(http, &format!("/v1/queues/{}", name("c"))), 404, "queue_not_found");
        }
    });
}

#[test]
fn weights_say_how_often_a_queue_comes_first() {
    const CLAIMS: usize = 1_000;
    const WEIGHTS: [(&str, usize); 3] = [("one", 1), ("three", 3), ("six", 6)];
    on_each_store(|http, _| {
        for (queue, _) in WEIGHTS {
            fill(http, queue, CLAIMS);
        }
        let queues = WEIGHTS.map(|(name, weight)| json!({"name": name, "weight": weight}));
        let body = json!({"queues": queues, "leaseMs": LONG_MS});
        let mut counts = [0_usize; 3];
        for _ in 0..CLAIMS {
            let tasks = claims(http, &body);
            assert_eq!(tasks.len(), 1);
            let at = WEIGHTS.iter().position(|(queue, _)| *queue == tasks[0]["queue"]).expect("one of them");
            counts[at] += 1;
        }
        for ((queue, weight), count) in WEIGHTS.into_iter().zip(counts) {
            // Six standard deviations: a fair draw is beyond it once in 500 million.
            let share = weight as f64 / 10.0;
            let bound = 6.0 * (CLAIMS as f64 * share * (1.0 - share)).sqrt();
            let off = count as f64 - CLAIMS as f64 * share;
            assert!(off.abs() <= bound, "{queue} came {count} times: {counts:?}");
        }
        // Work is not left lying for a weight: the heaviest is empty, and the others give.
        let rest = claims(http, &json!({"max": 3, "queues": [{"name": "none", "weight": 256}, "one"]}));
        assert_eq!(queues_of(&rest), ["one"; 3]);
    });
}

#[test]
fn each_of_many_queues_wakes_a_claim_that_waits_for_all() {
    on_each_store(|http, server| {
        let names: Vec<String> = (0..64).map(|n| format!("many{n}")).collect();
        // Some are there already, the others are waited for by their names.
        for name in names.iter().step_by(2) {
            fill(http, name, 1);
            claim(http, name, &json!({ "leaseMs": LONG_MS }));
        }
        for at in [0, 1, 31, 62, 63] {
            let mut parked = park(
                server,
                "/v1/claims",
                &json!({"queues": names, "waitMs": 20_000, "max": 5, "leaseMs": LONG_MS}),
            );
            let id = enqueue(http, &names[at], &json!({"payload": at}));
            let tasks = woken(&mut parked);
            assert_eq!((tasks.len(), &tasks[0]["id"]), (1, &json!(id)), "{}", names[at]);
        }
        // A delayed task wakes it as well.
        let mut parked = park(server, "/v1/claims", &json!({"queues": names, "waitMs": 20_000}));
        let id = enqueue(http, &names[7], &json!({"payload": 1, "delayMs": 700}));
        assert_eq!(woken(&mut parked)[0]["id"], json!(id));
    });
}

#[test]
fn a_claim_without_a_wait_or_whose_time_is_over_answers_nothing() {
    on_each_store(|http, _| {
        fill(http, "there", 1);
        claim(http, "there", &json!({}));
        for wait_ms in [0, 1, 400] {
            let began = Instant::now();
            assert!(claims(http, &json!({"queues": ["there", "never"], "waitMs": wait_ms})).is_empty());
            let took = began.elapsed();
            assert!(took >= Duration::from_millis(wait_ms) && took < Duration::from_secs(10), "{took:?}");
        }
    });
}

#[test]
fn a_client_that_left_its_lines_takes_nothing_with_it() {
    on_each_store(|http, server| {
        for queue in ["x", "y"] {
            let body = json!({"queues": ["x", "y"], "waitMs": 20_000});
            let gone = park(server, "/v1/claims", &body);
            let mut stays = park(server, "/v1/claims", &body);
            let mut single = park(server, &format!("/v1/queues/{queue}/claims"), &json!({"waitMs": 20_000}));
            drop(gone);
            fill(http, queue, 2);
            assert_eq!(woken(&mut stays).len(), 1);
            assert_eq!(woken(&mut single).len(), 1);
            let view = ok(get(http, &format!("/v1/queues/{queue}")), 200);
            assert_eq!(view["claimersWaiting"], 0, "{view}");
        }
    });
}

/// Tasks for all who wait, in both queues at once: a wake-up that reached the claim of both and was not needed there must
/// reach the other.
#[test]
fn a_wake_up_that_is_not_needed_is_handed_on() {
    on_each_store(|http, server| {
        let mut beside = server.program.http().expect("a connection");
        for round in 0..30 {
            let body = json!({"queues": ["p", "q"], "waitMs": 20_000, "leaseMs": LONG_MS});
            let connect = || server.program.http().expect("a connection");
            let (mut both, mut single) = (connect(), connect());
            both.send("POST", "/v1/claims", &body.to_string()).expect("sent");
            std::thread::sleep(Duration::from_millis(20));
            let alone = json!({"waitMs": 20_000, "leaseMs": LONG_MS}).to_string();
            single.send("POST", "/v1/queues/q/claims", &alone).expect("sent");
            std::thread::sleep(Duration::from_millis(20));
            let one = json!({ "payload": round }).to_string();
            // From "q" there is enough for both of them, whatever the claim of both takes.
            let two = json!({"tasks": [{"payload": 1}, {"payload": 2}]}).to_string();
            let began = Instant::now();
            http.send("POST", "/v1/queues/p/tasks", &one).expect("sent");
            beside.send("POST", "/v1/queues/q/tasks", &two).expect("sent");
            ok(http.receive().expect("an answer"), 201);
            ok(beside.receive().expect("an answer"), 200);
            assert_eq!((woken(&mut both).len(), woken(&mut single).len()), (1, 1), "round {round}");
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
            while !claims(http, &json!({"queues": ["p", "q"], "max": 256, "leaseMs": LONG_MS})).is_empty() {}
        }
    });
}

#[test]
fn an_answer_of_many_queues_has_the_bytes_of_one() {
    const EACH: usize = 900_000;
    const TASKS: usize = 24;
    on_each_store(|http, _| {
        let payload = "x".repeat(EACH);
        for queue in ["large", "larger"] {
            for _ in 0..TASKS / 8 {
                let tasks: Vec<Value> = (0..8).map(|_| json!({ "payload": payload })).collect();
                ok(post(http, &format!("/v1/queues/{queue}/tasks"), &json!({ "tasks": tasks })), 200);
            }
        }
        let mut counts = Vec::new();
        while counts.iter().sum::<usize>() < 2 * TASKS {
            let body = json!({"queues": ["large", "larger"], "max": 256, "leaseMs": LONG_MS});
            let tasks = claims(http, &body);
            assert!(!tasks.is_empty() && tasks.len() * EACH <= 16 * 1024 * 1024, "{} tasks", tasks.len());
            counts.push(tasks.len());
        }
        assert_eq!(counts.iter().sum::<usize>(), 2 * TASKS, "{counts:?}");
    });
}

#[test]
fn a_drain_sends_claims_of_many_queues_home() {
    on_each_store(|_, server| {
        let parked = json!({"queues": ["one", "two"], "waitMs": 40_000});
        let mut parked = park(server, "/v1/claims", &parked);
        let pid = server.program.pid.to_string();
        let sent = std::process::Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill").success());
        let began = Instant::now();
        assert!(woken(&mut parked).is_empty());
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    });
}

#[test]
fn a_claim_that_names_its_queues_wrongly_is_told_where() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut http = server.program.http().expect("a connection");
    let many: Vec<String> = (0..65).map(|n| format!("q{n}")).collect();
    for (body, code, field) in [
        (json!({}), "invalid_field", "queues"),
        (json!({ "queues": many }), "invalid_field", "queues"),
        (json!({"queues": ["a", "a"]}), "invalid_field", "queues"),
        (json!({"queues": [{"name": "a", "weight": 0}]}), "invalid_field", "queues[0].weight"),
        (json!({"queues": ["a"], "max": 0}), "invalid_field", "max"),
        (json!({"queues": ["a"], "waitMs": 60_001}), "invalid_field", "waitMs"),
    ] {
        let answer = refused(&post(&mut http, "/v1/claims", &body), 400, code);
        assert_eq!(answer["error"]["detail"]["field"], field, "{body}");
    }
    refused(&post(&mut http, "/v1/claims", &json!({"queues": ["a", "/"]})), 400, "invalid_name");
}
