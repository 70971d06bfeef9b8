//! What Redis does to claims, and the name that it gets.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use brisq_e2e::{Server, Store, load};
use brisq_testkit::Redis;
use serde_json::Value;

use crate::rig::{Sidecar, json_of, until};

/// What is found when `disturb` is done to Redis, again and again, after a calm time; and the capture's folder.
fn found_with(disturb: impl Fn(&mut Redis)) -> (Sidecar, PathBuf, Value) {
    let objective =
        ["--name", "orders", "--threshold-ms", "50", "--min-samples", "100", "--post-seconds", "3"];
    let sidecar = Sidecar::start(&objective);
    let socket = sidecar.socket();
    let args = ["--profiler-socket", &socket, "--claim-threshold-ms", "50"];
    let mut server = Server::start(Store::Redis, &args).expect("a server");
    // The connections of one queue go in step with Redis' answers; those of several do not, so that some always claim.
    let _loads = ["a", "b", "c"]
        .map(|queue| load(&server.program, &["--queue", queue, "--concurrency", "4"]).expect("a load"));
    sidecar.slo();
    sleep(Duration::from_secs(12));
    assert_eq!(sidecar.captures().len(), 0, "captured while calm");
    let redis = server.redis.as_mut().expect("a Redis");
    let capture = until("a capture", || {
        disturb(redis);
        sidecar.captures().pop()
    });
    assert_eq!(json_of(&capture, "manifest.json")["onsetInside"], true);
    let diagnosis = json_of(&capture, "diagnosis.json");
    (sidecar, capture, diagnosis)
}

/// Stops Redis while it carries no command out: by its own clock one that is stopped half way took as long as the stop, and is
/// rightly named as slow.
fn stop_between_commands(redis: &mut Redis) {
    for _ in 0..1_000 {
        redis.process().signal("STOP").expect("a signal");
        sleep(Duration::from_millis(2));
        // The number of the system call that it is in, or -1: what it does outside of one may be a command.
        let syscall = std::fs::read_to_string(format!("/proc/{}/syscall", redis.process().pid()));
        let syscall = syscall.expect("what Redis is at");
        if syscall.split_whitespace().next().is_some_and(|number| number.parse::<u32>().is_ok()) {
            return;
        }
        redis.process().signal("CONT").expect("a signal");
        sleep(Duration::from_millis(3));
    }
    unreachable!("Redis is idle most of the time");
}

#[test]
fn a_redis_that_is_stopped_again_and_again_is_named() {
    let (_sidecar, _, diagnosis) = found_with(|redis| {
        // Claims in flight when it stops wait with it; those parked on an empty queue would not be late.
        stop_between_commands(redis);
        sleep(Duration::from_millis(4_500));
        redis.process().signal("CONT").expect("a signal");
        sleep(Duration::from_millis(500));
    });
    assert_eq!(diagnosis["cause"], "RedisUnresponsive", "{diagnosis}");
}

#[test]
fn a_slow_command_of_somebody_else_is_named_without_its_arguments() {
    let (_sidecar, capture, diagnosis) = found_with(|redis| {
        let slow = "EVAL \"for i = 1, 1e8 do end\" 1 secret-key secret-payload";
        redis.command(slow).expect("it is only slow");
        sleep(Duration::from_millis(20));
    });
    assert_eq!(diagnosis["cause"], "RedisSlowCommand", "{diagnosis}");
    let reason = diagnosis["reason"].as_str().expect("a reason");
    assert!(reason.contains("EVAL (4 arguments) from 127.0.0.1:"), "{reason}");
    let longest = &json_of(&capture, "redis.json")["slowCommands"][0];
    assert!(longest["durationUs"].as_u64() > Some(50_000), "{longest}");
    let files =
        std::fs::read_dir(&capture).expect("the capture").map(|entry| entry.expect("an entry").path());
    let texts: Vec<Vec<u8>> = files.map(|file| plain(&file)).collect();
    let holds =
        |word: &str| texts.iter().any(|text| text.windows(word.len()).any(|at| at == word.as_bytes()));
    assert!(holds("process_cpu_us_total"), "packed files are searched, too");
    assert!(!holds("secret"), "an argument is in the bundle");
}

/// What a file says, unpacked if it is packed.
fn plain(file: &Path) -> Vec<u8> {
    if file.extension().is_some_and(|extension| extension == "gz") {
        let unpacked = Command::new("gzip").arg("-dc").arg(file).output().expect("gzip runs");
        assert!(unpacked.status.success(), "{}", file.display());
        return unpacked.stdout;
    }
    std::fs::read(file).expect("a file")
}
