//! What people type and read: settings, messages, and a log that nobody reads.

#[path = "words/programs.rs"]
mod programs;
#[path = "words/queues.rs"]
mod queues;
#[path = "words/schedules.rs"]
mod schedules;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use brisq_e2e::{Server, Store};
use brisq_testkit::{Answer, Http, Process, binary, peak_bytes};
use serde_json::{Value, json};

/// SHA-256 of "secret".
const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

fn post(http: &mut Http, path: &str, body: &Value) -> Answer {
    http.call("POST", path, &body.to_string()).expect("an answer")
}

fn within(limit: Duration, what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < limit, "{what} was not seen in {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn run(name: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary(name).expect("built"));
    command.args(args).envs(env.iter().copied()).stdin(Stdio::null()).output().expect("runs")
}

/// A server whose standard output and error go to `to`; its address.
fn logging_to(to: Stdio, errors: Stdio, folder: &Path) -> (Process, String) {
    let ready = folder.join("ready.json");
    let mut command = Command::new(binary("brisq-server").expect("built"));
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.arg("--data").arg(folder.join("data")).arg("--ready-file").arg(&ready);
    command.env("BRISQ_LOG", "trace").stdin(Stdio::null()).stdout(to).stderr(errors);
    let process = Process::spawn(&mut command).expect("starts");
    within(Duration::from_secs(30), "readiness", || ready.exists());
    let ready: Value = serde_json::from_slice(&std::fs::read(&ready).expect("read")).expect("JSON");
    (process, ready.get("listen").and_then(Value::as_str).expect("an address").to_owned())
}

/// Closed, full and never read: what is logged is lost, and nothing else.
#[test]
fn a_log_that_nobody_reads_holds_no_claim_up_and_ends_no_server() {
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
    for kind in ["closed", "full", "never read"] {
        let folder = tempfile::tempdir().expect("a folder");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let (to, errors): (Stdio, Stdio) = match kind {
            "full" => (full().into(), full().into()),
            _ => (writer.try_clone().expect("a pipe").into(), writer.into()),
        };
        let unread = (kind == "never read").then_some(reader);
        let (mut process, listen) = logging_to(to, errors, folder.path());
        let mut http = Http::connect(&listen).expect("a connection");
        // At this level far more than a pipe holds.
        for n in 0..2_000 {
            assert_eq!(post(&mut http, "/v1/queues/q/tasks", &json!({"payload": n})).status, 201, "{kind}");
        }
        let mut parked = Http::connect(&listen).expect("a connection");
        parked.send("POST", "/v1/queues/empty/claims", r#"{"waitMs":60000}"#).expect("sent");
        std::thread::sleep(Duration::from_millis(500));
        process.signal("TERM").expect("sent");
        assert_eq!(parked.receive().expect("an answer").status, 200, "{kind}");
        let status = process.wait(Duration::from_secs(20)).expect("ends");
        assert_eq!(status.code(), Some(0), "{kind}");
        drop(unread);
    }
}

/// A panic would end with 101.
#[test]
fn a_program_that_nobody_listens_to_ends_with_its_own_code() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let floor = ["floor", "--listen", &address, "--admin-listen", &address, "--ready-file", &data];
    let server = ["--listen", &address, "--data", &data];
    let up = ["up", "--listen", &address, "--data", &data];
    for (name, args) in [("brisq-bench", &floor[..]), ("brisq-server", &server), ("brisq", &up)] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(binary(name).expect("built"));
        command.args(args).stdin(Stdio::null());
        command.stdout(writer.try_clone().expect("a pipe")).stderr(writer);
        let mut process = Process::spawn(&mut command).expect("starts");
        let status = process.wait(Duration::from_secs(20)).expect("ends");
        assert_eq!(status.code(), Some(1), "{name}");
    }
}

#[test]
fn the_first_line_of_a_start_is_ours() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    within(Duration::from_secs(5), "a line", || server.program.log().contains('\n'));
    let log = server.program.log();
    let first: Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["message"], "brisq-server starts", "{log}");
}

/// Named by a flag or in the file of settings: a token that is taken out of its file is refused within seconds.
#[test]
fn tokens_are_followed_wherever_their_file_was_named() {
    for named_in_a_file in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let (tokens, config) = (folder.path().join("tokens.yaml"), folder.path().join("config.yaml"));
        let with = format!("tokens:\n- {{name: a, sha256: {HASH}, tenant: t, scopes: [\"tasks:read\"]}}\n");
        std::fs::write(&tokens, &with).expect("written");
        std::fs::write(&config, format!("tokens: {}\n", tokens.display())).expect("written");
        let (tokens_flag, config_flag) = (tokens.display().to_string(), config.display().to_string());
        let args = if named_in_a_file { ["--config", &config_flag] } else { ["--tokens", &tokens_flag] };
        let mut server = Server::start(Store::Embedded, &args).expect("a server");
        let mut http = server.program.http().expect("a connection").with_token("secret");
        let mut status = || http.call("GET", "/v1/queues", "").expect("an answer").status;
        assert_eq!(status(), 200);
        std::fs::write(&tokens, "tokens: []\n").expect("written");
        within(Duration::from_secs(8), "the revocation", || status() == 401);
        // A hang-up reads the files again, and ends nothing.
        std::fs::write(&tokens, &with).expect("written");
        server.program.process().signal("HUP").expect("sent");
        within(Duration::from_secs(8), "the new file", || status() == 200);
        std::fs::write(&tokens, "tokens: {").expect("written");
        server.program.process().signal("HUP").expect("sent");
        within(Duration::from_secs(8), "the refusal", || server.program.log().contains("are not in use"));
        assert_eq!(status(), 200, "a file with a mistake changes nothing");
    }
}

/// However a failure is worded, it counts, and one that is not to be tried again is not.
#[test]
fn the_last_word_of_a_worker_is_never_refused() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut http = server.program.http().expect("a connection");
    let long = "Traceback (most recent call last):\n".repeat(1_000);
    let detail = vec!["frame"; 10_000];
    for (what, error) in [
        ("long", json!({"message": long, "kind": long, "detail": detail}).to_string()),
        ("half a surrogate pair", r#"{"message":"a\ud800b","kind":"\udfff"}"#.to_owned()),
        ("control characters", r#"{"message":"\u0000\u001b[31m"}"#.to_owned()),
    ] {
        for batch in [false, true] {
            post(&mut http, "/v1/queues/q/tasks", &json!({"payload": 1, "maxAttempts": 3}));
            let claimed = post(&mut http, "/v1/queues/q/claims", &json!({})).json();
            let task = &claimed["tasks"][0];
            let (id, token) = (task["id"].as_str().expect("an id"), &task["lease"]["token"]);
            let rest = format!(r#""token":{token},"retryable":false,"error":{error}}}"#);
            let answer = if batch {
                let body = format!(r#"{{"items":[{{"id":"{id}",{rest}]}}"#);
                http.call("POST", "/v1/leases/fail", &body).expect("an answer").json()["results"][0].clone()
            } else {
                http.call("POST", &format!("/v1/tasks/{id}/fail"), &format!("{{{rest}"))
                    .expect("an answer")
                    .json()
            };
            assert_eq!(answer["state"], "dead", "{what}: {answer}");
            let kept = http.call("GET", &format!("/v1/tasks/{id}"), "").expect("an answer").json();
            let error = &kept["attempts"][0]["error"];
            assert!(
                error["message"].as_str().is_some_and(|m| (1..=4_096).contains(&m.len())),
                "{what}: {error}"
            );
            if what == "long" {
                assert!(
                    error["message"].as_str().unwrap_or_default().contains("[cut, was 35000 bytes]"),
                    "{error}"
                );
                assert!(error["detail"]["cut"]["bytes"].is_u64(), "{error}");
            }
        }
    }
}

/// A list of eight million characters that is refused for its length costs no memory beyond the body.
#[test]
fn a_list_that_is_too_long_is_read_no_further() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut http = server.program.http().expect("a connection");
    let peak_kib = || peak_bytes(server.program.pid) / 1_024;
    let ones = "1,".repeat(4_000_000);
    let list = format!("[{}1]", &ones[..ones.len() - 20]);
    let before = peak_kib();
    for (path, body) in [
        ("/v1/queues/q/tasks", format!(r#"{{"tasks":{list}}}"#)),
        ("/v1/leases/complete", format!(r#"{{"items":{list}}}"#)),
        ("/v1/queues/q/tasks", format!(r#"{{"payload":1,"retry":{{"policy":"list","delaysMs":{list}}}}}"#)),
    ] {
        let answer = http.call("POST", path, &body).expect("an answer");
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    let grown = peak_kib().saturating_sub(before);
    assert!(grown < 48 * 1024, "three refused lists took {grown} KiB");
}

#[test]
fn no_password_is_printed() {
    let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("c.yaml");
    let mut file = File::create(&config).expect("made");
    writeln!(file, "redis: ftp://:hunter2@h").expect("written");
    let config = config.display().to_string();
    for (args, env) in [
        (vec!["--redis", " redis://:hunter2@h"], vec![]),
        (vec!["redis://u:hunter2@h"], vec![]),
        (vec![], vec![("BRISQ_REDIS", "http://:hunter2@h")]),
        (vec!["--config", config.as_str()], vec![]),
        (vec!["--help"], vec![("BRISQ_REDIS", "redis://:hunter2@h"), ("BRISQ_TOKENS", "hunter2")]),
    ] {
        let output = run("brisq-server", &[&args[..], &listen[..]].concat(), &env);
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(!text.is_empty() && !text.contains("hunter2"), "{args:?} {env:?}: {text}");
        let code = if args == ["--help"] { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{args:?} {env:?}: {text}");
    }
}

#[test]
fn an_empty_value_is_refused_and_localhost_is_an_address() {
    for (program, args) in [
        ("brisq-server", &["--data", ""][..]),
        ("brisq-server", &["--data", "d", "--tokens", ""][..]),
        ("brisq", &["up", "--data", ""][..]),
        ("brisq", &["up", "--listen", "example.org:1"][..]),
    ] {
        let output = run(program, args, &[]);
        assert_eq!(output.status.code(), Some(2), "{program} {args:?}: {output:?}");
    }
    let server = Server::start(Store::Embedded, &["--metrics-listen", "localhost:0"]).expect("a server");
    assert_eq!(
        server.program.http().expect("a connection").call("GET", "/readyz", "").expect("an answer").status,
        200
    );
}

#[test]
fn the_entry_of_a_new_token_works_as_it_is_in_an_empty_file() {
    let output =
        run("brisq", &["token", "new", "--name", "a", "--tenant", "t", "--scope", "tasks:read"], &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let token = text.lines().next().expect("a token");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.yaml");
    std::fs::write(&file, &text[text.find("tokens:").expect("an entry")..]).expect("written");
    let server =
        Server::start(Store::Embedded, &["--tokens", &file.display().to_string()]).expect("a server");
    let mut http = server.program.http().expect("a connection").with_token(token);
    assert_eq!(http.call("GET", "/v1/queues", "").expect("an answer").status, 200);
}
