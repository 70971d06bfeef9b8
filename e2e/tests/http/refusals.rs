//! What a caller may not do, and mistakes.

use super::*;

#[test]
fn mistakes_get_a_code_and_name_the_field() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut http = server.program.http().expect("a connection");
    for (path, body, status, code) in [
        ("/v1/queues/q/tasks", r#"{"payload":1"#, 400, "invalid_json"),
        ("/v1/queues/q/tasks", r#"{"payload":1,"prio":3}"#, 400, "unknown_field"),
        ("/v1/queues/q/tasks", r#"{"priority":3}"#, 400, "invalid_field"),
        (
            "/v1/queues/q/tasks",
            r#"{"payload":1,"delayMs":1,"runAt":"2026-11-23T13:05:09.042Z"}"#,
            400,
            "invalid_field",
        ),
        ("/v1/queues/q/tasks", r#"{"payload":1,"callbackUrl":"http://a"}"#, 400, "not_supported"),
        ("/v1/queues/Q!/tasks", r#"{"payload":1}"#, 400, "invalid_name"),
        ("/v1/queues/q/claims", r#"{"max":257}"#, 400, "invalid_field"),
        ("/v1/queues/q/claims", r#"{"leaseMs":10}"#, 400, "invalid_field"),
        ("/v1/queues/q/claims", "[]", 400, "invalid_json"),
        ("/v1/tasks/nonsense/complete", r#"{"token":"x"}"#, 404, "task_not_found"),
        ("/v1/leases/fail", r#"{"items":[],"claim":{}}"#, 400, "unknown_field"),
        ("/v1/nowhere", "{}", 404, "not_found"),
    ] {
        refused(&http.call("POST", path, body).expect("an answer"), status, code);
    }
    refused(&http.call("PUT", "/v1/queues/q/tasks", "{}").expect("an answer"), 405, "method_not_allowed");
    let batch = json!({"tasks": vec![json!({"payload": 1}); 1001]});
    refused(&post(&mut http, "/v1/queues/q/tasks", &batch), 400, "batch_too_large");
    let large = json!({"payload": "x".repeat(1024 * 1024)});
    refused(&post(&mut http, "/v1/queues/q/tasks", &large), 413, "payload_too_large");
}

#[test]
fn a_giant_body_is_refused_before_it_is_read() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut stream = TcpStream::connect(&server.program.listen).expect("a connection");
    let head =
        format!("POST /v1/queues/q/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", 9 << 20);
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = [0; 512];
    let read = stream.read(&mut answer).expect("an answer");
    let text = String::from_utf8_lossy(&answer[..read]);
    assert!(text.starts_with("HTTP/1.1 413") && text.contains("body_too_large"), "{text}");
}

#[test]
fn a_slow_head_is_cut_and_an_idle_connection_is_not() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut idle = server.program.http().expect("a connection");
    ok(get(&mut idle, "/healthz"), 200);
    let mut slow = TcpStream::connect(&server.program.listen).expect("a connection");
    let began = Instant::now();
    let cut = loop {
        if slow.write_all(b"G").is_err() || began.elapsed() > Duration::from_secs(30) {
            break began.elapsed();
        }
        slow.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
        if matches!(slow.read(&mut [0]), Ok(0)) {
            break began.elapsed();
        }
    };
    assert!(cut > Duration::from_secs(9) && cut < Duration::from_secs(20), "{cut:?}");
    ok(get(&mut idle, "/healthz"), 200);
}

#[test]
fn tokens_bound_what_a_caller_may_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.yaml");
    // SHA-256 of "worker", "other", "reader" and "boss".
    let yaml = "tokens:\n\
        - {name: w, sha256: 87eba76e7f3164534045ba922e7770fb58bbd14ad732bbf5ba6f11cc56989e6e, tenant: acme, scopes: [work, \"tasks:write\", \"tasks:read\"], queues: [\"orders.*\"]}\n\
        - {name: o, sha256: d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, tenant: other, scopes: [work, \"tasks:write\", \"tasks:read\"]}\n\
        - {name: r, sha256: 3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30, tenant: acme, scopes: [\"tasks:read\"]}\n\
        - {name: night shift, sha256: a5e7c002443743c5836758c7d1cd8ddefd9fcf2061daa0efaac683fb99966057, tenant: acme, scopes: [admin, \"tasks:read\"], queues: [\"orders.*\"]}\n";
    std::fs::write(&file, yaml).expect("written");
    let server =
        Server::start(Store::Embedded, &["--tokens", &file.display().to_string()]).expect("a server");
    let connect = |token: &str| server.program.http().expect("a connection").with_token(token);
    let (mut worker, mut other, mut reader) = (connect("worker"), connect("other"), connect("reader"));
    let mut nobody = server.program.http().expect("a connection");
    refused(&get(&mut nobody, "/v1/queues"), 401, "unauthorized");
    refused(&get(&mut connect("wrong"), "/v1/queues"), 401, "unauthorized");
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(get(&mut nobody, path).status, 200, "{path} is open");
    }
    refused(&get(&mut nobody, "/"), 401, "unauthorized");
    let id = enqueue(&mut worker, "orders.eu", &json!({"payload": 1}));
    refused(&post(&mut worker, "/v1/queues/emails/tasks", &json!({"payload": 1})), 403, "forbidden");
    refused(&post(&mut reader, "/v1/queues/orders.eu/tasks", &json!({"payload": 1})), 403, "forbidden");
    assert_eq!(ok(get(&mut reader, &format!("/v1/tasks/{id}")), 200)["state"], "ready");
    refused(&get(&mut other, &format!("/v1/tasks/{id}")), 404, "task_not_found");
    assert!(claim(&mut other, "orders.eu", &json!({})).is_empty(), "tenants have queues of their own");
    assert_eq!(claim(&mut worker, "orders.eu", &json!({})).len(), 1);
    for queues in [["orders.eu", "emails"], ["emails", "orders.eu"]] {
        let answer =
            refused(&post(&mut worker, "/v1/claims", &json!({ "queues": queues })), 403, "forbidden");
        assert_eq!(answer["error"]["detail"]["queue"], "emails", "{answer}");
    }
    refused(&post(&mut reader, "/v1/claims", &json!({"queues": ["orders.eu"]})), 403, "forbidden");
    let mut boss = connect("boss");
    for what in ["pause", "resume"] {
        let path = format!("/v1/queues/orders.eu/{what}");
        refused(&post(&mut worker, &path, &json!({})), 403, "forbidden");
        refused(&post(&mut boss, &format!("/v1/queues/emails/{what}"), &json!({})), 403, "forbidden");
        let view = ok(post(&mut boss, &path, &json!({})), 200);
        assert_eq!(view["paused"].get("by"), (what == "pause").then_some(&json!("night shift")), "{view}");
    }
    let mut admin = Http::connect(&server.program.admin).expect("a connection");
    refused(&get(&mut admin, "/debug/slo"), 401, "unauthorized");
    assert_eq!(get(&mut admin, "/metrics").status, 200);
}

#[test]
fn all_configuration_mistakes_end_with_exit_2() {
    let binary = brisq_testkit::binary("brisq-server").expect("built");
    let run = |args: &[&str]| {
        let output = std::process::Command::new(&binary).args(args).output().expect("run");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = run(&["--listen", "0.0.0.0:0", "--durability", "maybe"]);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("--tokens") && text.contains("--durability maybe") && text.contains("no store"),
        "{text}"
    );
    assert_eq!(run(&["--nonsense"]).0, Some(2));
}

#[test]
fn a_taken_port_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let output = std::process::Command::new(brisq_testkit::binary("brisq-server").expect("built"))
        .args(["--data", &folder.path().display().to_string(), "--listen", &address])
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&address) && text.contains("another program listens there"), "{text}");
}
