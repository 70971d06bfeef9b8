//! Server and profiling sidecar as two processes: captures cross the socket, and each survives the other's end.
#![expect(clippy::indexing_slicing, reason = "what a test cannot read fails it, helpers included")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use brisq_e2e::{Server, Store, load};
use brisq_testkit::{Http, Process, Redis, binary, go_tool};
use serde_json::{Value, json};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A sidecar in a temporary folder.
struct Sidecar {
    process: Process,
    folder: TempDir,
    args: Vec<String>,
    address: String,
}

impl Sidecar {
    fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let args = args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        let (process, address) = Self::launch(folder.path(), &args);
        Self { process, folder, args, address }
    }

    fn launch(folder: &Path, args: &[String]) -> (Process, String) {
        let ready = folder.join("ready.json");
        // Absent at the first start.
        let _ = std::fs::remove_file(&ready);
        let mut command = Command::new(binary("brisq-profiler").expect("brisq-profiler"));
        command.arg("--socket").arg(folder.join("profiler.sock")).arg("--data").arg(folder.join("data"));
        command.args(["--listen", "127.0.0.1:0", "--ready-file"]).arg(&ready).args(args);
        let process = Process::spawn(command.stdin(Stdio::null()).stderr(Stdio::null())).expect("a sidecar");
        let text = until("it listens", || std::fs::read_to_string(&ready).ok());
        let ready: Value = serde_json::from_str(&text).expect("a ready file");
        (process, ready["listen"].as_str().expect("an address").to_owned())
    }

    fn restart(&mut self) {
        self.process.kill9();
        (self.process, self.address) = Self::launch(self.folder.path(), &self.args);
    }

    fn socket(&self) -> String {
        self.folder.path().join("profiler.sock").display().to_string()
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut http = Http::connect(&self.address).expect("the sidecar");
        let answer = http.call_json(method, path, &body).expect("an answer");
        (answer.status, answer.json())
    }

    /// Asks for a capture, once there is a server to capture.
    fn ask(&self, name: &str, window: &Value) {
        until("it is taken", || {
            (self.call("PUT", &format!("/v1/captures/{name}"), window).0 == 202).then_some(())
        });
    }

    fn complete(&self, name: &str) -> Value {
        until("it is complete", || {
            let (_, state) = self.call("GET", &format!("/v1/captures/{name}"), &Value::Null);
            (state["phase"] == "Complete").then_some(state)
        })
    }

    /// The server's counts, once it has sent some.
    fn slo(&self) -> Value {
        until("counts come", || {
            Some(self.call("GET", "/v1/slo", &Value::Null)).filter(|(status, _)| *status == 200)
        })
        .1
    }

    fn captures(&self) -> Vec<PathBuf> {
        let entries =
            |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        let dates = entries(self.folder.path().join("data/captures"));
        dates.flat_map(entries).filter(|folder| folder.join("manifest.json").exists()).collect()
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(50));
    }
}

fn json_of(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(name)).expect("a file")).expect("JSON")
}

#[test]
fn a_breach_is_captured_across_the_socket_with_the_servers_symbols() {
    // No server keeps 64 connections under a millisecond here.
    let objective = ["--name", "orders", "--threshold-ms", "1", "--min-samples", "50", "--post-seconds", "2"];
    let sidecar = Sidecar::start(&objective);
    let server = Server::start(
        Store::Embedded,
        &["--profiler-socket", &sidecar.socket(), "--claim-threshold-ms", "1"],
    );
    let server = server.expect("a server");
    let calm = load(&server.program, &["--rate", "50"]).expect("a load");
    assert_eq!(sidecar.slo()["pid"], server.program.pid);
    sleep(Duration::from_secs(4));
    // Somebody's long recording does not keep the breach from being captured.
    let now_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    let window = json!({"fromMs": now_ms, "toMs": now_ms + 100_000});
    assert_eq!(sidecar.call("PUT", "/v1/captures/long", &window).0, 202);
    drop(calm);
    let _load = load(&server.program, &["--concurrency", "64"]).expect("a load");
    let capture = until("a capture", || sidecar.captures().pop());
    let name = capture.file_name().expect("a name").to_string_lossy().into_owned();
    let manifest = json_of(&capture, "manifest.json");
    assert_eq!((&manifest["reason"], &manifest["onsetInside"]), (&"Breach".into(), &true.into()));
    // The manifest is there a moment before the sidecar says so.
    sidecar.complete(&name);
    let profile = capture.join("cpu.pb.gz").display().to_string();
    let output = Command::new(go_tool("pprof").expect("pprof"))
        .args(["-top", "-cum", "-nodecount=400", &profile])
        .output();
    let top = String::from_utf8_lossy(&output.expect("pprof runs").stdout).into_owned();
    assert!(top.contains("brisq_store_local::writer"), "{top}");
}

#[test]
fn a_window_is_captured_once_however_often_it_is_asked_for() {
    let sidecar = Sidecar::start(&[]);
    let window = json!({"fromMs": 1, "toMs": 2});
    assert_eq!(sidecar.call("PUT", "/v1/captures/manual-1", &window).0, 503, "no server yet");
    let server = Server::start(Store::Embedded, &["--profiler-socket", &sidecar.socket()]).expect("a server");
    let _load = load(&server.program, &["--rate", "100"]).expect("a load");
    let now_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    let window = json!({"fromMs": now_ms - 5_000, "toMs": now_ms + 2_000});
    for _ in 0..3 {
        let (status, state) = sidecar.call("PUT", "/v1/captures/manual-1", &window);
        assert_eq!(status, 202, "{state}");
    }
    let done = sidecar.complete("manual-1");
    assert_eq!(sidecar.captures().len(), 1, "{done}");
    let manifest = json_of(&sidecar.captures()[0], "manifest.json");
    assert_eq!(manifest["reason"], "Manual");
    assert!(manifest["window"]["toMs"].as_u64() >= Some(now_ms + 2_000), "{manifest}");
    for (path, body) in
        [("a%20b", window.clone()), ("x", json!({"fromMs": 2, "toMs": 1})), ("x", json!({"from": 1}))]
    {
        assert_eq!(sidecar.call("PUT", &format!("/v1/captures/{path}"), &body).0, 400, "{path} {body}");
    }
}

#[test]
fn each_side_goes_on_when_the_other_is_killed() {
    let mut sidecar = Sidecar::start(&[]);
    let mut server =
        Server::start(Store::Embedded, &["--profiler-socket", &sidecar.socket()]).expect("a server");
    let first = sidecar.slo();
    sidecar.restart();
    assert_eq!(sidecar.slo()["startedMs"], first["startedMs"], "the server did not notice");
    let mut http = server.program.http().expect("a connection");
    let answer = http.call("POST", "/v1/queues/q/tasks", r#"{"payload":1}"#).expect("an answer");
    assert_eq!(answer.status, 201);
    server.program.restart().expect("a restart");
    until("the new server is watched", || (sidecar.slo()["pid"] == server.program.pid).then_some(()));
    // kill -9 left its black box; an end with a goodbye leaves none.
    let lost = until("the black box is written", || sidecar.captures().pop());
    assert_eq!(json_of(&lost, "manifest.json")["reason"], "ServerLost");
    server.program.process().signal("TERM").expect("a signal");
    assert!(server.program.process().wait(TIMEOUT).expect("it ends").success());
    sleep(Duration::from_secs(2));
    assert_eq!(sidecar.captures().len(), 1);
}

#[test]
fn a_capture_whose_sidecar_is_killed_is_asked_for_again_and_says_what_is_missing() {
    let mut sidecar = Sidecar::start(&[]);
    let server = Server::start(Store::Embedded, &["--profiler-socket", &sidecar.socket()]).expect("a server");
    let _load = load(&server.program, &["--rate", "100"]).expect("a load");
    let now_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    sleep(Duration::from_secs(4));
    let window = json!({"fromMs": now_ms, "toMs": now_ms + 8_000});
    sidecar.ask("orders-1-1", &window);
    sidecar.restart();
    // The seconds that only the dead one knew are gone; those from now on are not.
    sidecar.ask("orders-1-1", &window);
    let done = sidecar.complete("orders-1-1");
    assert_eq!((&done["covered"], sidecar.captures().len()), (&false.into(), 1), "{done}");
    let manifest = json_of(&sidecar.captures()[0], "manifest.json");
    assert!(manifest["window"]["toMs"].as_u64() >= Some(now_ms + 8_000), "{manifest}");
    // One that was whole before anybody heard of it is read back, and stays as it is.
    sidecar.restart();
    sidecar.ask("orders-1-1", &window);
    let again = sidecar.complete("orders-1-1");
    assert_eq!((&again["files"], &again["covered"]), (&done["files"], &done["covered"]));
    assert_eq!(json_of(&sidecar.captures()[0], "manifest.json"), manifest);
}

#[test]
fn a_capture_whose_server_is_killed_holds_what_came_until_then() {
    let sidecar = Sidecar::start(&[]);
    let mut server =
        Server::start(Store::Embedded, &["--profiler-socket", &sidecar.socket()]).expect("a server");
    let now_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    sidecar.ask("orders-1-1", &json!({"fromMs": now_ms, "toMs": now_ms + 60_000}));
    sleep(Duration::from_secs(3));
    server.program.process().kill9();
    let done = sidecar.complete("orders-1-1");
    assert_eq!(done["covered"], false, "{done}");
    let window = json_of(&sidecar.captures()[0], "manifest.json")["window"].clone();
    let seconds =
        window["toMs"].as_u64().zip(window["fromMs"].as_u64()).map(|(to, from)| (to - from) / 1_000);
    assert!(seconds.is_some_and(|seconds| (1..=10).contains(&seconds)), "{window}");
    server.program.restart().expect("a restart");
    until("the new server is watched", || (sidecar.slo()["pid"] == server.program.pid).then_some(()));
    assert_eq!(sidecar.captures().len(), 1, "its black box is in that capture");
}

/// What is found when `disturb` is done to Redis, again and again, after a calm time; and the capture's folder.
fn found_with(disturb: impl Fn(&mut Redis)) -> (Sidecar, PathBuf, Value) {
    let objective =
        ["--name", "orders", "--threshold-ms", "50", "--min-samples", "100", "--post-seconds", "3"];
    let sidecar = Sidecar::start(&objective);
    let socket = sidecar.socket();
    let args = ["--profiler-socket", &socket, "--claim-threshold-ms", "50"];
    let mut server = Server::start(Store::Redis, &args).expect("a server");
    // The connections of one queue go in step with Redis' answers; those of several do not, so that some always claim.
    let _loads = ["a", "b", "c"]
        .map(|queue| load(&server.program, &["--queue", queue, "--concurrency", "4"]).expect("a load"));
    sidecar.slo();
    sleep(Duration::from_secs(12));
    assert_eq!(sidecar.captures().len(), 0, "captured while calm");
    let redis = server.redis.as_mut().expect("a Redis");
    let capture = until("a capture", || {
        disturb(redis);
        sidecar.captures().pop()
    });
    assert_eq!(json_of(&capture, "manifest.json")["onsetInside"], true);
    let diagnosis = json_of(&capture, "diagnosis.json");
    (sidecar, capture, diagnosis)
}

#[test]
fn a_redis_that_is_stopped_again_and_again_is_named() {
    let (_sidecar, _, diagnosis) = found_with(|redis| {
        // Claims in flight when it stops wait with it; those parked on an empty queue would not be late.
        redis.process().signal("STOP").expect("a signal");
        sleep(Duration::from_millis(4_500));
        redis.process().signal("CONT").expect("a signal");
        sleep(Duration::from_millis(500));
    });
    assert_eq!(diagnosis["cause"], "RedisUnresponsive", "{diagnosis}");
}

#[test]
fn a_slow_command_of_somebody_else_is_named_without_its_arguments() {
    let (_sidecar, capture, diagnosis) = found_with(|redis| {
        let slow = "EVAL \"for i = 1, 1e8 do end\" 1 secret-key secret-payload";
        redis.command(slow).expect("it is only slow");
        sleep(Duration::from_millis(20));
    });
    assert_eq!(diagnosis["cause"], "RedisSlowCommand", "{diagnosis}");
    let reason = diagnosis["reason"].as_str().expect("a reason");
    assert!(reason.contains("EVAL (4 arguments) from 127.0.0.1:"), "{reason}");
    let longest = &json_of(&capture, "redis.json")["slowCommands"][0];
    assert!(longest["durationUs"].as_u64() > Some(50_000), "{longest}");
    for entry in std::fs::read_dir(&capture).expect("the capture") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        assert!(!bytes.windows(6).any(|six| six == b"secret"), "an argument is in the bundle");
    }
}
