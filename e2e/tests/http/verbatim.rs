//! JSON that a reader which understands it would change.

use super::*;

fn values() -> Vec<String> {
    let texts = [
        r"[899999999999999990,3889108265204450030,123456789012345678901234567890]",
        r"[1e400,-0,-0.0,1.0,1E5,1e-400]",
        r#""a\u0000b""#,
        r#""a\/b \ud83d\ude00 \u00E4ä""#,
        r#"{"a":1,"a":2}"#,
        r#"{ "z" : [ 1 ,2 ],  "a":{} }"#,
        "\"\u{2028}\u{7f}\"",
        "null",
        "\"\"",
    ];
    let deep = ["[".repeat(300) + &"]".repeat(300), "{\"a\":".repeat(300) + "1" + &"}".repeat(300)];
    texts.map(str::to_owned).into_iter().chain(deep).collect()
}

/// The text between `before` and the next quote.
fn after<'a>(text: &'a str, before: &str) -> &'a str {
    let (_, rest) = text.split_once(before).expect("it is there");
    rest.split('"').next().expect("a text")
}

#[test]
fn whatever_is_json_comes_back_as_it_came() {
    on_each_store(|http, _| {
        let mut call = |method: &str, path: &str, body: &str, status: u16| {
            let answer = http.call(method, path, body).expect("an answer");
            assert_eq!(answer.status, status, "{body}: {}", answer.text());
            answer.text().to_owned()
        };
        for value in values() {
            for batch in [false, true] {
                let task = format!("{{\"payload\":{value}}}");
                let body = if batch { format!("{{\"tasks\":[{task}]}}") } else { task };
                call("POST", "/v1/queues/q/tasks", &body, if batch { 200 } else { 201 });
                let claimed = call("POST", "/v1/queues/q/claims", "{}", 200);
                assert!(claimed.contains(&format!("\"payload\":{value},\"lease\"")), "{value}: {claimed}");
                // Not every client can read what lies between.
                let id = after(&claimed, "\"id\":\"").to_owned();
                let token = after(&claimed, "\"token\":\"").to_owned();
                let (heartbeat, complete) = (
                    format!("\"token\":\"{token}\",\"progress\":{value}"),
                    format!("\"token\":\"{token}\",\"result\":{value}"),
                );
                for (act, body) in [("heartbeat", heartbeat), ("complete", complete)] {
                    if batch {
                        let body = format!("{{\"items\":[{{\"id\":\"{id}\",{body}}}]}}");
                        let answer = call("POST", &format!("/v1/leases/{act}"), &body, 200);
                        assert!(!answer.contains("error"), "{value}: {answer}");
                    } else {
                        call("POST", &format!("/v1/tasks/{id}/{act}"), &format!("{{{body}}}"), 200);
                    }
                    let task = call("GET", &format!("/v1/tasks/{id}"), "", 200);
                    assert!(task.contains(&format!("\"payload\":{value}")), "{value}: {task}");
                    assert!(
                        act == "complete" || task.contains(&format!("\"progress\":{value}")),
                        "{value}: {task}"
                    );
                }
                let result = call("GET", &format!("/v1/tasks/{id}/result"), "", 200);
                assert!(result.ends_with(&format!("\"result\":{value}}}")), "{value}: {result}");
            }
        }
    });
}
