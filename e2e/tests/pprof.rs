//! `/debug/pprof` as the Go tool opens it, while load runs.

use std::process::Command;
use std::time::Duration;

use brisq_e2e::{Server, Store, load};
use brisq_testkit::{Http, Process};

fn pprof(args: &[&str]) -> String {
    let tool = brisq_testkit::go_tool("pprof").expect("the Go tool pprof");
    // It keeps what it fetches: in a folder of this test's own.
    let kept = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(tool);
    let output = command.args(args).env("PPROF_TMPDIR", kept.path()).output().expect("pprof runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "pprof {args:?}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn under_load() -> (Server, Process) {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let load = load(&server.program, &["--concurrency", "8", "--payload-bytes", "2000"]).expect("a load");
    std::thread::sleep(Duration::from_millis(500));
    (server, load)
}

#[test]
fn pprof_opens_the_cpu_profile_and_lists_our_lines() {
    let (server, _load) = under_load();
    let url = format!("http://{}/debug/pprof/profile?seconds=4", server.program.admin);
    let top = pprof(&["-top", "-cum", "-nodecount=400", &url]);
    println!("{}", top.lines().take(25).collect::<Vec<_>>().join("\n"));
    assert!(top.contains("Type: cpu"), "{top}");
    assert!(top.contains("brisq_"), "functions of ours are named:\n{top}");
    let list = pprof(&["-list", "brisq_store_local", &url]);
    assert!(list.contains("ROUTINE") && list.contains(".rs"), "{list}");
    assert!(list.lines().filter(|line| line.contains("fn ")).count() > 0, "source lines are shown:\n{list}");
}

#[test]
fn pprof_opens_the_heap_profile() {
    let (server, _load) = under_load();
    let url = format!("http://{}/debug/pprof/heap", server.program.admin);
    let top = pprof(&["-top", "-nodecount=400", &url]);
    println!("{}", top.lines().take(15).collect::<Vec<_>>().join("\n"));
    assert!(top.contains("inuse_space") || top.contains("space"), "{top}");
    assert!(top.lines().count() > 8, "it names who holds memory:\n{top}");
}

#[test]
fn of_the_crate_that_brings_the_format_no_sampler_is_linked() {
    let server = brisq_testkit::binary("brisq-server").expect("brisq-server");
    let output = Command::new("nm").arg(server).output().expect("nm runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let symbols = String::from_utf8_lossy(&output.stdout);
    assert!(symbols.lines().any(|line| line.contains("brisq")), "it has symbols");
    let sampler = symbols.lines().find(|line| line.contains("perf_signal_handler"));
    assert_eq!(sampler, None, "its signal handler deadlocks servers");
}

#[test]
fn a_bad_duration_is_refused() {
    let server = Server::start(Store::Embedded, &[]).expect("a server");
    let mut admin = Http::connect(&server.program.admin).expect("a connection");
    for seconds in ["0", "121", "x"] {
        let answer =
            admin.call("GET", &format!("/debug/pprof/profile?seconds={seconds}"), "").expect("an answer");
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (400, &"invalid_field".into()),
            "{seconds}"
        );
    }
}
