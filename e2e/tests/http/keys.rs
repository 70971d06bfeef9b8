//! Tasks that are ordered, limited and treated fairly by key.

use super::*;

fn put(http: &mut Http, queue: &str, policy: &Value) -> Value {
    ok(http.call("PUT", &format!("/v1/queues/{queue}"), &policy.to_string()).expect("an answer"), 200)
}

fn why(http: &mut Http, of: &str) -> Value {
    ok(get(http, &format!("/v1/{of}/explain")), 200)
}

fn complete(http: &mut Http, task: &Value) {
    let (id, token) = lease(task);
    ok(post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token})), 200);
}

#[test]
fn an_ordering_key_lets_one_task_run_at_a_time_and_says_who_holds_it() {
    on_each_store(|http, server| {
        let ids = [1, 2, 3].map(|n| enqueue(http, "q", &json!({"payload": n, "orderingKey": "customer-7"})));
        let blocked = ok(get(http, &format!("/v1/tasks/{}", ids[1])), 200);
        assert_eq!((&blocked["state"], &blocked["orderingKey"]), (&json!("blocked"), &json!("customer-7")));
        let first = claim(http, "q", &json!({"max": 10}));
        assert_eq!(first.len(), 1);
        let told = why(http, &format!("tasks/{}", ids[2]));
        assert_eq!((&told["reason"], &told["position"]), (&json!("orderingKeyBusy"), &json!(2)), "{told}");
        assert!(told["evidence"].to_string().contains(&ids[0]), "{told}");
        assert_eq!(why(http, "queues/q")["reason"], "orderingKeyBusy");
        assert_eq!(ok(get(http, "/v1/queues/q"), 200)["counts"]["blocked"], 2);
        let list = ok(get(http, "/v1/queues/q/tasks?state=blocked&limit=1"), 200);
        assert_eq!((&list["tasks"][0]["id"], list["nextCursor"].is_string()), (&json!(ids[1]), true));
        let rest =
            format!("/v1/queues/q/tasks?limit=5&cursor={}", list["nextCursor"].as_str().unwrap_or_default());
        assert_eq!(ok(get(http, &rest), 200)["tasks"][0]["id"], json!(ids[2]));

        // Who waits is woken by the end of the holder.
        let mut other = server.program.http().expect("a connection");
        let waiter = std::thread::spawn(move || claim(&mut other, "q", &json!({"waitMs": 20_000})));
        std::thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        complete(http, &first[0]);
        let second = waiter.join().expect("an answer");
        assert_eq!(second[0]["id"], json!(ids[1]));
        assert!(began.elapsed() < Duration::from_secs(10));

        let purge = json!({"states": ["blocked"]});
        assert_eq!(ok(post(http, "/v1/queues/q/purge", &purge), 200), json!({"matched": 1, "purged": 1}));
    });
}

#[test]
fn limits_by_key_hold_and_are_told() {
    on_each_store(|http, _| {
        let limits =
            json!({"keys": [{"match": "openai*", "maxInFlight": 1}, {"match": "mail", "perSecond": 1}]});
        let view = put(http, "q", &json!({"limits": limits, "ordering": {"onFailure": "skip"}}));
        assert_eq!(
            view["policy"]["limits"]["keys"][1],
            json!({"match": "mail", "perSecond": 1.0, "burst": 1})
        );
        assert_eq!(view["policy"]["ordering"], json!({"onFailure": "skip"}));
        let mut last = Vec::new();
        for key in ["openai-eu", "mail", "free"] {
            enqueue(http, "q", &json!({"payload": key, "limitKey": key}));
            last.push(enqueue(http, "q", &json!({"payload": key, "limitKey": key})));
        }
        let running = claim(http, "q", &json!({"max": 10}));
        let mut payloads: Vec<_> =
            running.iter().map(|task| task["payload"].as_str().unwrap_or("")).collect();
        payloads.sort_unstable();
        assert_eq!(payloads, ["free", "free", "mail", "openai-eu"]);
        for (id, reason, fact) in [(&last[0], "limitFull", "openai*"), (&last[1], "rateLimited", "until")] {
            let told = why(http, &format!("tasks/{id}"));
            assert_eq!((&told["state"], &told["reason"]), (&json!("blocked"), &json!(reason)), "{told}");
            assert!(told["evidence"].to_string().contains(fact), "{told}");
        }
        // A claim that waits has the task of the rate when its token comes.
        let began = Instant::now();
        let waited = claim(http, "q", &json!({"waitMs": 20_000}));
        assert_eq!(waited[0]["payload"], "mail");
        assert!(began.elapsed() < Duration::from_secs(8));
    });
}

#[test]
fn a_backlog_of_one_fairness_key_holds_no_other_up() {
    on_each_store(|http, _| {
        put(http, "q", &json!({"fairness": {"weights": {"gold": 3}}}));
        let tasks = |key: &str, count: usize| {
            let task = json!({"payload": key, "fairnessKey": key});
            json!({"tasks": vec![task; count]})
        };
        for (key, count) in [("big", 100), ("gold", 50), ("small", 1)] {
            ok(post(http, "/v1/queues/q/tasks", &tasks(key, count)), 200);
        }
        let first = claim(http, "q", &json!({"max": 21}));
        let count = |key: &str| first.iter().filter(|task| task["payload"] == key).count();
        assert!(count("small") == 1 && (5..=6).contains(&count("big")), "{first:?}");
    });
}

#[test]
fn keys_that_are_wrong_are_refused_and_their_neighbours_are_not() {
    on_each_store(|http, _| {
        for field in ["orderingKey", "limitKey", "fairnessKey"] {
            for wrong in [json!(""), json!("a\nb"), json!("k".repeat(257)), json!(7)] {
                let answer = post(http, "/v1/queues/q/tasks", &json!({"payload": 1, field: wrong}));
                assert_eq!(answer.status, 400, "{field}: {answer:?}");
            }
            let batch = json!({"tasks": [{"payload": 1, field: ""}, {"payload": 2, field: "k".repeat(256)}]});
            let results = ok(post(http, "/v1/queues/q/tasks", &batch), 200);
            assert_eq!(results["results"][0]["error"]["detail"]["field"], field);
            assert!(results["results"][1]["task"]["id"].is_string(), "{results}");
        }
    });
}

#[test]
fn dead_letters_of_an_ordering_key_come_back_in_its_order() {
    on_each_store(|http, _| {
        for n in 0..4 {
            enqueue(http, "q", &json!({"payload": n, "orderingKey": "k", "maxAttempts": 1}));
        }
        for _ in 0..4 {
            let (id, token) = lease(&claim(http, "q", &json!({}))[0]);
            ok(post(http, &format!("/v1/tasks/{id}/fail"), &json!({"token": token})), 200);
        }
        ok(post(http, "/v1/queues/q/redrive", &json!({})), 200);
        let order: Vec<Value> = (0..4)
            .map(|_| {
                let task = claim(http, "q", &json!({})).remove(0);
                complete(http, &task);
                task["payload"].clone()
            })
            .collect();
        assert_eq!(order, [json!(0), json!(1), json!(2), json!(3)]);
    });
}
