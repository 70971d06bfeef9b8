//! Captures that have ended, without sidecars: how many stay, and what becomes of a bundle that went with its pod.

use brisq_testkit::Kubectl;

use crate::rig::Rig;
use crate::{SOON, queue};

/// What stays of a TaskQueue, and one sweep.
const KEPT: usize = 80;
const SWEPT: std::time::Duration = std::time::Duration::from_secs(150);
const MANUAL_PER_DAY: usize = 20;

fn capture(name: &str, reason: &str) -> String {
    format!(
        "apiVersion: brisq.dev/v1alpha1\nkind: ProfileCapture\nmetadata: {{name: {name}}}\nspec: {{taskQueueRef: {{name: orders}}, \
         reason: {reason}}}\n"
    )
}

/// The same as it has ended, with its bundle in a pod that is gone.
fn ended(name: &str) -> String {
    let condition = |kind: &str| {
        format!(
            "{{type: {kind}, status: 'True', reason: Done, message: '', lastTransitionTime: '2026-01-01T00:00:00Z'}}"
        )
    };
    capture(name, "Breach")
        + &format!(
            "status: {{cause: DiskSlow, author: orders-gone, uri: 'pod://orders-gone/default/orders/2026-01-01/{name}', conditions: \
             [{}, {}]}}\n",
            condition("Uploaded"),
            condition("Complete")
        )
}

#[test]
fn old_captures_go_and_none_names_a_bundle_that_is_gone() {
    let rig = Rig::start();
    let kubectl = &rig.kubectl;
    kubectl.apply(&queue("orders", "{profiling: {suspend: true}}")).expect("a queue");
    let names: Vec<String> = (0..KEPT + 3).map(|n| format!("orders-{n}-1")).collect();
    let all =
        |of: &dyn Fn(&String) -> String| names.iter().map(|name| of(name) + "---\n").collect::<String>();
    kubectl.feed(&["create", "-f", "-"], &all(&|name| capture(name, "Breach"))).expect("captures");
    let status = [
        "apply",
        "--server-side",
        "--subresource=status",
        "--force-conflicts",
        "--field-manager=brisq-operator/status",
    ];
    kubectl.feed(&[&status[..], &["-f", "-"]].concat(), &all(&|name| ended(name))).expect("they have ended");
    // By hand, one more than a day has: those before it wait for a server for a minute.
    kubectl
        .run(&["patch", "tq/orders", "--type=merge", "-p", r#"{"spec":{"profiling":{"suspend":false}}}"#])
        .expect("patched");
    let _operator = rig.operator("a");
    for n in 0..=MANUAL_PER_DAY {
        kubectl.apply(&capture(&format!("by-hand-{n:02}"), "Manual")).expect("a capture");
    }
    let reason = |kubectl: &Kubectl| {
        let capture = kubectl.get(&["pcap", &format!("by-hand-{MANUAL_PER_DAY}")]).ok()?;
        let conditions = capture["status"]["conditions"].as_array()?.clone();
        conditions.iter().any(|c| c["type"] == "Suppressed" && c["reason"] == "ManualQuota").then_some(())
    };
    kubectl.until("it is refused", SOON, reason).unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));

    let kept = |kubectl: &Kubectl| {
        let captures = kubectl.get(&["pcap"]).ok()?["items"].take();
        let ended: Vec<_> = captures
            .as_array()?
            .iter()
            .filter(|capture| capture["status"]["cause"] == "DiskSlow")
            .cloned()
            .collect();
        let lost = |capture: &serde_json::Value| {
            let conditions = capture["status"]["conditions"].as_array();
            capture["status"]["uri"].is_null()
                && conditions.is_some_and(|all| {
                    all.iter().any(|c| c["status"] == "False" && c["reason"] == "BundleGone")
                })
        };
        // The one that was refused has ended as well, and is newer.
        (ended.len() < KEPT && ended.iter().all(lost)).then_some(ended.len())
    };
    let (left, took) =
        kubectl.until("one sweep", SWEPT, kept).unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    println!("{left} of {} captures were kept, after {:.0} s", names.len(), took.as_secs_f64());
    assert!(left > KEPT - 2 - MANUAL_PER_DAY, "{left}");
}
