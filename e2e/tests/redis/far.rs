//! A Redis that is far away: what can be asked together is.

use brisq_testkit::Forwarder;

use super::*;

/// What a call to Redis takes, there and back.
const FAR: Duration = Duration::from_millis(100);
/// A batch takes so many of them: its look-ups, its calls, and what the machine adds. One after the other it would be a
/// hundred and more.
const CALLS_MAX: u32 = 40;

/// An id that no store gave: the 24 bits behind the variant are the queue's number.
fn made_up(number: u32) -> String {
    let bits = (u128::from(number) << 38) | (0b10 << 62) | (7 << 76) | (0x0198_f000_0000_u128 << 80);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[test]
fn a_batch_over_many_queues_asks_a_far_redis_for_all_of_them_together() {
    let redis = redis(&[]);
    let door = Forwarder::to(redis.port()).expect("a door");
    let server = server(format!("redis://127.0.0.1:{}", door.port()));
    let mut http = server.http().expect("a connection");
    let held = held(&mut http, 200);
    let made_up: Vec<Value> =
        (0..1_000).map(|n| json!({"id": made_up(5_000 + n), "token": held[0]["token"]})).collect();
    door.delay(FAR / 2);
    let mut timed = |what: &str, items: &[Value]| {
        let began = Instant::now();
        let answer = ok(post(&mut http, "/v1/leases/heartbeat", &json!({ "items": items })));
        let took = began.elapsed();
        println!("{} {what}: {took:?}", items.len());
        assert!(took < CALLS_MAX * FAR, "{} {what} took {took:?}", items.len());
        answer["results"].as_array().expect("results").clone()
    };
    let one = timed("queue", &held[..1]);
    assert!(one[0].get("expiresAt").is_some());
    let all = timed("queues", &held);
    assert!(all.iter().all(|beat| beat.get("expiresAt").is_some()), "{all:?}");
    let none = timed("unknown queues", &made_up);
    assert!(none.iter().all(|beat| beat["error"]["code"] == "task_not_found"), "{none:?}");
}
