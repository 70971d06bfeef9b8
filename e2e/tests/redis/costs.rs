//! What lists, pages and claims cost a Redis with many queues.

use std::io::{BufRead, BufReader};

use super::*;

/// Queues of one tenant.
const QUEUES: usize = 200;
/// SHA-256 of "a" and "b".
const TOKENS: &str = "tokens:\n\
    - {name: a, sha256: ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb, tenant: many, scopes: [work, \"tasks:write\", \"tasks:read\"]}\n\
    - {name: b, sha256: 3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d, tenant: one, scopes: [work, \"tasks:write\", \"tasks:read\"]}\n";

/// Pages of the tenant of `token` that are looked at, each with its first event read.
fn pages(server: &Program, token: &str, count: usize) -> Vec<BufReader<TcpStream>> {
    let open = |_| {
        let mut stream = TcpStream::connect(&server.listen).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("set");
        let head = "GET /console/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer";
        stream.write_all(format!("{head} {token}\r\n\r\n").as_bytes()).expect("sent");
        let mut page = BufReader::new(stream);
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(page.read_line(&mut line).expect("an event") > 0, "the page ended");
        }
        page
    };
    (0..count).map(open).collect()
}

/// A tenant's list and page cost one question, and one for each queue that they show: whatever others have, and however many
/// look. While nobody looks nothing is asked.
#[test]
fn lists_and_pages_cost_nothing_for_what_they_do_not_show() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.yaml");
    std::fs::write(&file, TOKENS).expect("written");
    let redis = redis(&[]);
    let args = vec!["--redis".into(), redis.url(), "--tokens".into(), file.display().to_string()];
    let options = ProgramOptions { args, ..ProgramOptions::default() };
    let server = Program::start(&binary("brisq-server").expect("built"), options).expect("a server");
    let [mut many, mut one] = ["a", "b"].map(|token| server.http().expect("a connection").with_token(token));
    for n in 0..QUEUES {
        enqueue(&mut many, &format!("q{n:03}"), &json!({"payload": 1}));
    }
    enqueue(&mut one, "only", &json!({"payload": 1}));
    let seconds = 4;
    let at_rest = calls_in(&redis, seconds);
    assert!(at_rest <= 5 * seconds, "{at_rest} calls in {seconds} s at rest with {QUEUES} queues");

    let cost = |http: &mut Http, path: &str| {
        let before = calls(&redis);
        for _ in 0..10 {
            ok(get(http, path));
        }
        calls(&redis) - before
    };
    let lists = cost(&mut one, "/v1/queues");
    assert!(lists <= 10 * 2 + 5, "ten lists of one queue beside {QUEUES} of another tenant: {lists} calls");
    let short = cost(&mut many, "/v1/queues?limit=5");
    assert!(short <= 10 * 6 + 5, "ten lists of five queues of {QUEUES}: {short} calls");
    let ready = cost(&mut many, "/readyz");
    assert!(ready <= 8, "{ready} calls for ten looks at readiness");

    let of_one = pages(&server, "b", 20);
    let looked = calls_in(&redis, seconds);
    println!("{seconds} s: at rest {at_rest}, 20 pages of one queue {looked} calls");
    assert!(looked <= at_rest + 2 * (seconds + 1) + 5, "{looked} calls for 20 pages of one queue");
    drop(of_one);
    let of_many = pages(&server, "a", 20);
    let looked = calls_in(&redis, seconds);
    println!("{seconds} s: 20 pages of {QUEUES} queues {looked} calls");
    let a_look = QUEUES as u64 + 1;
    assert!(looked <= at_rest + a_look * (seconds + 1) + 5, "{looked} calls for 20 pages of {QUEUES} queues");
    drop(of_many);
    until("nobody looks any more", || calls_in(&redis, 1) <= 10);
}
