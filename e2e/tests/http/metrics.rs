//! What scrapers are told, and in which format.

use super::*;

fn scrape(server: &Server, accept: &str) -> Answer {
    let mut admin = TcpStream::connect(&server.program.admin).expect("a connection");
    let head = format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\n{accept}connection: close\r\n\r\n");
    admin.write_all(head.as_bytes()).expect("sent");
    let mut text = String::new();
    admin.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head: format!("{head}\r\n"), body: body.as_bytes().to_vec() }
}

#[test]
fn metrics_come_in_the_format_that_is_accepted() {
    on_each_store(|http, server| {
        enqueue(http, "m", &json!({"payload": 1}));
        let prometheus = "accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2\r\n";
        for (accept, open) in
            [("", false), ("accept: text/plain\r\n", false), ("accept: */*\r\n", false), (prometheus, true)]
        {
            let answer = scrape(server, accept);
            let media = if open { "application/openmetrics-text" } else { "text/plain" };
            assert!(answer.header("content-type").is_some_and(|is| is.starts_with(media)), "{}", answer.head);
            assert_eq!(answer.text().ends_with("# EOF\n"), open, "{accept}");
            let kind =
                if open { "brisq_tasks_enqueued counter" } else { "brisq_tasks_enqueued_total counter" };
            assert!(answer.text().contains(&format!("# TYPE {kind}\n")), "{}", answer.text());
        }
    });
}

#[test]
fn gauges_say_what_a_queue_holds() {
    on_each_store(|http, server| {
        for task in [json!({"payload": 1}), json!({"payload": 2}), json!({"payload": 3, "delayMs": 60000})] {
            enqueue(http, "g", &task);
        }
        let retention = json!({"deadMs": 60000});
        let dead = enqueue(http, "g", &json!({"payload": 4, "priority": 9, "retention": retention}));
        let (_, token) = lease(&claim(http, "g", &json!({})).remove(0));
        ok(post(http, &format!("/v1/tasks/{dead}/fail"), &json!({"token": token, "retryable": false})), 200);
        claim(http, "g", &json!({}));
        std::thread::sleep(Duration::from_millis(1100));
        let text = scrape(server, "").text().to_owned();
        for gauge in ["ready", "leased", "delayed", "dead"] {
            let line = format!("brisq_tasks_{gauge}{{tenant=\"default\",queue=\"g\"}} 1\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        let age = "brisq_queue_head_age_seconds{tenant=\"default\",queue=\"g\"} ";
        let age = text.lines().find_map(|line| line.strip_prefix(age)).expect("an age");
        assert!(age.parse::<f64>().is_ok_and(|age| (1.0..60.0).contains(&age)), "{age}");
    });
}

#[test]
fn a_backlog_behind_a_restart_has_its_gauges_before_any_call() {
    for store in Store::ALL {
        let mut server = Server::start(store, &[]).expect("a server");
        let mut http = server.program.http().expect("a connection");
        enqueue(&mut http, "backlog", &json!({"payload": 1}));
        server.program.restart().expect("it starts again");
        let text = scrape(&server, "").text().to_owned();
        let line = "brisq_tasks_ready{tenant=\"default\",queue=\"backlog\"} 1\n";
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn metrics_say_how_calls_are_grouped_and_where_claims_spend_time() {
    on_each_store(|http, server| {
        enqueue(http, "m", &json!({"payload": 1}));
        claim(http, "m", &json!({}));
        let mut admin = Http::connect(&server.program.admin).expect("a connection");
        // A claim ends once its answer was handed to the socket: its client may be faster than its record.
        let mut slo = json!(null);
        for _ in 0..100 {
            slo = ok(get(&mut admin, "/debug/slo"), 200);
            if slo["finishedTotal"] == 1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!((&slo["finishedTotal"], &slo["inFlight"]), (&json!(1), &json!(0)));
        let metrics = get(&mut admin, "/metrics");
        for part in [
            "brisq_store_calls_total 2",
            "brisq_store_tasks_per_call_bucket",
            "brisq_claim_latency_seconds_count 1",
            "brisq_claim_stage_seconds_bucket{le=",
            "stage=\"store\"",
            "brisq_tasks_enqueued_total{tenant=\"default\",queue=\"m\"} 1",
        ] {
            assert!(metrics.text().contains(part), "{part}:\n{}", metrics.text());
        }
    });
}
