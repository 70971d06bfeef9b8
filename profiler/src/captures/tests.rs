use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use brisq_profiler::{ProfilerConfig, Settings};
use brisq_recorder::wire::{Hello, PROTOCOL_VERSION};
use brisq_slo::CaptureLimits;
use tempfile::TempDir;

use super::*;

const BEGAN_MS: u64 = 1_800_000_000_000;
const SETTINGS: Settings = Settings { pre_seconds: 10, post_seconds: 5, suspended: false };
const SOON: Duration = Duration::from_secs(10);

fn rig() -> (TempDir, Arc<Captures>) {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::folder(folder.path(), "captures").unwrap();
    (folder, Arc::new(Captures::new(artifacts, Followed { objective: None, settings: SETTINGS })))
}

/// A server that connects; it ends when its frames do.
fn server(captures: &Arc<Captures>, pid: u32) -> SyncSender<Arc<Frame>> {
    server_with(captures, pid, None)
}

/// One that would say goodbye.
fn server_with(
    captures: &Arc<Captures>,
    pid: u32,
    goodbye: Option<Arc<AtomicBool>>,
) -> SyncSender<Arc<Frame>> {
    let (frames, watched) = sync_channel(0);
    let of_events = Arc::clone(captures);
    let config = ProfilerConfig {
        name: "orders".to_owned(),
        artifacts: captures.artifacts.clone(),
        managed: true,
        objective: None,
        limits: CaptureLimits::default(),
        pre_seconds: 10,
        post_seconds: 5,
        goodbye,
        on_event: Arc::new(move |event| of_events.note(event)),
    };
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        pid,
        started_ms: BEGAN_MS,
        cpus: 1.0,
        runtime_workers: 1,
        ..Hello::default()
    };
    captures.watch((pid, BEGAN_MS), Profiler::start(hello, watched, config).unwrap());
    frames
}

fn second(n: u64) -> Arc<Frame> {
    let (from, uptime_ms) = (n * 1_000, (n + 1) * 1_000);
    Arc::new(Frame { from_ms: BEGAN_MS + from, to_ms: BEGAN_MS + uptime_ms, uptime_ms, ..Frame::default() })
}

/// The window from one second to another.
fn window(name: &str, from: u64, to: u64) -> CaptureOrder {
    CaptureOrder {
        name: name.to_owned(),
        reason: "Manual".to_owned(),
        from_ms: BEGAN_MS + from * 1_000,
        to_ms: BEGAN_MS + to * 1_000,
        onset_ms: None,
        part: Part::Whole { pods: Vec::new() },
    }
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < SOON, "never");
        sleep(Duration::from_millis(10));
    }
}

fn complete(captures: &Captures, name: &str) -> CaptureProgress {
    until(|| captures.get(name).filter(|capture| capture.phase == CapturePhase::Complete))
}

#[test]
fn a_server_that_has_ended_takes_no_orders_and_the_next_one_does() {
    let (_folder, captures) = rig();
    assert_eq!(captures.order(window("a", 0, 2)), Err(Refused::Over));
    let first = server(&captures, 1);
    first.send(second(0)).unwrap();
    until(|| captures.slo());
    drop(first);
    until(|| captures.slo().is_none().then_some(()));
    assert_eq!(captures.order(window("a", 0, 2)), Err(Refused::Over));
    assert_eq!(captures.get("a"), None);
    let next = server(&captures, 2);
    next.send(second(10)).unwrap();
    assert_eq!(captures.order(window("a", 10, 12)).unwrap().phase, CapturePhase::Requested);
    (11..13).for_each(|n| next.send(second(n)).unwrap());
    assert_eq!(complete(&captures, "a").covered, Some(true));
}

#[test]
fn an_order_that_its_server_leaves_behind_is_forgotten_and_can_be_given_again() {
    let (_folder, captures) = rig();
    // Without a frame there is nothing to capture yet.
    let first = server(&captures, 1);
    assert_eq!(captures.order(window("a", 10, 12)).unwrap().phase, CapturePhase::Requested);
    assert_eq!(captures.get("a").unwrap().phase, CapturePhase::Requested);
    drop(first);
    until(|| captures.get("a").is_none().then_some(()));
    assert_eq!(captures.order(window("a", 10, 12)), Err(Refused::Over));
    let next = server(&captures, 2);
    assert_eq!(captures.order(window("a", 10, 12)).unwrap().phase, CapturePhase::Requested);
    (10..13).for_each(|n| next.send(second(n)).unwrap());
    complete(&captures, "a");
}

#[test]
fn an_order_that_waits_gets_what_there_is_when_its_server_ends() {
    let (_folder, captures) = rig();
    let frames = server(&captures, 1);
    (0..3).for_each(|n| frames.send(second(n)).unwrap());
    captures.order(window("a", 0, 60)).unwrap();
    drop(frames);
    assert_eq!(complete(&captures, "a").covered, Some(false));
}

#[test]
fn one_capture_too_many_is_refused_for_now_and_has_not_failed() {
    let (_folder, captures) = rig();
    let frames = server(&captures, 1);
    let names: Vec<String> = (0..9).map(|n| format!("a-{n}")).collect();
    let (last, first) = names.split_last().unwrap();
    for name in first {
        captures.order(window(name, 0, 1)).unwrap();
    }
    assert_eq!(captures.order(window(last, 0, 1)), Err(Refused::Full));
    assert_eq!(captures.get(last), None);
    // Asking for one of those that wait takes no place.
    assert_eq!(captures.order(window(&first[0], 0, 1)).unwrap().phase, CapturePhase::Requested);
    frames.send(second(0)).unwrap();
    first.iter().for_each(|name| drop(complete(&captures, name)));
    captures.order(window(last, 0, 1)).unwrap();
    complete(&captures, last);
}

#[test]
fn the_same_name_with_another_window_is_another_capture() {
    let (_folder, captures) = rig();
    let frames = server(&captures, 1);
    (0..10).for_each(|n| frames.send(second(n)).unwrap());
    captures.order(window("a", 0, 4)).unwrap();
    let first = complete(&captures, "a");
    assert_eq!(captures.order(window("a", 0, 4)).unwrap(), first);
    assert_eq!(captures.order(window("a", 2, 6)).unwrap().phase, CapturePhase::Requested);
    let second_one = complete(&captures, "a");
    assert_ne!(second_one.folder, first.folder);
    // One that is still being made keeps its name.
    captures.order(window("a", 5, 60)).unwrap();
    assert_eq!(captures.order(window("a", 6, 60)), Err(Refused::Full));
}

#[test]
fn a_capture_waits_for_one_of_few_writers() {
    let (folder, captures) = rig();
    let frames = server(&captures, 1);
    (0..3).for_each(|n| frames.send(second(n)).unwrap());
    for name in ["a-1", "a-2", "a-3"] {
        let part = Part::Whole { pods: vec!["b".to_owned()] };
        captures.order(CaptureOrder { part, ..window(name, 0, 2) }).unwrap();
    }
    captures.order(window("a-4", 0, 2)).unwrap();
    until(|| captures.get("a-4").filter(|capture| capture.phase == CapturePhase::Recorded));
    sleep(Duration::from_millis(500));
    assert_eq!(captures.get("a-4").unwrap().phase, CapturePhase::Recorded, "the others still wait for a pod");
    // The first that is done gives its place away; the rest would wait for a minute.
    for name in ["a-2", "a-1", "a-3"] {
        let of_pod = folder.path().join(format!("captures/2027-01-15/{name}/pods/b"));
        std::fs::create_dir_all(&of_pod).unwrap();
        std::fs::write(of_pod.join("pod.json"), r#"{"files":[],"covered":true}"#).unwrap();
        complete(&captures, name);
        complete(&captures, "a-4");
    }
}

#[test]
fn a_window_is_covered_only_without_a_hole_and_to_its_end() {
    let (_folder, captures) = rig();
    let frames = server(&captures, 1);
    // Of four minutes, twice the ring.
    captures.order(window("long", 0, 240)).unwrap();
    (0..240).for_each(|n| frames.send(second(n)).unwrap());
    assert_eq!(complete(&captures, "long").covered, Some(true));
    (240..250).chain(253..260).for_each(|n| frames.send(second(n)).unwrap());
    captures.order(window("hole", 241, 259)).unwrap();
    assert_eq!(complete(&captures, "hole").covered, Some(false));
}

#[test]
fn a_bundle_covers_no_more_than_the_files_of_its_pods() {
    let (folder, captures) = rig();
    let of_pod = folder.path().join("captures/2027-01-15/a/pods/b");
    std::fs::create_dir_all(&of_pod).unwrap();
    std::fs::write(of_pod.join("pod.json"), r#"{"files":[],"covered":false}"#).unwrap();
    let frames = server(&captures, 1);
    (0..3).for_each(|n| frames.send(second(n)).unwrap());
    captures
        .order(CaptureOrder { part: Part::Whole { pods: vec!["b".to_owned()] }, ..window("a", 0, 2) })
        .unwrap();
    let done = complete(&captures, "a");
    assert_eq!((done.covered, done.missing_pods.len()), (Some(false), 0));
}

#[test]
fn a_capture_without_an_onset_is_compared_with_the_time_before_it_or_with_nothing() {
    let (_folder, captures) = rig();
    let frames = server(&captures, 1);
    (0..10).for_each(|n| frames.send(second(n)).unwrap());
    for (name, from, compared) in [("since-the-start", 0, false), ("later", 5, true)] {
        captures.order(window(name, from, 9)).unwrap();
        let files = complete(&captures, name).files;
        assert_eq!(files.iter().any(|file| file.name == "baseline.pb.gz"), compared, "{name}");
    }
}

fn folders(of: &TempDir) -> Vec<String> {
    let entries = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let captures = entries(of.path().join("captures")).flat_map(entries);
    captures.map(|folder| folder.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_server_that_lost_its_connection_goes_on_where_it_was_and_leaves_no_black_box() {
    let (folder, captures) = rig();
    let first = server_with(&captures, 1, Some(Arc::default()));
    (0..5).for_each(|n| first.send(second(n)).unwrap());
    drop(first);
    let connection = || {
        let (frames, watched) = sync_channel(0);
        let goodbye = Arc::new(AtomicBool::new(false));
        (frames, (watched, Arc::clone(&goodbye)), goodbye)
    };
    let (_, of_another, _) = connection();
    assert!(captures.go_on((2, BEGAN_MS), of_another).is_err());
    let (again, of_same, goodbye) = connection();
    assert!(captures.go_on((1, BEGAN_MS), of_same).is_ok());
    (6..10).for_each(|n| again.send(second(n)).unwrap());
    captures.order(window("a", 0, 10)).unwrap();
    assert_eq!(complete(&captures, "a").covered, Some(true), "the rings are those of before");
    goodbye.store(true, std::sync::atomic::Ordering::SeqCst);
    drop(again);
    until(|| captures.slo().is_none().then_some(()));
    captures.end();
    assert_eq!(folders(&folder), ["a"]);
}

#[test]
fn a_crash_loop_leaves_a_few_black_boxes_a_day() {
    let (folder, captures) = rig();
    for pid in 1..9 {
        let frames = server_with(&captures, pid, Some(Arc::default()));
        frames.send(second(pid.into())).unwrap();
        frames.send(second(u64::from(pid) + 1)).unwrap();
        drop(frames);
        sleep(Duration::from_millis(300));
    }
    captures.end();
    assert_eq!(folders(&folder).len(), 5, "{:?}", folders(&folder));
}

#[test]
fn a_suspended_sidecar_captures_what_is_asked_for_and_nothing_else() {
    let (folder, captures) = rig();
    captures.follow(Followed { objective: None, settings: Settings { suspended: true, ..SETTINGS } });
    let frames = server_with(&captures, 1, Some(Arc::default()));
    (0..3).for_each(|n| frames.send(second(n)).unwrap());
    captures.order(window("a", 0, 2)).unwrap();
    complete(&captures, "a");
    drop(frames);
    captures.end();
    assert_eq!(folders(&folder), ["a"], "no black box");
}
