//! A Redis that loses all it had between two calls.

use super::*;

/// Between two calls and without a broken connection all is gone. The first call of each kind on each server is carried out
/// or says that there is no such task, at once: the server asks for the queue's new number itself.
#[test]
fn what_was_flushed_refuses_no_call() {
    let redis = redis(&[]);
    let servers = [server(redis.url()), server(redis.url())];
    let mut https = servers.each_ref().map(|server| server.http().expect("a connection"));
    let queues: Vec<String> = (0..20).map(|n| format!("q{n}")).collect();
    for round in 0..3 {
        let mut lost = Vec::new();
        for (n, queue) in queues.iter().enumerate() {
            enqueue(&mut https[n % 2], queue, &json!({"payload": "before"}));
            lost.push(claim(&mut https[(n + 1) % 2], queue, &json!({})).remove(0));
        }
        assert_eq!(redis.command("FLUSHALL").expect("an answer"), "+OK");
        for (n, task) in lost.iter().enumerate().step_by(2) {
            assert_eq!(act(&mut https[n / 2 % 2], task, "complete").status, 404, "round {round}");
        }
        // In another order, so that numbers mean other queues than before.
        for (n, queue) in queues.iter().enumerate().rev() {
            enqueue(&mut https[(n + round) % 2], queue, &json!({ "payload": n }));
            enqueue(&mut https[(n + round + 1) % 2], queue, &json!({ "payload": n }));
        }
        for (n, queue) in queues.iter().enumerate() {
            let tasks = claim(&mut https[(n + round) % 2], queue, &json!({"max": 10}));
            let payloads: Vec<_> = tasks.iter().filter_map(|task| task["payload"].as_u64()).collect();
            assert_eq!(payloads, [n as u64, n as u64], "round {round}: {queue}");
            for task in &tasks {
                ok(act(&mut https[n % 2], task, "complete"));
            }
        }
    }
}
