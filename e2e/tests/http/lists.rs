//! Lists come in pages.

use super::*;

fn page(http: &mut Http, query: &str) -> (Vec<String>, Option<String>) {
    let body = ok(get(http, &format!("/v1/queues{query}")), 200);
    let name = |queue: &Value| queue["name"].as_str().expect("a name").to_owned();
    let names = body["queues"].as_array().expect("queues").iter().map(name).collect();
    (names, body.get("nextCursor").map(|cursor| cursor.as_str().expect("text").to_owned()))
}

#[test]
fn queues_come_in_pages() {
    on_each_store(|http, _| {
        for n in 0..7 {
            enqueue(http, &format!("q{n}"), &json!({"payload": 1}));
        }
        let (names, cursor) = page(http, "?limit=3");
        assert_eq!(names, ["q0", "q1", "q2"]);
        let cursor = cursor.expect("there are more");
        // A queue that comes before the cursor moves nothing behind it.
        enqueue(http, "a", &json!({"payload": 1}));
        let (names, cursor) = page(http, &format!("?limit=3&cursor={cursor}"));
        assert_eq!(names, ["q3", "q4", "q5"]);
        let (names, cursor) = page(http, &format!("?limit=3&cursor={}", cursor.expect("there is one more")));
        assert_eq!((names, cursor), (vec!["q6".to_owned()], None));
        let (names, cursor) = page(http, "");
        assert_eq!((names.len(), cursor), (8, None));
        for wrong in ["?limit=0", "?limit=1001", "?limit=x", "?cursor=!", "?nonsense=1"] {
            refused(&get(http, &format!("/v1/queues{wrong}")), 400, "invalid_field");
        }
    });
}
