//! What stands between the network and the routes: how connections begin, wait, overflow and end, whoever opens them.
#![expect(clippy::indexing_slicing, reason = "what a test cannot read fails it, helpers included")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use brisq_e2e::{Server, Store};
use brisq_testkit::{Answer, Http, Process, Redis, RedisOptions, binary};
use serde_json::{Value, json};

/// Nothing here takes longer that does not say so.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(args: &[&str]) -> Server {
    Server::start(Store::Embedded, args).expect("a server")
}

/// A server whose limit of open files is `limit` (as `ulimit` takes it).
fn start_with_descriptors(limit: &str, args: &[&str]) -> Server {
    let shell = format!("ulimit {limit} && exec \"$0\" \"$@\"");
    Server::start_under(&["bash", "-c", &shell], Store::Embedded, args).expect("a server")
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream
}

/// What comes until `enough` is in it, or the end.
fn read_until(stream: &mut TcpStream, enough: &str) -> String {
    let mut got = Vec::new();
    let mut part = [0; 65_536];
    while enough.is_empty() || !String::from_utf8_lossy(&got).contains(enough) {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(read) => got.extend_from_slice(&part[..read]),
        }
    }
    String::from_utf8_lossy(&got).into_owned()
}

/// Sends bytes on a connection of their own and reads to its end.
fn talk(address: &str, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    // A server that refuses may close while more is being sent; what it said counts.
    let _ = stream.write_all(bytes);
    read_until(&mut stream, "")
}

fn request(method: &str, path: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{fields}content-length: {length}\r\n\r\n{body}")
}

#[track_caller]
fn is(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_str()),
        (status, Some(code)),
        "{}",
        answer.text()
    );
}

/// The largest resident memory of a process so far, MiB.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

fn slo(server: &Server) -> Value {
    Http::connect(&server.program.admin)
        .expect("a connection")
        .call("GET", "/debug/slo", "")
        .expect("counts")
        .json()
}

/// Counts of the objective, once so many claims have finished.
fn slo_after(server: &Server, finished: u64) -> Value {
    let began = Instant::now();
    loop {
        let counts = slo(server);
        if counts["finishedTotal"].as_u64() >= Some(finished) || began.elapsed() > PATIENCE {
            return counts;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a client does, and how, at an address.
type Client = (&'static str, fn(&str));

/// How clients send a claim that the server answers at once.
const CLAIMING: [Client; 6] = [
    ("three seconds after it connected", |address| {
        let mut stream = connect(address);
        std::thread::sleep(Duration::from_secs(3));
        send_in_parts(&mut stream, &[&claim()]);
    }),
    ("with its head in two parts", |address| {
        let claim = claim();
        send_in_parts(&mut connect(address), &[&claim[..20], &claim[20..]]);
    }),
    ("with a body that comes late", |address| {
        let claim = claim();
        let body = claim.find("{").expect("a body");
        send_in_parts(&mut connect(address), &[&claim[..body], &claim[body..]]);
    }),
    ("after another one, seconds apart", |address| {
        let mut stream = connect(address);
        send_in_parts(&mut stream, &[&claim()]);
        std::thread::sleep(Duration::from_secs(3));
        send_in_parts(&mut stream, &[&claim()]);
    }),
    ("behind one that waits", |address| {
        let mut stream = connect(address);
        let waiting = request("POST", "/v1/queues/nothing/claims", "", r#"{"waitMs": 3000}"#);
        stream.write_all((waiting + &claim()).as_bytes()).expect("sent");
        assert!(read_until(&mut stream, "lease").contains("lease"));
    }),
    ("offering h2c", |address| {
        let fields = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n";
        let mut stream = connect(address);
        std::thread::sleep(Duration::from_secs(2));
        stream.write_all(request("POST", "/v1/queues/full/claims", fields, "{}").as_bytes()).expect("sent");
        assert!(read_until(&mut stream, "lease").starts_with("HTTP/1.1 200"));
    }),
];

fn claim() -> String {
    request("POST", "/v1/queues/full/claims", "", "{}")
}

fn send_in_parts(stream: &mut TcpStream, parts: &[&str]) {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            std::thread::sleep(Duration::from_secs(2));
        }
        stream.write_all(part.as_bytes()).expect("sent");
    }
    assert!(read_until(stream, "lease").contains("lease"));
}

#[test]
fn no_claim_is_slow_for_what_its_client_does() {
    let server = start(&["--claim-threshold-ms", "1500"]);
    let mut http = server.program.http().expect("a connection");
    let tasks = json!({"tasks": vec![json!({"payload": 1}); 20]}).to_string();
    assert_eq!(http.call("POST", "/v1/queues/full/tasks", &tasks).expect("an answer").status, 200);
    let mut finished = 0;
    for (name, client) in CLAIMING {
        client(&server.program.listen);
        // The waiting one that brought nothing, and the first of two.
        finished += 1 + u64::from(name.contains("behind") || name.contains("another"));
        let counts = slo_after(&server, finished);
        assert_eq!(counts["slowTotal"], 0, "a claim {name}: {counts}");
    }
    assert_eq!(slo(&server)["finishedTotal"], finished);
    let preface = talk_bytes(&server.program.listen, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert_eq!((preface[3], preface[12], preface[25]), (4, 7, 0xd), "SETTINGS, GOAWAY, HTTP_1_1_REQUIRED");
}

fn talk_bytes(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(bytes).expect("sent");
    let mut got = Vec::new();
    stream.read_to_end(&mut got).expect("an end");
    got
}

#[test]
fn every_refusal_is_an_answer_with_the_envelope() {
    let server = start(&[]);
    let path = |path: &str| request("GET", path, "", "").into_bytes();
    let long = "a".repeat(20_000);
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let gzip = request("POST", "/v1/queues/q/tasks", "content-encoding: gzip\r\n", "\u{1f}");
    let large = request("POST", "/v1/queues/q/tasks", "", &"x".repeat(9 << 20));
    let cases: [(&str, Vec<u8>, u16, &str); 15] = [
        (
            "bytes of TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".into(),
            400,
            "invalid_request",
        ),
        ("no path", b"GET\r\n\r\n".into(), 400, "invalid_request"),
        ("another version", b"GET / HTTP/3.0\r\n\r\n".into(), 400, "invalid_request"),
        ("no length", b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n".into(), 400, "invalid_request"),
        (
            "two lengths",
            b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".into(),
            400,
            "invalid_request",
        ),
        ("not chunked", b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n".into(), 400, "invalid_request"),
        ("a field with a zero", b"GET / HTTP/1.1\r\na: \0\r\n\r\n".into(), 400, "invalid_request"),
        ("a path that is not UTF-8", path("/v1/tasks/%ff"), 400, "invalid_request"),
        (
            "a path of raw bytes",
            b"GET /v1/queues/\xff HTTP/1.1\r\nhost: localhost\r\n\r\n".into(),
            400,
            "invalid_request",
        ),
        ("a long path", path(&format!("/{long}")), 414, "uri_too_long"),
        ("a longer query", path(&format!("/?{}", long.repeat(5))), 414, "uri_too_long"),
        (
            "a long field",
            request("GET", "/", &format!("cookie: {long}\r\n"), "").into(),
            431,
            "headers_too_large",
        ),
        ("many fields", request("GET", "/", &many, "").into(), 431, "headers_too_large"),
        ("a compressed body", gzip.into(), 415, "unsupported_media_type"),
        ("a giant body that is sent at once", large.into(), 413, "body_too_large"),
    ];
    for (name, bytes, status, code) in &cases {
        for behind in [false, true] {
            let mut stream = connect(&server.program.listen);
            if behind {
                stream.write_all(&path("/healthz")).expect("sent");
                assert!(read_until(&mut stream, "ok").starts_with("HTTP/1.1 200 OK"));
            }
            let _ = stream.write_all(bytes);
            let got = read_until(&mut stream, "}}");
            assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{name}, behind: {behind}: {got}");
            assert!(got.contains(&format!(r#"{{"error":{{"code":"{code}","message":"#)), "{name}: {got}");
            assert!(got.contains("content-type: application/json\r\n"), "{name}: {got}");
        }
    }
}

#[test]
fn pipelined_requests_are_each_answered_whatever_lies_behind_the_last() {
    let server = start(&[]);
    for behind in ["", "\r", "\r\n", "G"] {
        let mut stream = connect(&server.program.listen);
        let gets = request("GET", "/healthz", "", "").repeat(50);
        let last = request("POST", "/v1/queues/q/tasks", "", r#"{"payload": 1}"#);
        stream.write_all(format!("{gets}{last}{behind}").as_bytes()).expect("sent");
        let got = read_until(&mut stream, "readyAt");
        assert_eq!(got.matches("HTTP/1.1 200 OK").count(), 50, "{behind:?}: {got}");
        assert!(got.contains("HTTP/1.1 201 Created"), "{behind:?}: {got}");
    }
    let old = talk(&server.program.listen, b"GET /healthz HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200") || old.starts_with("HTTP/1.1 200"), "{old}");
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

#[test]
fn without_tokens_hosts_and_pages_of_other_sites_are_refused() {
    let server = start(&[]);
    let port = server.program.listen.rsplit(':').next().expect("a port");
    let ask = |address: &str, path: &str, fields: &str| {
        let body = r#"{"payload": 1}"#;
        let post = if path.starts_with("/v1") { "POST" } else { "GET" };
        talk(
            address,
            format!(
                "{post} {path} HTTP/1.1\r\n{fields}connection: close\r\ncontent-length: 14\r\n\r\n{body}"
            )
            .as_bytes(),
        )
    };
    let own = format!("host: localhost:{port}\r\n");
    let cases = [
        ("host: localhost\r\n".to_owned(), 201),
        (own.clone(), 201),
        (format!("host: 127.0.0.1:{port}\r\n"), 201),
        (format!("host: [::1]:{port}\r\n"), 201),
        (String::new(), 201),
        (format!("{own}origin: http://localhost:{port}\r\n"), 201),
        (format!("host: evil:{port}\r\n"), 403),
        ("host: localhost.evil\r\n".to_owned(), 403),
        (format!("{own}host: evil\r\n"), 403),
        (format!("{own}origin: http://evil\r\n"), 403),
        (format!("{own}origin: null\r\n"), 403),
        ("host: evil\r\norigin: http://evil\r\n".to_owned(), 403),
    ];
    for (fields, status) in &cases {
        let got = ask(&server.program.listen, "/v1/queues/q/tasks", fields);
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{fields:?}: {got}");
        assert_eq!(got.contains(r#""code":"foreign_origin""#), *status == 403, "{fields:?}: {got}");
    }
    for path in ["/healthz", "/readyz"] {
        assert!(ask(&server.program.listen, path, "host: evil\r\n").starts_with("HTTP/1.1 200 "), "{path}");
    }
    assert!(ask(&server.program.admin, "/debug/slo", "host: evil\r\n").starts_with("HTTP/1.1 403 "));
    let insecure = start(&["--insecure"]);
    assert!(
        ask(&insecure.program.listen, "/v1/queues/q/tasks", "host: evil\r\n").starts_with("HTTP/1.1 201 ")
    );
}

#[test]
fn a_refused_token_names_its_scheme() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.yaml");
    std::fs::write(&file, "tokens: []").expect("written");
    let server = start(&["--tokens", &file.display().to_string()]);
    for token in [None, Some("wrong")] {
        let http = server.program.http().expect("a connection");
        let mut http = if let Some(token) = token { http.with_token(token) } else { http };
        let answer = http.call("GET", "/v1/queues", "").expect("an answer");
        is(&answer, 401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"brisq\""));
    }
    let foreign = b"GET /v1/queues HTTP/1.1\r\nhost: queue.example\r\norigin: http://queue.example\r\nconnection: close\r\n\r\n";
    assert!(
        talk(&server.program.listen, foreign).starts_with("HTTP/1.1 401 "),
        "with tokens any host may be called"
    );
}

#[test]
fn probes_are_answered_when_clients_have_taken_all_connections() {
    let probes =
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let server = start_with_descriptors("-n 256", &["--probe-listen", &probes]);
    let listen = server.program.listen.as_str();
    let mut clients: Vec<Http> = Vec::new();
    let mut answered = 0;
    for _ in 0..300 {
        let mut http = Http::connect(listen).expect("a connection");
        http.send("POST", "/v1/queues/nothing/claims", r#"{"waitMs": 60000}"#).expect("sent");
        clients.push(http);
    }
    let timed = |address: &str, path: &str| {
        let began = Instant::now();
        let mut http = Http::connect(address).expect("a connection");
        let answer = http.call("GET", path, "").expect("an answer");
        assert!(began.elapsed() < Duration::from_secs(2), "{path} took {:?}", began.elapsed());
        answer
    };
    for address in [listen, &probes] {
        for path in ["/healthz", "/readyz"] {
            assert_eq!(timed(address, path).status, 200, "{address} {path}");
        }
    }
    is(&timed(listen, "/v1/queues"), 503, "too_many_connections");
    is(&timed(&probes, "/v1/queues"), 404, "not_found");
    for http in &mut clients {
        http.socket().set_read_timeout(Some(Duration::from_millis(1))).expect("set");
        if let Ok(refused) = http.receive() {
            is(&refused, 503, "too_many_connections");
            assert_eq!(refused.header("connection"), Some("close"));
            answered += 1;
        }
    }
    assert_eq!(answered, 300 - 96, "so many parked claims fit beside the store's own files");
    drop(clients);
    let began = Instant::now();
    while timed(listen, "/v1/queues").status != 200 {
        assert!(began.elapsed() < PATIENCE, "there is room again");
    }
    assert!(!server.program.log().contains("could not be accepted"), "{}", server.program.log());
}

#[test]
fn the_limit_of_open_files_is_raised_to_what_is_allowed() {
    let server = start_with_descriptors("-S -n 256", &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.program.pid)).expect("limits");
    let open = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let [soft, hard] = [3, 4].map(|column| open.split_whitespace().nth(column).expect("a number"));
    assert_eq!(soft, hard);
    let clients: Vec<TcpStream> = (0..400).map(|_| connect(&server.program.listen)).collect();
    let mut http = server.program.http().expect("a connection");
    let answer = http.call("GET", "/v1/queues", "").expect("an answer");
    assert_eq!(answer.status, if hard.parse::<u64>().is_ok_and(|hard| hard < 700) { 503 } else { 200 });
    drop(clients);
}

/// A server that waits for a Redis, and the folder it works in.
fn start_without_redis(redis_port: u16, folder: &Path) -> (Process, String) {
    let listen =
        TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    let mut command = Command::new(binary("brisq-server").expect("built"));
    command
        .args(["--redis", &format!("redis://127.0.0.1:{redis_port}"), "--listen", &listen])
        .args(["--admin-listen", "127.0.0.1:0", "--ready-file", &folder.join("ready").display().to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log);
    let process = Process::spawn(&mut command).expect("a server");
    let began = Instant::now();
    while TcpStream::connect(&listen).is_err() {
        assert!(began.elapsed() < PATIENCE, "it listens");
        std::thread::sleep(Duration::from_millis(10));
    }
    (process, listen)
}

#[test]
fn a_server_that_waits_for_its_store_lives_and_says_what_is_missing() {
    let mut redis = Redis::start(RedisOptions::default()).expect("a Redis");
    let port = redis.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    redis.kill9();
    let folder = tempfile::tempdir().expect("a folder");
    let (mut server, listen) = start_without_redis(port, folder.path());
    let mut http = Http::connect(&listen).expect("a connection");
    let alive = http.call("GET", "/healthz", "").expect("an answer");
    assert_eq!((alive.status, alive.json()["status"].as_str()), (200, Some("ok")));
    let ready = http.call("GET", "/readyz", "").expect("an answer");
    is(&ready, 503, "starting");
    assert!(ready.text().contains("Redis is not reached yet"), "{}", ready.text());
    assert_eq!(ready.header("retry-after"), Some("1"));
    is(&http.call("POST", "/v1/queues/q/tasks", r#"{"payload": 1}"#).expect("an answer"), 503, "starting");
    assert!(!folder.path().join("ready").exists());
    redis.restart().expect("a Redis");
    let began = Instant::now();
    while http.call("GET", "/readyz", "").expect("an answer").status != 200 {
        assert!(began.elapsed() < PATIENCE, "it becomes ready on the same connection");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(http.call("POST", "/v1/queues/q/tasks", r#"{"payload": 1}"#).expect("an answer").status, 201);
    server.signal("TERM").expect("sent");
    assert!(server.wait(PATIENCE).expect("it ends").success());

    redis.kill9();
    let (mut waiting, _) = start_without_redis(port, folder.path());
    waiting.signal("TERM").expect("sent");
    assert!(waiting.wait(PATIENCE).expect("it ends while it waits").success());
}

#[test]
fn open_routes_cost_the_store_nothing() {
    let server = Server::start(Store::Redis, &[]).expect("a server");
    let redis = server.redis.as_ref().expect("a Redis");
    let mut http = server.program.http().expect("a connection");
    assert_eq!(redis.command("CONFIG RESETSTAT").expect("an answer"), "+OK");
    let began = Instant::now();
    let gets = |address: String| {
        let mut http = Http::connect(&address).expect("a connection");
        for path in ["/readyz", "/openapi.json"] {
            for _ in 0..150 {
                assert_eq!(http.call("GET", path, "").expect("an answer").status, 200, "{path}");
            }
        }
    };
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let address = server.program.listen.clone();
            std::thread::spawn(move || gets(address))
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("a client"));
    let half_seconds = began.elapsed().as_millis() as u64 / 500 + 1;
    let calls = commands(redis, "fcall");
    assert!(calls <= half_seconds + 2, "{calls} calls in {half_seconds} half seconds for 600 requests");
    assert_eq!(http.call("GET", "/readyz", "").expect("an answer").status, 200);
}

/// Function calls that Redis has run.
fn commands(redis: &Redis, name: &str) -> u64 {
    let address = redis.url().trim_start_matches("redis://").to_owned();
    let mut stream = connect(&address);
    stream.write_all(b"INFO commandstats\r\nQUIT\r\n").expect("sent");
    let text = read_until(&mut stream, "");
    let calls = text.lines().filter(|line| line.starts_with(&format!("cmdstat_{name}")));
    calls.filter_map(|line| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn a_page_is_watched_and_a_connection_idles_for_longer_than_a_minute() {
    let server = start(&[]);
    let mut idle = server.program.http().expect("a connection");
    assert_eq!(idle.call("GET", "/healthz", "").expect("an answer").status, 200);
    let mut ahead = server.program.http().expect("a connection");
    let mut page = connect(&server.program.listen);
    page.write_all(b"GET /console/events HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    let began = Instant::now();
    let mut last = Instant::now();
    let mut asked = false;
    while began.elapsed() < Duration::from_secs(100) {
        assert!(read_until(&mut page, "data:").contains("data:"), "cut after {:?}", began.elapsed());
        last = Instant::now();
        if !asked && began.elapsed() > Duration::from_secs(77) {
            asked = true;
            for http in [&mut idle, &mut ahead] {
                assert_eq!(http.call("GET", "/healthz", "").expect("an answer after 77 s").status, 200);
            }
        }
    }
    assert!(asked && last.elapsed() < Duration::from_secs(5));
}
