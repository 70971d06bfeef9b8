//! What is refused is told why, whoever asks.

use super::*;

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
fn a_released_program_has_no_switch_for_faults() {
    let server = start(&[]);
    let manifest = "apiVersion: brisq.dev/v1alpha1\nkind: TaskQueue\nmetadata: {name: q}\nspec: {}\n";
    let up = Up::start(Vec::new(), false, manifest).expect("brisq up");
    for program in [&server.program, &up.program] {
        let mut admin = Http::connect(&program.admin).expect("the admin port");
        let fault = r#"{"fault":"spin","ms":1,"oneIn":1}"#;
        assert_eq!(admin.call("PUT", "/debug/faults", fault).expect("an answer").status, 404);
    }
}
