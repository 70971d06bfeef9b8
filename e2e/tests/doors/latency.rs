//! What a client does slowly is no latency of a claim.

use super::*;

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
