//! Bundles in an S3-compatible store, which must refuse a second writer of a key that was to be new.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use brisq_e2e::{Server, Store};
use brisq_testkit::{Process, go_tool};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::rig::{ACCESS, SECRET, Sidecar, json_of, until};

const BUCKET: &str = "captures";
const ROOT: &str = "brisq/shop/orders";
/// `x-amz-content-sha256` for a body that is not hashed.
const UNSIGNED: &str = "x-amz-content-sha256: UNSIGNED-PAYLOAD";

/// The store that the cluster test uses too, over a folder.
struct S3 {
    process: Process,
    folder: TempDir,
    port: u16,
}

impl S3 {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let s3 = Self { process: Self::launch(folder.path(), port), folder, port };
        assert_eq!(s3.put("", ""), 200, "no bucket");
        s3
    }

    fn launch(folder: &Path, port: u16) -> Process {
        let mut command = Command::new(go_tool("versitygw").expect("versitygw"));
        command.args([
            "--access",
            ACCESS,
            "--secret",
            SECRET,
            "--port",
            &format!("127.0.0.1:{port}"),
            "posix",
        ]);
        command.arg(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::spawn(&mut command).expect("a store");
        until("the store", || TcpStream::connect(("127.0.0.1", port)).ok());
        process
    }

    /// A sidecar that keeps its bundles here.
    fn sidecar(&self) -> Sidecar {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let root = ["--root", ROOT, "--s3-bucket", BUCKET, "--s3-region", "us-east-1"];
        Sidecar::start(&[&root[..], &["--s3-endpoint", &endpoint]].concat())
    }

    /// Writes a key that must not exist yet; answers the status.
    fn put(&self, key: &str, body: &str) -> u16 {
        let output = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--aws-sigv4", "aws:amz:us-east-1:s3"])
            .args(["--user", &format!("{ACCESS}:{SECRET}"), "-H", UNSIGNED, "-H", "If-None-Match: *"])
            .args(["-X", "PUT", "--data-binary", body])
            .arg(format!("http://127.0.0.1:{}/{BUCKET}{key}", self.port))
            .output()
            .expect("curl runs");
        String::from_utf8_lossy(&output.stdout).parse().expect("a status")
    }
}

#[test]
fn a_key_that_must_be_new_has_one_writer() {
    let s3 = S3::start();
    assert_eq!(s3.put("/manifest.json", "first"), 200);
    assert_eq!(s3.put("/manifest.json", "second"), 412);
    // Of many at once, too.
    let put = |n: usize| s3.put("/contended", &n.to_string());
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..12).map(|n| scope.spawn(move || put(n))).collect();
        writers.into_iter().map(|writer| writer.join().expect("an answer")).collect()
    });
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
}

#[test]
fn a_bundle_reaches_a_store_that_was_away() {
    let mut s3 = S3::start();
    let sidecar = s3.sidecar();
    let _server =
        Server::start(Store::Embedded, &["--profiler-socket", &sidecar.socket()]).expect("a server");
    let now_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    s3.process.kill9();
    sidecar.ask("orders-1-1", &json!({"fromMs": now_ms, "toMs": now_ms + 1_000}));
    sleep(Duration::from_secs(4));
    s3.process = S3::launch(s3.folder.path(), s3.port);
    let done = sidecar.complete("orders-1-1");
    let folder = s3.folder.path().join(BUCKET).join(done["folder"].as_str().expect("a folder"));
    assert_eq!(json_of(&folder, "manifest.json")["files"], done["files"]);
}

#[test]
fn a_manifest_that_is_there_is_never_written_over() {
    let s3 = S3::start();
    let sidecar = s3.sidecar();
    let _server =
        Server::start(Store::Embedded, &["--profiler-socket", &sidecar.socket()]).expect("a server");
    let now_ms = sidecar.slo()["atMs"].as_u64().expect("a time");
    let window = json!({"fromMs": now_ms, "toMs": now_ms + 1_000});
    let of = |window: &Value| {
        json!({"onsetInside": false, "window": window, "asked": window, "covered": true, "files": []})
            .to_string()
    };
    let diagnosis = json!({"cause": "DiskSlow", "confidence": 0.5, "reason": "r", "topFunctions": []});
    let day = day_of(now_ms);
    let manifests = [
        ("same-window", of(&window)),
        ("another-window", of(&json!({"fromMs": now_ms - 500, "toMs": now_ms + 1_000}))),
        ("of-somebody-else", "other content".to_owned()),
    ];
    for (name, manifest) in &manifests {
        let folder = format!("/{ROOT}/{day}/{name}");
        assert_eq!(s3.put(&format!("{folder}/manifest.json"), manifest), 200);
        assert_eq!(s3.put(&format!("{folder}/diagnosis.json"), &diagnosis.to_string()), 200);
        sidecar.ask(name, &window);
    }
    // What is whole already is read back, what is of another window stands beside it, and what is unknown is no capture.
    assert_eq!(sidecar.complete("same-window")["cause"], "DiskSlow");
    let beside = sidecar.complete("another-window");
    assert_ne!(beside["folder"], format!("{ROOT}/{day}/another-window"));
    let failed = until("it has failed", || {
        let (_, state) = sidecar.call("GET", "/v1/captures/of-somebody-else", &Value::Null);
        (state["phase"] == "Failed").then_some(state)
    });
    assert!(failed["error"].as_str().is_some_and(|error| error.contains("manifest.json")), "{failed}");
    for (name, manifest) in &manifests {
        let path = s3.folder.path().join(BUCKET).join(ROOT).join(&day).join(name).join("manifest.json");
        assert_eq!(&std::fs::read_to_string(path).expect("a manifest"), manifest, "{name}");
    }
}

/// The day of a moment, in UTC.
fn day_of(unix_ms: u64) -> String {
    let at = format!("@{}", unix_ms / 1_000);
    let output = Command::new("date").args(["-u", "+%F", "-d", &at]).output().expect("date runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
