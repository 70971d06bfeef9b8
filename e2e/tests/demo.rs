//! The demo as a newcomer runs it: an empty folder, one command. Its bundle is whole, the Go tool reads its profiles,
//! and a browser shows the page and the report, in light and in dark.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what a test cannot read fails it, helpers included"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use brisq_e2e::{Up, load};
use brisq_testkit::{Browser, Http, Program, ProgramOptions, binary, go_tool};
use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What the demo promises.
const DEMO_MAX: Duration = Duration::from_secs(90);
/// By how much a slow disk's syncs take longer, µs.
const SLOW_SYNC_US: u32 = 8_000;
/// The server's hard deadline, and some time to end.
const DRAIN_MAX: Duration = Duration::from_secs(40);
/// A browser's picture of a page that shows anything is larger.
const PICTURE_MIN_BYTES: u64 = 20_000;

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn json(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&read(folder, name)).expect("JSON")
}

/// The one capture below `data/captures/{date}/`.
fn capture(data: &Path) -> PathBuf {
    let only = |folder: &Path| {
        let found: Vec<_> =
            std::fs::read_dir(folder).expect("a folder").flatten().map(|e| e.path()).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    only(&only(&data.join("captures")))
}

fn pprof_prints(args: &[&str]) -> String {
    let output = Command::new(go_tool("pprof").expect("pprof")).args(args).output().expect("pprof runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn check_bundle(folder: &Path) {
    let manifest = json(folder, "manifest.json");
    assert_eq!((&manifest["reason"], &manifest["onsetInside"]), (&"Breach".into(), &true.into()));
    let (onset, window) = (manifest["onsetMs"].as_u64().expect("an onset"), &manifest["window"]);
    assert!(window["fromMs"].as_u64() <= Some(onset) && Some(onset) <= window["toMs"].as_u64());
    assert_eq!(manifest["lost"], 0);
    let files = manifest["files"].as_array().expect("files");
    for file in files {
        let bytes = read(folder, file["name"].as_str().expect("a name"));
        let sha256 = HEXLOWER.encode(&Sha256::digest(&bytes));
        assert_eq!(
            (file["sha256"].as_str(), file["bytes"].as_u64()),
            (Some(&*sha256), Some(bytes.len() as u64))
        );
    }
    let names: Vec<&str> = files.iter().filter_map(|file| file["name"].as_str()).collect();
    for name in [
        "cpu.pb.gz",
        "baseline.pb.gz",
        "diff.folded",
        "flame.svg",
        "flame-diff.svg",
        "claims.jsonl",
        "signals.jsonl.gz",
        "diagnosis.json",
        "report.html",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let diagnosis = json(folder, "diagnosis.json");
    assert_eq!(diagnosis["cause"], "CpuInLongPoll");
    for key in ["confidence", "evidence", "ruledOut", "missing", "nextStep", "topFunctions"] {
        assert!(!diagnosis[key].is_null(), "{key}");
    }
}

/// The Go tool names the function in the breach, and first in the difference; it is not in the baseline.
fn check_profiles(folder: &Path) {
    let path = |name: &str| folder.join(name).display().to_string();
    let (cpu, baseline) = (path("cpu.pb.gz"), path("baseline.pb.gz"));
    let guilty = "rank_all_candidates";
    assert!(pprof_prints(&["-top", "-cum", &cpu]).contains(guilty));
    assert!(!pprof_prints(&["-top", "-cum", "-nodecount=10000", &baseline]).contains(guilty));
    let base = format!("-diff_base={baseline}");
    let difference = pprof_prints(&["-top", "-cum", &base, &cpu]);
    assert!(difference.contains(guilty), "{difference}");
}

/// Opens a page in both schemes, waits for `shown`, and keeps a picture of each for people to look at.
fn browse(browser: &mut Browser, url: &str, name: &str, shown: &str) {
    for dark in [false, true] {
        browser.open(url, dark).expect("it opens");
        browser.wait_until(shown, Duration::from_secs(20)).expect("it shows");
        let file = format!("../target/screenshots/{name}-{}.png", if dark { "dark" } else { "light" });
        let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        browser.picture(&picture).expect("a picture");
        let bytes = picture.metadata().expect("a file").len();
        assert!(bytes > PICTURE_MIN_BYTES, "{} has {bytes} bytes", picture.display());
    }
}

/// Runs the demo until it serves on, which it does only if its capture was right.
fn demo(data: &Path, under: &[&str]) -> Program {
    let args = ["up", "--demo", "--keep", "--data", &data.display().to_string()].map(str::to_owned).into();
    let under = under.iter().map(|word| (*word).to_owned()).collect();
    let began = Instant::now();
    let options = ProgramOptions { args, under, ..ProgramOptions::default() };
    let mut program = Program::start(&binary("brisq").expect("brisq"), options).expect("the demo starts");
    while !program.log().contains("serving on until") {
        let goes_on = program.process().is_running() && began.elapsed() < DEMO_MAX;
        assert!(goes_on, "it ended, or takes too long:\n{}", program.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("{}the demo took {:.0} s", program.log(), began.elapsed().as_secs_f64());
    program
}

/// Calm is another one there, and so is what is slow.
#[test]
fn the_demo_is_right_on_a_slow_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let inject = format!("inject=fdatasync:delay_enter={SLOW_SYNC_US}");
    let strace =
        ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject];
    demo(&folder.path().join("data"), &strace);
}

#[test]
fn the_demo_names_its_slowdown_and_shows_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut program = demo(&data, &[]);
    let capture = capture(&data);
    check_bundle(&capture);
    check_profiles(&capture);

    let page = format!("http://{}/", program.listen);
    let relative = capture.strip_prefix(&data).expect("below the data").display().to_string();
    let _load = load(&program, &["--rate", "100", "--queue", "emails"]).expect("a load");
    let mut browser = Browser::start().expect("a browser");
    // The page follows the server: its line of P99 grows by a point a second.
    let drawn = "document.querySelector('#p99').getAttribute('points').split(' ').length > 4";
    let listed =
        "document.body.innerText.includes('CpuInLongPoll') && document.body.innerText.includes('demo')";
    browse(&mut browser, &page, "page", &format!("{drawn} && {listed}"));
    let report = format!("{page}{relative}/report.html");
    let named = "document.body.innerText.includes('rank_all_candidates') && document.querySelectorAll('svg').length > 4";
    browse(&mut browser, &report, "report", named);
    let width =
        browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth").expect("a width");
    assert_eq!(width, true, "the report fits its window");
    let mut http = Http::connect(&program.listen).expect("a connection");
    let answer = http.call("GET", "/captures/../queue.redb", "").expect("an answer");
    assert_eq!(answer.status, 404);
    // Ctrl-C drains, load or not.
    program.process().signal("INT").expect("a signal");
    let status = program.process().wait(DRAIN_MAX).expect("it ends");
    assert!(status.success() && program.log().ends_with("draining\n"), "{status}: {}", program.log());
}

#[test]
fn up_takes_the_manifest_of_a_cluster_and_says_what_it_ignores() {
    let manifest =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/orders.yaml"));
    let up = Up::start(Vec::new(), false, &manifest.expect("the example")).expect("brisq up");
    let log = up.program.log();
    for line in [
        "objective  p99<5ms of claim latency",
        "ignored    spec.replicas:",
        "ignored    spec.redis.standalone:",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    let slo = Http::connect(&up.program.admin).and_then(|mut admin| admin.call("GET", "/debug/slo", ""));
    assert_eq!(slo.expect("an answer").json()["thresholdUs"], 5_000);
}
