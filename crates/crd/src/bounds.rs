//! Every bound of the definitions is also one of `parse`: these documents set every field of every spec, each is moved to
//! its bounds and past them, and what the schema refuses then, `parse` must refuse.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::judged::judge;
use crate::{DEFINITIONS, definition};

fn documents() -> [(&'static str, Value); 5] {
    let resources = json!({"requests": {"cpu": 1}, "limits": {"cpu": 1}});
    let key = json!({"name": "a", "key": "b"});
    let s3 = json!({"prefix": "a", "s3": {
        "bucket": "abc", "endpoint": "http://a", "region": "r", "secretRef": {"name": "a"},
    }});
    let claim = json!({"persistentVolumeClaim": {"claimName": "a"}});
    let capture = json!({"preSeconds": 1, "postSeconds": 1});
    let limits = json!({"cooldownSeconds": 10, "perDay": 1});
    [
        (
            "TaskQueue",
            json!({
                "replicas": 1, "image": "a", "resources": resources, "auth": {"tokensSecretRef": key, "generation": 1},
                "redis": {"standalone": {
                    "image": "a", "appendfsync": "always", "resources": resources,
                    "storage": {"size": 1, "storageClassName": "a", "onDelete": "Retain"},
                }},
                "slo": {"claimLatency": {"percentile": 50, "thresholdMs": 1, "windowSeconds": 5, "minSamples": 1}},
                "profiling": {"capture": capture, "limits": limits, "artifacts": s3, "suspend": true},
                "queues": [{
                    "name": "a", "paused": true, "agingMs": 1, "maxExpiries": 1,
                    "retry": {"policy": "exponential", "delayMs": 1, "maxDelayMs": 1, "delaysMs": [1], "jitter": 0.5},
                    "retention": {"completedMs": 1, "deadMs": 1, "maxCount": 1},
                    "limits": {
                        "maxInFlight": 1, "perSecond": 1, "burst": 1,
                        "keys": [{"match": "a", "maxInFlight": 1, "perSecond": 1, "burst": 1}],
                    },
                    "fairness": {"weights": {"cpu": 1}}, "ordering": {"onFailure": "skip"},
                }],
            }),
        ),
        (
            "TaskQueue",
            json!({"redis": {"external": {"url": "redis://a"}}, "profiling": {"policyRef": {"name": "a"}}}),
        ),
        (
            "TaskQueue",
            json!({"redis": {"external": {"urlSecretRef": key}}, "profiling": {"artifacts": claim}}),
        ),
        ("ProfilingPolicy", json!({"capture": capture, "limits": limits, "artifacts": s3, "suspend": true})),
        (
            "ProfileCapture",
            json!({
                "taskQueueRef": {"name": "a"}, "reason": "Manual", "pods": ["a"],
                "window": {"fromMs": 1, "toMs": 2, "onsetMs": 1},
            }),
        ),
    ]
}

/// Fields below a schema, as pointers, each with its schema.
fn fields(schema: &Value, at: &str, found: &mut Vec<(String, Value)>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{at}/{name}");
        fields(inner, &path, found);
        found.push((path, inner.clone()));
    }
    if let Some(items) = schema.get("items") {
        fields(items, &format!("{at}/0"), found);
        found.push((format!("{at}/0"), items.clone()));
    }
    if let Some(values) = schema.get("additionalProperties") {
        found.push((format!("{at}/cpu"), values.clone()));
    }
}

/// A list of so many like this one, each with a name of its own.
fn items(like: &Value, count: usize) -> Value {
    let named = |n| {
        let mut item = like.clone();
        if let Some(name) = item.get_mut("name") {
            *name = format!("n{n}").into();
        }
        item
    };
    (0..count).map(named).collect()
}

/// Values at the bounds of a schema and past them, made from one that it accepts.
fn moved(schema: &Value, is: &Value) -> (Vec<Value>, Vec<Value>) {
    let (mut at, mut past) = (Vec::new(), Vec::new());
    let length = |count: u64| {
        let text = is.as_str().unwrap_or_default();
        Value::from(text.chars().chain(std::iter::repeat('a')).take(count as usize).collect::<String>())
    };
    let bound = |name: &str| schema[name].as_u64();
    if let Some(text) = bound("maxLength").filter(|_| is.is_string()) {
        at.push(length(text));
        past.push(length(text + 1));
    }
    if let Some(text) = bound("minLength").filter(|least| *least > 0) {
        at.push(length(text));
        past.push(length(text - 1));
    }
    if let Some(least) = bound("minimum") {
        past.push((least as i64 - 1).into());
    }
    if let Some(most) = bound("maximum") {
        past.push((most + 1).into());
    }
    if let Some(most) = bound("maxItems") {
        past.push(items(&is[0], most as usize + 1));
        at.push(items(&is[0], most as usize));
    }
    if let Some(least) = bound("minItems") {
        past.push(items(&is[0], least as usize - 1));
    }
    if let Some(most) = bound("maxProperties") {
        past.push((0..=most).map(|n| (format!("r{n}"), json!(1))).collect::<serde_json::Map<_, _>>().into());
        at.push((0..most).map(|n| (format!("r{n}"), json!(1))).collect::<serde_json::Map<_, _>>().into());
    }
    if schema.get("enum").is_some() {
        past.push("Other".into());
    }
    (at, past)
}

#[test]
fn every_bound_of_the_definitions_is_one_of_parse() {
    let mut wrong = Vec::new();
    for plural in DEFINITIONS {
        let definition = definition(plural).unwrap();
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut all = Vec::new();
        fields(schema, "", &mut all);
        let mut unset: BTreeSet<&str> = all.iter().map(|(path, _)| path.as_str()).collect();
        for (_, document) in documents().iter().filter(|(of, _)| *of == kind) {
            assert_eq!(judge(kind, "{name: q}", &document.to_string()), Ok(()));
            for (path, schema) in &all {
                let Some(is) = document.pointer(path) else { continue };
                unset.remove(path.as_str());
                let (at, past) = moved(schema, is);
                let cases = at.into_iter().map(|value| (value, true));
                for (value, valid) in cases.chain(past.into_iter().map(|value| (value, false))) {
                    let mut changed = document.clone();
                    *changed.pointer_mut(path).unwrap() = value.clone();
                    let verdict = judge(kind, "{name: q}", &changed.to_string());
                    if verdict.is_ok() != valid {
                        wrong.push(format!("{kind} {path} {value}: {verdict:?}"));
                    }
                }
            }
        }
        // A policy's volume is that of a TaskQueue, which is set above.
        unset.retain(|path| kind == "TaskQueue" || !path.contains("persistentVolumeClaim"));
        assert!(unset.is_empty(), "{kind}: no document sets {unset:?}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
