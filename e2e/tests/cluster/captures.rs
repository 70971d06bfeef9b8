//! Captures of a cluster, from the breach to the bundle on this machine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use brisq_testkit::{Kubectl, go_tool};
use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::MINUTE;
use crate::load::load;
use crate::steps::{self, Cluster};

/// From a fault to the end of the window of its breach.
const RECORDED: Duration = Duration::from_secs(30);

/// One of two servers gets slow: its capture names the cause, and its bundle holds the other one beside it.
pub fn breach(cluster: &Cluster, shop: &Kubectl) {
    // Work enough that profiles compare, on a machine that also runs the cluster: a node that is full is another cause.
    let _running = load(shop, &["--rate", "200", "--duration", "10m"]);
    std::thread::sleep(Duration::from_secs(35));
    let queue = shop.get(&["tq", "orders"]).expect("the queue");
    assert_eq!(queue["status"]["slo"], "Met", "{}", queue["status"]);
    let servers = steps::servers(shop);
    let (worst, twin) = (&servers[0], &servers[1]);
    let fault_ms = steps::fault(shop, worst, r#"{"fault":"spin","ms":60,"oneIn":15}"#);
    // Who asks again and again is a neighbour that takes half a CPU: nobody does while the breach is recorded.
    std::thread::sleep(RECORDED);
    let (capture, took) = shop
        .until("a complete capture", 3 * MINUTE, |shop| {
            let captures = shop.get(&["pcap"]).ok()?;
            let one = captures["items"].get(0)?.clone();
            steps::is(&one, "Complete").then_some(one)
        })
        .unwrap_or_else(|error| {
            let seen = shop.run(&["describe", "tq,pcap"]).unwrap_or_default();
            panic!("{error}\n{seen}\n{}", cluster.operator_log());
        });
    steps::fault(shop, worst, "");
    println!("  complete {:.1} s after the fault, or before", (RECORDED + took).as_secs_f64());
    println!("{}", shop.run(&["get", "tq,pp,pcap", "-o", "wide"]).expect("columns"));
    println!("{}", shop.run(&["describe", "tq", "orders"]).expect("a description"));
    let captures = shop.get(&["pcap"]).expect("captures");
    assert_eq!(captures["items"].as_array().map(Vec::len), Some(1), "one breach, one capture");
    let status = &capture["status"];
    assert_eq!(capture["metadata"]["name"], "orders-1-1");
    assert_eq!(status["author"].as_str(), Some(worst.as_str()), "{status}");
    assert!(steps::is(&capture, "Uploaded"), "{status}");

    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().join("bundle");
    println!("{}", cluster.brisq(shop, &["open", "orders-1-1", "--to", &to.display().to_string()]));
    let diagnosis = std::fs::read_to_string(to.join("diagnosis.json")).expect("a diagnosis");
    assert_eq!(
        (&status["cause"], &status["onsetInside"]),
        (&"CpuInLongPoll".into(), &true.into()),
        "{status}\n{diagnosis}"
    );
    let manifest = check_bundle(&to);
    println!("  manifest {}", serde_json::to_string(&manifest).expect("JSON"));
    let onset_ms = manifest["onsetMs"].as_i64().expect("an onset");
    println!("  onset {} ms after the fault", onset_ms - fault_ms);
    let from_ms = manifest["window"]["fromMs"].as_i64().expect("a window");
    assert!(from_ms < fault_ms, "the window begins before the fault: {from_ms} {fault_ms}");
    assert!((fault_ms - 3_000..fault_ms + 5_000).contains(&onset_ms), "fault {fault_ms}, onset {onset_ms}");
    assert_eq!(manifest["pods"], serde_json::json!([twin]), "the healthy twin is in the bundle");
    let diagnosis: Value = serde_json::from_str(&diagnosis).expect("JSON");
    println!("  diagnosis {} ({}): {}", diagnosis["cause"], diagnosis["confidence"], diagnosis["reason"]);
    let guilty = top(&to.join("cpu.pb.gz"));
    let innocent = top(&to.join("pods").join(twin).join("cpu.pb.gz"));
    assert!(guilty.contains("brisq_faults::spin"), "{guilty}");
    assert!(innocent.contains("brisq_server"), "the healthy twin was profiled: {innocent}");
    assert!(!innocent.contains("brisq_faults::spin"), "{innocent}");
}

/// Ordered by hand; then what `kubectl brisq` says of the queue, its captures and its cluster.
pub fn by_hand(cluster: &Cluster, shop: &Kubectl) {
    let said = cluster.brisq(shop, &["capture", "orders"]);
    assert!(said.contains("cause"), "{said}");
    let row = |said: &str, name: &str| {
        let found = said.lines().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("no row {name}: {said}")).to_owned()
    };
    let captures = cluster.brisq(shop, &["captures", "orders"]);
    println!("{captures}");
    assert!(row(&captures, "orders-1-1 ").contains("CpuInLongPoll"), "{captures}");
    assert!(row(&captures, "orders-manual-").contains("True"), "{captures}");
    let status = cluster.brisq(shop, &["status"]);
    println!("{status}");
    let orders = row(&status, "orders ");
    assert!(orders.contains("True") && orders.contains("orders-1-"), "{status}");
    let doctor = cluster.brisq(shop, &["doctor"]);
    println!("{doctor}");
    assert!(row(&doctor, "ok     operator").contains(" leads, "), "{doctor}");
    let valid = cluster.plugin(&["validate", "-f", "../examples/orders.yaml"]);
    assert!(valid.contains("TaskQueue orders is valid"), "{valid}");
}

/// A queue without an S3-compatible store: its captures stay in its pod, then on a volume.
pub fn ledger(cluster: &Cluster, shop: &Kubectl) {
    let manifest = include_str!("../../manifests/ledger.yaml");
    shop.apply(manifest).expect("applied");
    shop.run(&["wait", "--for=condition=Ready", "tq/ledger", "--timeout=60s"]).expect("ready");
    let children = shop.get(&["sts", "-l", "app.kubernetes.io/instance=ledger"]).expect("a list");
    assert_eq!(children["items"].as_array().map(Vec::len), Some(0), "no Redis of its own");
    let folder = tempfile::tempdir().expect("a folder");
    let captured = |scheme: &str| {
        let said = cluster.brisq(shop, &["capture", "ledger"]);
        assert!(said.contains(scheme), "{said}");
        let name = said.split_whitespace().nth(1).expect("a name").to_owned();
        let to = folder.path().join(&name);
        cluster.brisq(shop, &["open", &name, "--to", &to.display().to_string()]);
        let manifest = check_bundle(&to);
        assert!(to.join("redis.json").is_file(), "{manifest}");
    };
    captured("pod://ledger-");
    let volume = r#"{"spec":{"profiling":{"artifacts":{"persistentVolumeClaim":{"claimName":"captures"}}}}}"#;
    shop.run(&["patch", "tq", "ledger", "--type=merge", "-p", volume]).expect("a volume");
    for condition in ["Progressing", "Progressing=False", "Ready"] {
        let condition = format!("--for=condition={condition}");
        shop.run(&["wait", &condition, "tq/ledger", "--timeout=60s"]).expect("it rolls");
    }
    captured("pvc://captures/");
    shop.feed(&["delete", "-f", "-", "--timeout=60s"], manifest).expect("deleted");
}

fn top(profile: &Path) -> String {
    let mut pprof = Command::new(go_tool("pprof").expect("pprof"));
    let output = pprof.args(["-top", "-cum", "-nodecount=400"]).arg(profile).output().expect("pprof runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pprof {}: {error}", profile.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every file of a bundle is what its manifest says; answers the manifest.
fn check_bundle(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    let files = manifest["files"].as_array().expect("files");
    for file in files {
        let name = file["name"].as_str().expect("a name");
        let content = std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let sha256 = HEXLOWER.encode(&Sha256::digest(&content));
        assert_eq!(file["sha256"], sha256, "{name}");
    }
    assert!(files.len() >= 6, "{manifest}");
    manifest
}
