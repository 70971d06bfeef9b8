//! Whatever clients send or leave unread, memory has bounds.

use brisq_testkit::peak_bytes;

use super::*;

/// The largest resident memory of a process so far, MiB.
fn peak_mib(pid: u32) -> u64 {
    peak_bytes(pid) / (1 << 20)
}

#[test]
fn heads_that_never_end_cost_little_memory_and_end() {
    let server = start(&[]);
    let before = peak_mib(server.program.pid);
    let head = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}", "y".repeat(15_000));
    let mut heads: Vec<TcpStream> = (0..900).map(|_| connect(&server.program.listen)).collect();
    for stream in &mut heads {
        stream.write_all(head.as_bytes()).expect("sent");
    }
    let mut http = server.program.http().expect("a connection");
    assert_eq!(http.call("GET", "/healthz", "").expect("an answer").status, 200);
    let first = read_until(&mut heads[0], "");
    assert!(first.starts_with("HTTP/1.1 408 ") && first.contains("request_timeout"), "{first}");
    let grown = peak_mib(server.program.pid) - before;
    assert!(grown < 64, "900 heads of 15 KB took {grown} MiB");
}

#[test]
fn answers_that_nobody_reads_do_not_pile_up() {
    let server = start(&[]);
    let mut http = server.program.http().expect("a connection");
    let large = json!({"payload": "x".repeat(1_000_000)}).to_string();
    let id = http.call("POST", "/v1/queues/q/tasks", &large).expect("an answer").json()["id"].clone();
    let before = peak_mib(server.program.pid);
    let mut deaf = connect(&server.program.listen);
    let get = request("GET", &format!("/v1/tasks/{}", id.as_str().expect("an id")), "", "");
    deaf.set_write_timeout(Some(Duration::from_secs(2))).expect("set");
    // The server reads no further requests while an answer waits: not all may go out.
    let _ = deaf.write_all(get.repeat(300).as_bytes());
    std::thread::sleep(Duration::from_secs(3));
    let grown = peak_mib(server.program.pid) - before;
    assert!(grown < 100, "300 requests of {} bytes took {grown} MiB", get.len());
}

/// Small calls of each kind while large bodies hold all bytes.
const SMALL_ROUNDS: usize = 15;

/// The id and the token of a task of queue `small`.
#[track_caller]
fn claim_one(http: &mut Http) -> (String, Value) {
    let answer = http.call("POST", "/v1/queues/small/claims", "{}").expect("an answer");
    assert_eq!(answer.status, 200, "a claim goes on: {}", answer.text());
    let task = answer.json()["tasks"][0].clone();
    (task["id"].as_str().expect("a task").to_owned(), json!({"token": task["lease"]["token"]}))
}

#[track_caller]
fn act(http: &mut Http, (id, body): &(String, Value), what: &str) {
    let answer = http.call("POST", &format!("/v1/tasks/{id}/{what}"), &body.to_string()).expect("an answer");
    assert_eq!(answer.status, 200, "a {what} goes on: {}", answer.text());
}

#[test]
fn bodies_in_flight_are_bounded_together() {
    let server = start(&[]);
    let before = peak_mib(server.program.pid);
    let whole = 8 << 20;
    let head =
        format!("POST /v1/queues/q/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-length: {whole}\r\n\r\n");
    let part = vec![b' '; whole - 1];
    let address = server.program.listen.as_str();
    let mut small = Http::connect(address).expect("a connection");
    let enqueue = |http: &mut Http| {
        http.call("POST", "/v1/queues/small/tasks", r#"{"payload": 1}"#).expect("an answer").status
    };
    for _ in 0..=SMALL_ROUNDS {
        assert_eq!(enqueue(&mut small), 201);
    }
    let leased = claim_one(&mut small);
    let refused = std::thread::scope(|scope| {
        let send = || {
            let mut stream = connect(address);
            stream.set_read_timeout(Some(Duration::from_secs(12))).expect("set");
            stream.write_all(head.as_bytes()).expect("sent");
            let _ = stream.write_all(&part);
            read_until(&mut stream, "}}")
        };
        // The first sixteen take all there is but a few bytes.
        let mut senders: Vec<_> = (0..16).map(|_| scope.spawn(send)).collect();
        std::thread::sleep(Duration::from_secs(1));
        senders.extend((0..8).map(|_| scope.spawn(send)));
        let began = Instant::now();
        while enqueue(&mut small) == 201 {
            assert!(began.elapsed() < Duration::from_secs(5), "there is always room");
            std::thread::sleep(Duration::from_millis(50));
        }
        for _ in 0..SMALL_ROUNDS {
            act(&mut small, &leased, "heartbeat");
            let taken = claim_one(&mut small);
            act(&mut small, &taken, "complete");
            std::thread::sleep(Duration::from_millis(200));
        }
        act(&mut small, &leased, "complete");
        assert_eq!(enqueue(&mut small), 429, "what takes memory waits until the bodies are gone");
        let answers = senders.into_iter().map(|sender| sender.join().expect("a sender"));
        answers.filter(|answer| answer.starts_with("HTTP/1.1 429") && answer.contains("overloaded")).count()
    });
    assert!((6..24).contains(&refused), "{refused} of 24 bodies of 8 MiB were refused");
    let grown = peak_mib(server.program.pid) - before;
    assert!(grown < 300, "24 bodies of 8 MiB took {grown} MiB");
}
