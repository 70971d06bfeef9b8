//! Queues: listed in pages, and kept apart.

use super::*;

fn page(http: &mut Http, query: &str) -> (Vec<String>, Option<String>) {
    let body = ok(get(http, &format!("/v1/queues{query}")), 200);
    let name = |queue: &Value| queue["name"].as_str().expect("a name").to_owned();
    let names = body["queues"].as_array().expect("queues").iter().map(name).collect();
    (names, body.get("nextCursor").map(|cursor| cursor.as_str().expect("text").to_owned()))
}

#[test]
fn queues_come_in_pages() {
    on_each_store(|http, _| {
        for n in 0..7 {
            enqueue(http, &format!("q{n}"), &json!({"payload": 1}));
        }
        let (names, cursor) = page(http, "?limit=3");
        assert_eq!(names, ["q0", "q1", "q2"]);
        let cursor = cursor.expect("there are more");
        // A queue that comes before the cursor moves nothing behind it.
        enqueue(http, "a", &json!({"payload": 1}));
        let (names, cursor) = page(http, &format!("?limit=3&cursor={cursor}"));
        assert_eq!(names, ["q3", "q4", "q5"]);
        let (names, cursor) = page(http, &format!("?limit=3&cursor={}", cursor.expect("there is one more")));
        assert_eq!((names, cursor), (vec!["q6".to_owned()], None));
        let (names, cursor) = page(http, "");
        assert_eq!((names.len(), cursor), (8, None));
        for wrong in ["?limit=0", "?limit=1001", "?limit=x", "?cursor=!", "?nonsense=1"] {
            refused(&get(http, &format!("/v1/queues{wrong}")), 400, "invalid_field");
        }
    });
}

#[test]
fn queues_keep_apart_when_redis_comes_back_empty() {
    let mut server = Server::start(Store::Redis, &[]).expect("a server");
    let mut http = server.program.http().expect("a connection");
    enqueue(&mut http, "a", &json!({"payload": 1}));
    enqueue(&mut http, "b", &json!({"payload": 2}));
    let redis = server.redis.as_mut().expect("a Redis");
    redis.command("FLUSHALL").expect("an answer");
    redis.restart().expect("it comes back");
    let began = Instant::now();
    let answers = |http: &mut Http, queue: &str| {
        let tasks = json!({"tasks": [{"payload": queue}]});
        http.call("POST", &format!("/v1/queues/{queue}/tasks"), &tasks.to_string())
            .is_ok_and(|a| a.status == 200)
    };
    while !answers(&mut http, "b") || began.elapsed() < Duration::from_secs(2) {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not serve again");
        std::thread::sleep(Duration::from_millis(100));
    }
    // The server knows "a" by a number of before; no queue that is made now may have it.
    assert!(answers(&mut http, "c") && answers(&mut http, "a"));
    for queue in ["a", "c"] {
        let tasks = claim(&mut http, queue, &json!({"max": 100}));
        let payloads: Vec<&Value> = tasks.iter().map(|task| &task["payload"]).collect();
        assert_eq!(payloads, [queue], "{queue}");
    }
}

#[test]
fn queues_are_listed_with_their_counts() {
    on_each_store(|http, _| {
        refused(&get(http, "/v1/queues/nowhere"), 404, "queue_not_found");
        enqueue(http, "b", &json!({"payload": 1}));
        enqueue(http, "a", &json!({"payload": 1, "delayMs": 60000}));
        let queues = ok(get(http, "/v1/queues"), 200)["queues"].clone();
        let names: Vec<_> = queues.as_array().expect("queues").iter().map(|q| q["name"].clone()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(queues[0]["counts"]["delayed"], 1);
        let b = ok(get(http, "/v1/queues/b"), 200);
        assert_eq!(b["counts"]["ready"], 1);
        assert!(b["oldestReadyAgeMs"].is_u64());
    });
}
