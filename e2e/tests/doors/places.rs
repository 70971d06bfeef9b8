//! How many connections may come, and who is answered when they are all taken.

use super::*;

/// A server whose limit of open files is `limit` (as `ulimit` takes it).
fn start_with_descriptors(limit: &str, args: &[&str]) -> Server {
    let shell = format!("ulimit {limit} && exec \"$0\" \"$@\"");
    Server::start_under(&["bash", "-c", &shell], Store::Embedded, args).expect("a server")
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
