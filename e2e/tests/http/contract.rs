//! Answers are what docs/api/openapi.json says: clients are generated from it, and check what they get against it.

use super::*;

/// The committed document. `names_all`: what an object has beyond the names that the document gives it is a fault too.
struct Document {
    document: Value,
    names_all: bool,
}

impl Document {
    fn committed(names_all: bool) -> Self {
        let document = include_str!("../../../docs/api/openapi.json");
        Self { document: serde_json::from_str(document).expect("JSON"), names_all }
    }

    /// What is wrong with an answer to `method` on the path `template`.
    fn faults_of(&self, method: &str, template: &str, answer: &Answer) -> Vec<String> {
        let responses = &self.document["paths"][template][method.to_lowercase()]["responses"];
        let exact = answer.status.to_string();
        let response = responses.get(&exact).or_else(|| responses.get(format!("{}XX", &exact[..1])));
        match response {
            Some(response) => {
                let schema = &response["content"]["application/json"]["schema"];
                self.faults(schema, &answer.json(), "the answer")
            }
            None => vec![format!("there is no answer {exact}")],
        }
    }

    fn faults(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let keywords = schema.as_object().expect("a schema");
        keywords.iter().flat_map(|(keyword, is)| self.faults_by(keyword, is, schema, value, at)).collect()
    }

    fn faults_by(&self, keyword: &str, is: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let fault = |holds: bool, what: String| if holds { Vec::new() } else { vec![what] };
        let members = || value.as_object().into_iter().flatten();
        let elements = || value.as_array().into_iter().flatten();
        match keyword {
            "description" | "format" => Vec::new(),
            "$ref" => {
                let name = is.as_str().and_then(|path| path.rsplit('/').next()).expect("a name");
                self.faults(&self.document["components"]["schemas"][name], value, at)
            }
            "type" => {
                let types = is.as_array().cloned().unwrap_or_else(|| vec![is.clone()]);
                fault(types.iter().any(|name| is_of_type(name, value)), format!("{at}: {value} is no {is}"))
            }
            "required" => {
                let absent = |name: &&Value| value.get(name.as_str().unwrap_or_default()).is_none();
                let missing = is.as_array().expect("names").iter().filter(absent);
                missing.map(|name| format!("{at}: {name} is missing")).collect()
            }
            "properties" => {
                let of = |(name, member): (&String, &Value)| match is.get(name) {
                    Some(schema) => self.faults(schema, member, &format!("{at}.{name}")),
                    None => fault(!self.names_all, format!("{at}: nothing says what {name} is")),
                };
                members().flat_map(of).collect()
            }
            "additionalProperties" => {
                let others = members().filter(|(name, _)| schema["properties"].get(name.as_str()).is_none());
                let of = |(name, member): (&String, &Value)| match is {
                    Value::Bool(allowed) => fault(*allowed, format!("{at}: {name} may not be there")),
                    schema => self.faults(schema, member, &format!("{at}.{name}")),
                };
                others.flat_map(of).collect()
            }
            "propertyNames" => members()
                .flat_map(|(name, _)| self.faults(is, &json!(name), &format!("{at}: a name")))
                .collect(),
            "items" => elements()
                .enumerate()
                .flat_map(|(n, element)| self.faults(is, element, &format!("{at}[{n}]")))
                .collect(),
            "oneOf" => {
                let each: Vec<_> =
                    is.as_array().expect("schemas").iter().map(|one| self.faults(one, value, at)).collect();
                let fitting = each.iter().filter(|faults| faults.is_empty()).count();
                fault(fitting == 1, format!("{at}: {value} is {fitting} of one: {each:?}"))
            }
            "minimum" => fault(value.as_f64() >= is.as_f64(), format!("{at}: {value} is less than {is}")),
            other => vec![format!("{at}: this test does not know the keyword {other}")],
        }
    }
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    }
}

/// A client that checks whatever it gets.
struct Strict<'a> {
    http: &'a mut Http,
    documents: [Document; 2],
}

impl Strict<'_> {
    /// Calls the path that `template` is for `named`.
    #[track_caller]
    fn call(&mut self, method: &str, template: &str, named: &str, body: &Value, status: u16) -> Value {
        let path = template.replace("{queue}", named).replace("{id}", named);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.http.call(method, &path, &body).expect("an answer");
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
        for document in &self.documents {
            let faults = document.faults_of(method, template, &answer);
            assert!(faults.is_empty(), "{method} {path} {body}: {}: {faults:#?}", answer.text());
        }
        answer.json()
    }

    /// A leased task of queue `q` and its token.
    #[track_caller]
    fn leased(&mut self) -> (String, Value) {
        self.call("POST", "/v1/queues/{queue}/tasks", "q", &json!({"payload": {"n": 1}}), 201);
        let claimed = self.call("POST", "/v1/queues/{queue}/claims", "q", &json!({"worker": "w"}), 200);
        let (id, token) = lease(&claimed["tasks"][0]);
        (id, json!(token))
    }
}

fn on_each_store_strictly(check: impl Fn(&mut Strict<'_>)) {
    on_each_store(|http, _| {
        check(&mut Strict { http, documents: [false, true].map(Document::committed) });
    });
}

const TASKS: &str = "/v1/queues/{queue}/tasks";
const CLAIMS: &str = "/v1/queues/{queue}/claims";
const TASK: &str = "/v1/tasks/{id}";
const RESULT: &str = "/v1/tasks/{id}/result";

#[test]
fn enqueues_answer_what_the_document_says() {
    on_each_store_strictly(|strict| {
        let keyed = json!({"payload": null, "idempotencyKey": "k", "delayMs": 60_000});
        let id = strict.call("POST", TASKS, "q", &keyed, 201)["id"].clone();
        assert_eq!(strict.call("POST", TASKS, "q", &keyed, 200)["id"], id, "the one that is there");
        let batch = json!({"tasks": [
            {"payload": 1}, {"payload": null}, keyed, {"priority": 1}, {"payload": 1, "priority": 12},
            {"payload": 1, "nonsense": 1}, {"payload": 1, "retry": {"policy": "list", "delaysMs": []}}, 7,
        ]});
        let results = strict.call("POST", TASKS, "q", &batch, 200)["results"].clone();
        let refused = results.as_array().expect("results").iter().filter(|one| one.get("error").is_some());
        assert_eq!(refused.count(), 5, "{results}");
        for body in [json!({}), json!({"tasks": 1}), json!({"payload": 1, "priority": "high"})] {
            strict.call("POST", TASKS, "q", &body, 400);
        }
        strict.call("POST", TASKS, "no%20name", &json!({"payload": 1}), 400);
        strict.call("POST", CLAIMS, "q", &json!({"max": 0}), 400);
        let claimed = strict.call("POST", CLAIMS, "q", &json!({"max": 10, "worker": "w"}), 200);
        assert_eq!(claimed["tasks"].as_array().map(Vec::len), Some(2), "one of them without a payload");
        strict.call("POST", CLAIMS, "q", &json!({"max": 10}), 200);
        strict.call("GET", "/v1/queues", "", &Value::Null, 200);
        strict.call("GET", "/v1/queues/{queue}", "q", &Value::Null, 200);
        strict.call("GET", "/v1/queues/{queue}", "none", &Value::Null, 404);
    });
}

/// Each act, what beside the token a good one has, and what a bad one has.
fn acts() -> [(&'static str, Value, Value); 4] {
    [
        ("heartbeat", json!({"progress": null}), json!({"extendMs": "long"})),
        ("complete", json!({"result": null}), json!({"result": 1, "nonsense": 1})),
        ("fail", json!({"error": {"message": "m", "kind": "k", "detail": null}}), json!({"delayMs": -1})),
        ("release", json!({}), json!({"delayMs": "soon"})),
    ]
}

fn with(body: &Value, id: Option<&str>, token: &Value) -> Value {
    let mut body = body.clone();
    body["token"] = token.clone();
    if let Some(id) = id {
        body["id"] = json!(id);
    }
    body
}

#[test]
fn acts_answer_what_the_document_says() {
    let unknown = "0198f000-0000-7000-8000-000000000000";
    on_each_store_strictly(|strict| {
        for (act, good, bad) in acts() {
            let path = format!("/v1/tasks/{{id}}/{act}");
            let (id, token) = strict.leased();
            strict.call("POST", &path, &id, &with(&good, None, &json!("0".repeat(32))), 409);
            strict.call("POST", &path, unknown, &with(&good, None, &token), 404);
            strict.call("POST", &path, &id, &with(&bad, None, &token), 400);
            strict.call("POST", &path, &id, &with(&good, None, &token), 200);
            strict.call("GET", TASK, &id, &Value::Null, 200);
            let (id, token) = strict.leased();
            let items = [
                with(&good, Some(&id), &json!("0".repeat(32))),
                with(&good, Some(unknown), &token),
                with(&bad, Some(&id), &token),
                with(&good, None, &token),
                with(&good, Some(&id), &token),
                json!(null),
            ];
            let path = format!("/v1/leases/{act}");
            let results = strict.call("POST", &path, "", &json!({"items": items}), 200)["results"].clone();
            let refused: Vec<bool> =
                results.as_array().expect("results").iter().map(|one| one.get("error").is_some()).collect();
            assert_eq!(refused, [true, true, true, true, false, true], "{act}: {results}");
            strict.call("POST", &path, "", &json!({"items": 1}), 400);
            strict.call("POST", &path, "", &json!({}), 400);
            strict.call("DELETE", TASK, &id, &Value::Null, if act == "complete" { 409 } else { 200 });
        }
    });
}

#[test]
fn what_ends_a_task_answers_what_the_document_says() {
    on_each_store_strictly(|strict| {
        let (id, token) = strict.leased();
        strict.call("GET", RESULT, &id, &Value::Null, 202);
        strict.call("POST", TASKS, "q", &json!({"payload": null}), 201);
        let items = json!([{"id": id, "token": token, "result": null}]);
        let path = "/v1/leases/complete";
        let next = strict.call("POST", path, "", &json!({"items": items, "claim": {}}), 200);
        assert_eq!(next["tasks"].as_array().map(Vec::len), Some(1));
        assert_eq!(strict.call("GET", RESULT, &id, &Value::Null, 200)["result"], Value::Null);
        let none = strict.call("POST", path, "", &json!({"items": [], "claim": {}}), 200);
        assert_eq!(none["error"]["code"], "invalid_field");
        let (id, token) = strict.leased();
        let error = json!({"message": "m", "detail": {"n": [1]}});
        let fail = json!({"token": token, "retryable": false, "error": error});
        assert_eq!(strict.call("POST", "/v1/tasks/{id}/fail", &id, &fail, 200)["state"], "dead");
        assert_eq!(strict.call("GET", TASK, &id, &Value::Null, 200)["attempts"][0]["error"], error);
        strict.call("GET", RESULT, &id, &Value::Null, 200);
        strict.call("GET", TASK, "none", &Value::Null, 404);
        strict.call("GET", "/healthz", "", &Value::Null, 200);
        strict.call("GET", "/readyz", "", &Value::Null, 200);
    });
}

#[test]
fn many_tasks_answer_what_the_document_says() {
    on_each_store_strictly(|strict| {
        let act = |what: &str| format!("/v1/queues/{{queue}}/{what}");
        strict.call("GET", TASKS, "q", &Value::Null, 404);
        strict.call("POST", TASKS, "q", &json!({"payload": 1, "deadlineMs": 60_000}), 201);
        let (id, token) = strict.leased();
        let error = json!({"message": "m", "kind": "k", "detail": {"n": [1]}});
        let fail = json!({"token": token, "retryable": false, "error": error});
        strict.call("POST", "/v1/tasks/{id}/fail", &id, &fail, 200);
        assert_eq!(
            strict.call("GET", TASKS, "q", &Value::Null, 200)["tasks"].as_array().map(Vec::len),
            Some(2)
        );
        strict.call("GET", "/v1/tasks/{id}/explain", &id, &Value::Null, 200);
        strict.call("GET", "/v1/tasks/{id}/events", &id, &Value::Null, 200);
        strict.call("GET", "/v1/queues/{queue}/explain", "q", &Value::Null, 200);
        strict.call("GET", "/v1/queues/{queue}/explain", "none", &Value::Null, 404);
        let rate = json!({"filter": {"errorKind": "k"}, "limit": 1, "ratePerSecond": 2.5});
        assert_eq!(strict.call("POST", &act("redrive"), "q", &rate, 200)["redriven"], 1);
        strict.call("POST", &act("redrive"), "q", &json!({"limit": "all"}), 400);
        strict.call("POST", &act("redrive"), "none", &json!({}), 404);
        let ready = json!({"states": ["ready"]});
        assert_eq!(strict.call("POST", &act("purge"), "q", &ready, 200)["purged"], 2);
        strict.call("POST", &act("purge"), "q", &json!({"states": "ready"}), 400);
        strict.call("POST", &act("purge"), "none", &ready, 404);
    });
}

#[test]
fn a_pause_answers_what_the_document_says() {
    on_each_store_strictly(|strict| {
        let act = |what: &str| format!("/v1/queues/{{queue}}/{what}");
        strict.call("POST", &act("pause"), "q", &json!({}), 404);
        strict.call("POST", TASKS, "q", &json!({"payload": 1}), 201);
        strict.call("POST", &act("pause"), "q", &json!({"reason": 1}), 400);
        let paused = strict.call("POST", &act("pause"), "q", &json!({"reason": "why"}), 200);
        assert_eq!(paused["paused"]["reason"], "why");
        strict.call("GET", "/v1/queues/{queue}", "q", &Value::Null, 200);
        strict.call("GET", "/v1/queues", "", &Value::Null, 200);
        strict.call("POST", &act("resume"), "q", &json!({"until": 1}), 400);
        strict.call("POST", &act("resume"), "q", &json!({}), 200);
    });
}
