//! Every acknowledgement of the embedded store waited for the disk: counted under `strace`, because kill -9 leaves the
//! page cache alone and so cannot show it.

use brisq_e2e::{Server, Store};
use brisq_testkit::Http;

const CYCLES: usize = 50;

fn syncs(trace: &std::path::Path) -> usize {
    let text = std::fs::read_to_string(trace).expect("strace wrote its file");
    let ended = |line: &&str| line.contains("sync") && line.trim_end().ends_with("= 0");
    text.lines().filter(ended).count()
}

fn call(http: &mut Http, path: &str, body: &str) -> serde_json::Value {
    let answer = http.call("POST", path, body).expect("an answer");
    assert!(answer.status < 300, "{}", answer.text());
    answer.json()
}

/// Calls are made one after the other, so no two can share a sync: each must have one of its own before its answer.
#[test]
fn each_lone_call_has_a_sync_of_its_own_and_an_empty_claim_has_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace");
    let path = trace.display().to_string();
    let strace =
        ["strace", "-f", "--seccomp-bpf", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-o", &path];
    let server = Server::start_under(&strace, Store::Embedded, &[]).expect("a server under strace");
    let mut http = server.program.http().expect("a connection");
    for cycle in 0..CYCLES {
        let mut expect_sync = |what: &str, path: &str, body: &str| {
            let before = syncs(&trace);
            let answer = call(&mut http, path, body);
            assert!(syncs(&trace) > before, "cycle {cycle}: {what} was answered before a sync ended");
            answer
        };
        let id = expect_sync("enqueue", "/v1/queues/s/tasks", r#"{"payload":1}"#)["id"].clone();
        let task = expect_sync("claim", "/v1/queues/s/claims", "{}")["tasks"][0].clone();
        assert_eq!(task["id"], id);
        let (id, token) = (id.as_str().expect("an id"), task["lease"]["token"].as_str().expect("a token"));
        let token = format!(r#"{{"token":"{token}"}}"#);
        expect_sync("heartbeat", &format!("/v1/tasks/{id}/heartbeat"), &token);
        expect_sync("complete", &format!("/v1/tasks/{id}/complete"), &token);
    }
    let acknowledged = syncs(&trace);
    println!("{} acknowledged calls, {acknowledged} syncs", CYCLES * 4);
    for _ in 0..CYCLES {
        assert_eq!(call(&mut http, "/v1/queues/s/claims", "{}")["tasks"], serde_json::json!([]));
    }
    // The clock is written down once a second, with whatever is written then; claims that find nothing write nothing.
    assert_eq!(syncs(&trace), acknowledged, "empty claims cost no sync");
}
