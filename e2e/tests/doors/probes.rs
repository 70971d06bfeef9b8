//! What probes are told, before there is a store and while there is one.

use std::path::Path;
use std::process::{Command, Stdio};

use brisq_testkit::{Process, Redis, RedisOptions, binary};

use super::*;

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
    let took = began.elapsed();
    let calls = redis.function_calls().expect("an answer");
    // A look at readiness twice a second, beside what the server asks by itself.
    std::thread::sleep(took);
    let by_itself = redis.function_calls().expect("an answer") - calls;
    let looks = took.as_millis() as u64 / 500 + 1;
    assert!(
        calls <= by_itself + looks + 2,
        "{calls} calls in {took:?} for 1,200 requests, {by_itself} at rest"
    );
    assert_eq!(http.call("GET", "/readyz", "").expect("an answer").status, 200);
}
