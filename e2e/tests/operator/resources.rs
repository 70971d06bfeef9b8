//! Every rule of the schemas, with a case that the API server accepts and one that it refuses.

use brisq_testkit::Kubectl;

use crate::rig::Rig;

fn manifest(kind: &str, spec: &str) -> String {
    format!("apiVersion: brisq.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: q}}\nspec: {spec}\n")
}

fn create(kubectl: &Kubectl, yaml: &str) -> Result<String, String> {
    let args = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
    kubectl.feed(&args, yaml).map_err(|error| error.to_string())
}

/// Kind, a spec that is accepted, one that is refused, and a part of what is said then.
const CREATED: &[(&str, &str, &str, &str)] = &[
    ("TaskQueue", "{replicas: 100}", "{replicas: 101}", "spec.replicas"),
    ("TaskQueue", "{}", "{replicas: 0}", "spec.replicas"),
    ("TaskQueue", "{redis: {standalone: {}}}", "{redis: {}}", "standalone or external"),
    (
        "TaskQueue",
        "{redis: {external: {url: 'redis://r:1'}}}",
        "{redis: {standalone: {}, external: {url: 'redis://r:1'}}}",
        "standalone or external",
    ),
    (
        "TaskQueue",
        "{redis: {external: {urlSecretRef: {name: a, key: b}}}}",
        "{redis: {external: {url: 'redis://r', urlSecretRef: {name: a, key: b}}}}",
        "url or urlSecretRef",
    ),
    (
        "TaskQueue",
        "{redis: {external: {url: 'redis://r:1'}}}",
        "{redis: {external: {url: 'http://r'}}}",
        "url",
    ),
    (
        "TaskQueue",
        "{redis: {standalone: {appendfsync: always}}}",
        "{redis: {standalone: {appendfsync: sometimes}}}",
        "appendfsync",
    ),
    (
        "TaskQueue",
        "{redis: {standalone: {storage: {size: 1.5Gi}}}}",
        "{redis: {standalone: {storage: {size: much}}}}",
        "size",
    ),
    (
        "TaskQueue",
        "{slo: {claimLatency: {percentile: 99.9, thresholdMs: 1}}}",
        "{slo: {claimLatency: {percentile: 100, thresholdMs: 1}}}",
        "above 0 and below 100",
    ),
    (
        "TaskQueue",
        "{slo: {claimLatency: {thresholdMs: 60000}}}",
        "{slo: {claimLatency: {thresholdMs: 0}}}",
        "thresholdMs",
    ),
    (
        "TaskQueue",
        "{profiling: {policyRef: {name: a}, suspend: true}}",
        "{profiling: {policyRef: {name: a}, capture: {preSeconds: 1}}}",
        "policyRef or a policy",
    ),
    ("TaskQueue", "{resources: {limits: {cpu: 1}}}", "{resources: {limits: {cpu: fast}}}", "cpu"),
    ("TaskQueue", "{image: a}", "{imag: a}", "imag"),
    (
        "ProfilingPolicy",
        "{artifacts: {s3: {bucket: abc}}}",
        "{artifacts: {s3: {bucket: abc}, persistentVolumeClaim: {claimName: a}}}",
        "s3 or persistentVolumeClaim",
    ),
    (
        "ProfilingPolicy",
        "{artifacts: {prefix: a/b, s3: {bucket: abc}}}",
        "{artifacts: {prefix: /a, s3: {bucket: abc}}}",
        "prefix",
    ),
    (
        "ProfilingPolicy",
        "{limits: {cooldownSeconds: 10}}",
        "{limits: {cooldownSeconds: 9}}",
        "cooldownSeconds",
    ),
    ("ProfilingPolicy", "{capture: {preSeconds: 60}}", "{capture: {preSeconds: 61}}", "preSeconds"),
    ("ProfileCapture", "{taskQueueRef: {name: q}}", "{}", "taskQueueRef"),
    (
        "ProfileCapture",
        "{taskQueueRef: {name: q}, reason: Manual}",
        "{taskQueueRef: {name: q}, reason: Fun}",
        "reason",
    ),
    (
        "ProfileCapture",
        "{taskQueueRef: {name: q}, window: {fromMs: 1, toMs: 2}}",
        "{taskQueueRef: {name: q}, window: {fromMs: 2, toMs: 2}}",
        "ends after it begins",
    ),
];

/// Kind, what there is, a change that is accepted, one that is refused, and a part of what is said then.
const CHANGED: &[(&str, &str, &str, &str, &str)] = &[
    (
        "TaskQueue",
        "{redis: {standalone: {storage: {size: 2Gi}}}}",
        "{redis: {standalone: {storage: {size: 3Gi}}}}",
        "{redis: {standalone: {storage: {size: 1Gi}}}}",
        "cannot shrink",
    ),
    (
        "TaskQueue",
        "{redis: {standalone: {storage: {storageClassName: a}}}}",
        "{replicas: 2, redis: {standalone: {storage: {storageClassName: a}}}}",
        "{redis: {standalone: {storage: {storageClassName: b}}}}",
        "storageClassName cannot be changed",
    ),
    (
        "TaskQueue",
        "{redis: {standalone: {}}}",
        "{redis: {standalone: {appendfsync: always}}}",
        "{redis: {external: {url: 'redis://r'}}}",
        "cannot be changed between",
    ),
    (
        "TaskQueue",
        "{}",
        "{redis: {standalone: {}}}",
        "{redis: {external: {url: 'redis://r'}}}",
        "cannot be changed between",
    ),
    (
        "TaskQueue",
        "{redis: {external: {url: 'redis://r'}}}",
        "{redis: {external: {url: 'redis://s'}}}",
        "{}",
        "cannot be changed between",
    ),
    (
        "ProfileCapture",
        "{taskQueueRef: {name: q}}",
        "{taskQueueRef: {name: q}, reason: Manual}",
        "{taskQueueRef: {name: r}}",
        "cannot be changed",
    ),
];

#[test]
fn every_rule_accepts_and_refuses() {
    let rig = Rig::start();
    let kubectl = &rig.kubectl;
    for (kind, accepted, refused, part) in CREATED {
        create(kubectl, &manifest(kind, accepted))
            .unwrap_or_else(|error| panic!("{kind} {accepted}: {error}"));
        let error = create(kubectl, &manifest(kind, refused)).expect_err(refused);
        assert!(error.contains(part), "{kind} {refused}: {error}");
    }
    let long = manifest("TaskQueue", "{}").replace("name: q", &format!("name: {}", "q".repeat(41)));
    assert!(create(kubectl, &long).expect_err("too long").contains("at most 40"));
    create(kubectl, &long.replacen("qq", "q", 1)).expect("40 characters");
    for (kind, is, accepted, refused, part) in CHANGED {
        let replace = |spec: &str| kubectl.feed(&["replace", "-f", "-"], &manifest(kind, spec));
        kubectl.feed(&["create", "-f", "-"], &manifest(kind, is)).expect("there it is");
        replace(accepted).unwrap_or_else(|error| panic!("{kind} {is} -> {accepted}: {error}"));
        let error = replace(refused).expect_err(refused).to_string();
        assert!(error.contains(part), "{kind} {is} -> {refused}: {error}");
        kubectl.run(&["delete", kind, "q"]).expect("deleted");
    }
    // Defaults stand in the object, whoever reads it.
    kubectl.apply(&manifest("TaskQueue", "{slo: {claimLatency: {thresholdMs: 5}}}")).expect("applied");
    let queue = kubectl.get(&["tq", "q"]).expect("the queue");
    assert_eq!(queue["spec"]["replicas"], 1);
    assert_eq!(queue["spec"]["slo"]["claimLatency"]["windowSeconds"], 60);
}
