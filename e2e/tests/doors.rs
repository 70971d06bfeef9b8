//! What stands between the network and the routes: how connections begin, wait, overflow and end, whoever opens them.
#![expect(clippy::indexing_slicing, reason = "what a test cannot read fails it, helpers included")]

#[path = "doors/latency.rs"]
mod latency;
#[path = "doors/memory.rs"]
mod memory;
#[path = "doors/places.rs"]
mod places;
#[path = "doors/probes.rs"]
mod probes;
#[path = "doors/refusals.rs"]
mod refusals;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use brisq_e2e::{Server, Store, Up, is_night};
use brisq_testkit::{Answer, Http};
use serde_json::{Value, json};

/// Nothing here takes longer that does not say so.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(args: &[&str]) -> Server {
    Server::start(Store::Embedded, args).expect("a server")
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

/// How long a connection idles, and for how long a page is watched, s: by day and by night. The limits themselves are tried, made
/// short, by the tests of `brisq-listen`.
const IDLE_AND_WATCHED: [(u64, u64); 2] = [(12, 15), (77, 100)];

#[test]
fn a_page_is_watched_and_a_connection_idles_for_long() {
    let (idles, watched) = IDLE_AND_WATCHED[usize::from(is_night())];
    let server = start(&[]);
    let mut idle = server.program.http().expect("a connection");
    assert_eq!(idle.call("GET", "/healthz", "").expect("an answer").status, 200);
    let mut ahead = server.program.http().expect("a connection");
    let mut page = connect(&server.program.listen);
    page.write_all(b"GET /console/events HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    let began = Instant::now();
    let mut last = Instant::now();
    let mut asked = false;
    while began.elapsed() < Duration::from_secs(watched) {
        assert!(read_until(&mut page, "data:").contains("data:"), "cut after {:?}", began.elapsed());
        last = Instant::now();
        if !asked && began.elapsed() > Duration::from_secs(idles) {
            asked = true;
            for http in [&mut idle, &mut ahead] {
                assert_eq!(http.call("GET", "/healthz", "").expect("an answer after it idled").status, 200);
            }
        }
    }
    assert!(asked && last.elapsed() < Duration::from_secs(5));
}
