//! What is carried out for a client that leaves: every act that came whole, whoever reads its answer.

use super::*;

/// How a client ends its side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    HalfClose,
    Close,
}

/// When it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    BeforeTheLastByte,
    WithIt,
    AfterIt,
}

/// An act: its name, its request by a task's id and token, and what shows in a view of the task that it was carried out.
struct Act {
    name: &'static str,
    request: fn(&str, &str) -> (&'static str, String, Value),
    shows: fn(&Value) -> bool,
}

fn single(id: &str, token: &str, what: &str, beside: &Value) -> (&'static str, String, Value) {
    let mut body = json!({ "token": token });
    body.as_object_mut().expect("an object").extend(beside.as_object().expect("an object").clone());
    ("POST", format!("/v1/tasks/{id}/{what}"), body)
}

fn batch(id: &str, token: &str, what: &str, beside: &Value) -> (&'static str, String, Value) {
    let (.., mut item) = single(id, token, what, beside);
    item["id"] = id.into();
    ("POST", format!("/v1/leases/{what}"), json!({ "items": [item] }))
}

fn is(state: &str) -> impl Fn(&Value) -> bool {
    move |task| task["state"] == state
}

const ACTS: [Act; 10] = [
    Act {
        name: "complete",
        request: |id, token| single(id, token, "complete", &json!({"result": 7})),
        shows: |task| is("completed")(task),
    },
    Act {
        name: "fail",
        request: |id, token| single(id, token, "fail", &json!({"retryable": false})),
        shows: |task| is("dead")(task),
    },
    Act {
        name: "release",
        request: |id, token| single(id, token, "release", &json!({})),
        shows: |task| is("ready")(task),
    },
    Act {
        name: "heartbeat",
        request: |id, token| single(id, token, "heartbeat", &json!({"progress": 1})),
        shows: |task| task["progress"] == 1,
    },
    Act {
        name: "cancel",
        request: |id, _| ("DELETE", format!("/v1/tasks/{id}"), Value::Null),
        shows: |task| task["cancelRequested"] == true,
    },
    Act {
        name: "a batch of completes",
        request: |id, token| batch(id, token, "complete", &json!({})),
        shows: |task| is("completed")(task),
    },
    Act {
        name: "a batch of completes with a claim",
        request: |id, token| {
            let (method, path, mut body) = batch(id, token, "complete", &json!({}));
            body["claim"] = json!({"waitMs": 20_000});
            (method, path, body)
        },
        shows: |task| is("completed")(task),
    },
    Act {
        name: "a batch of fails",
        request: |id, token| batch(id, token, "fail", &json!({"retryable": false})),
        shows: |task| is("dead")(task),
    },
    Act {
        name: "a batch of releases",
        request: |id, token| batch(id, token, "release", &json!({})),
        shows: |task| is("ready")(task),
    },
    Act {
        name: "a batch of heartbeats",
        request: |id, token| batch(id, token, "heartbeat", &json!({"progress": 1})),
        shows: |task| task["progress"] == 1,
    },
];

/// Sends a request whole, or all of it but its last byte, and leaves.
fn send_and_leave(server: &Server, request: &[u8], leaving: Leaving, when: When) {
    let mut stream = TcpStream::connect(&server.program.listen).expect("a connection");
    stream.set_nodelay(true).expect("set");
    let (last, rest) = request.split_last().expect("bytes");
    stream.write_all(rest).expect("sent");
    // The server has read so far, and waits.
    std::thread::sleep(Duration::from_millis(5));
    if when != When::BeforeTheLastByte {
        stream.write_all(&[*last]).expect("sent");
    }
    if when == When::AfterIt {
        std::thread::sleep(Duration::from_millis(1));
    }
    if leaving == Leaving::HalfClose {
        stream.shutdown(Shutdown::Write).expect("shut down");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        let mut answer = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut answer);
    }
}

fn head_and_body((method, path, body): &(&str, String, Value)) -> Vec<u8> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}").into()
}

const LEAVINGS: [Leaving; 2] = [Leaving::HalfClose, Leaving::Close];
const WHENS: [When; 3] = [When::BeforeTheLastByte, When::WithIt, When::AfterIt];

#[test]
fn every_act_that_came_whole_is_carried_out_though_its_client_left() {
    on_each_store(|http, server| {
        let mut sent = Vec::new();
        for act in &ACTS {
            for (leaving, when) in LEAVINGS.into_iter().flat_map(|how| WHENS.map(|when| (how, when))) {
                // Each has a queue of its own, so that nobody's claim takes what another released.
                let queue = format!("q{}", sent.len());
                let id = enqueue(http, &queue, &json!({"payload": 1}));
                let (_, token) = lease(&claim(http, &queue, &json!({})).remove(0));
                send_and_leave(server, &head_and_body(&(act.request)(&id, &token)), leaving, when);
                sent.push((act, leaving, when, id));
            }
        }
        for (act, leaving, when, id) in &sent {
            let mut shows = || (act.shows)(&ok(get(http, &format!("/v1/tasks/{id}")), 200));
            let what = format!("{}, {leaving:?} {when:?}", act.name);
            let began = Instant::now();
            if *when == When::BeforeTheLastByte {
                assert!(!shows(), "{what}: the request was not whole");
                continue;
            }
            while !shows() {
                assert!(began.elapsed() < Duration::from_secs(3), "{what}: it was not carried out");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    });
}

#[test]
fn every_enqueue_that_came_whole_is_carried_out_though_its_producer_left() {
    on_each_store(|http, server| {
        let mut sent = Vec::new();
        let large = "x".repeat(600_000);
        for tasks in [json!({"payload": 1}), json!({"tasks": [{"payload": 1}]}), json!({ "payload": large })]
        {
            for (leaving, when) in LEAVINGS.into_iter().flat_map(|how| WHENS.map(|when| (how, when))) {
                // Its first task makes the queue: two calls of the store.
                let queue = format!("new-{}", sent.len());
                let request = ("POST", format!("/v1/queues/{queue}/tasks"), tasks.clone());
                send_and_leave(server, &head_and_body(&request), leaving, when);
                sent.push((queue, leaving, when));
            }
        }
        for (queue, leaving, when) in &sent {
            let claimed = claim(
                http,
                queue,
                &json!({"waitMs": if *when == When::BeforeTheLastByte { 0 } else { 3_000 }}),
            );
            let expected = usize::from(*when != When::BeforeTheLastByte);
            assert_eq!(claimed.len(), expected, "{queue}, {leaving:?} {when:?}");
        }
    });
}

#[test]
fn a_claim_whose_fin_came_with_its_last_byte_takes_nothing() {
    on_each_store(|http, server| {
        for (n, leaving) in LEAVINGS.into_iter().enumerate() {
            let queue = format!("left{n}");
            let id = enqueue(http, &queue, &json!({"payload": 1}));
            let request = ("POST", format!("/v1/queues/{queue}/claims"), json!({"waitMs": 20_000}));
            send_and_leave(server, &head_and_body(&request), leaving, When::WithIt);
            let tasks = claim(http, &queue, &json!({"waitMs": 3_000}));
            assert_eq!((&tasks[0]["id"], &tasks[0]["attempt"]), (&json!(id), &json!(1)), "{leaving:?}");
        }
    });
}

#[test]
fn a_claim_whose_client_went_away_gives_its_tasks_back() {
    on_each_store(|http, server| {
        for shutdown in [Shutdown::Write, Shutdown::Both] {
            let mut gone = server.program.http().expect("a connection");
            gone.send("POST", "/v1/queues/gone/claims", r#"{"waitMs": 30000}"#).expect("sent");
            std::thread::sleep(Duration::from_millis(150));
            gone.socket().shutdown(shutdown).expect("shut down");
            std::thread::sleep(Duration::from_millis(50));
            let id = enqueue(http, "gone", &json!({"payload": "for somebody else"}));
            let tasks = claim(http, "gone", &json!({"waitMs": 5000}));
            assert_eq!(tasks.len(), 1, "{shutdown:?}");
            let (claimed, token) = lease(&tasks[0]);
            assert_eq!((&claimed, &tasks[0]["attempt"]), (&id, &json!(1)), "no attempt was consumed");
            ok(post(http, &format!("/v1/tasks/{id}/complete"), &json!({"token": token})), 200);
        }
    });
}
