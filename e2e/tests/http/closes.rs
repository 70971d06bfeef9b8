//! Clients that end their connection with their request, and bytes that lie behind it.

use super::*;

/// All that comes on a connection of its own until its end.
fn talk(address: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream.write_all(bytes.as_bytes()).expect("sent");
    let mut got = Vec::new();
    let ended = stream.read_to_end(&mut got);
    let got = String::from_utf8_lossy(&got).into_owned();
    assert!(ended.is_ok(), "{ended:?} after {got}");
    got
}

/// Old clients, and those written by hand, end a body with a line that its length does not count.
#[test]
fn a_request_that_closes_is_answered_whatever_lies_behind_it() {
    on_each_store(|http, server| {
        let mut sent = 0;
        for behind in ["", "\r", "\n", "\r\n", "\r\n\r\n", "G", "GET /healthz HTTP/1.1\r\n\r\n"] {
            for fields in ["connection: close\r\n", "connection: close\r\nexpect: 100-continue\r\n"] {
                let body = r#"{"payload":1}"#;
                let head = format!("POST /v1/queues/q/tasks HTTP/1.1\r\nhost: localhost\r\n{fields}");
                let length = body.len();
                let got = talk(
                    &server.program.listen,
                    &format!("{head}content-length: {length}\r\n\r\n{body}{behind}"),
                );
                sent += 1;
                assert_eq!(got.matches("HTTP/1.1 201 Created").count(), 1, "{behind:?} {fields:?}: {got}");
                assert!(got.contains("connection: close\r\n"), "{behind:?}: {got}");
                assert!(got.ends_with('}') && !got.contains("\"error\""), "{behind:?}: {got}");
            }
        }
        assert_eq!(ok(get(http, "/v1/queues/q"), 200)["counts"]["ready"], sent, "each once");
    });
}
