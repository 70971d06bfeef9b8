//! Queues that a manifest declares: a file that is followed as a kubelet changes it, and the manifest of `brisq up`.

use std::os::unix::fs::symlink;
use std::path::Path;

use brisq_e2e::Up;

use super::*;

/// Looks are two seconds apart.
const SEEN_AFTER: Duration = Duration::from_secs(20);

/// The volume shows this from now on.
fn swap(volume: &Path, version: u32, text: &str) {
    let folder = format!("..{version}");
    std::fs::create_dir(volume.join(&folder)).expect("made");
    std::fs::write(volume.join(&folder).join("queues.yaml"), text).expect("written");
    symlink(&folder, volume.join("..data_tmp")).expect("linked");
    std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("renamed");
}

/// A volume that shows this.
fn volume(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    swap(folder.path(), 1, text);
    symlink("..data/queues.yaml", folder.path().join("queues.yaml")).expect("linked");
    folder
}

fn put(http: &mut Http, queue: &str) -> Answer {
    http.call("PUT", &format!("/v1/queues/{queue}"), r#"{"limits":{"maxInFlight":99}}"#).expect("an answer")
}

fn queue(http: &mut Http, name: &str) -> Value {
    get(http, &format!("/v1/queues/{name}")).json()
}

fn most(http: &mut Http, name: &str) -> Value {
    queue(http, name)["policy"]["limits"]["maxInFlight"].clone()
}

#[track_caller]
fn within(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SEEN_AFTER, "not in {SEEN_AFTER:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_declared_queue_is_changed_by_its_manifest_alone() {
    for store in Store::ALL {
        let first = "epoch: 7\ngeneration: 1\nqueues:\n- {name: a, limits: {maxInFlight: 1}}\n- {name: b, paused: true}\n";
        let volume = volume(first);
        let file = volume.path().join("queues.yaml").display().to_string();
        let server = Server::start(store, &["--queues", &file]).expect("a server");
        let mut http = server.program.http().expect("a connection");
        let http = &mut http;
        let view = queue(http, "a");
        assert_eq!(
            (&view["managedBy"], &view["policy"]["limits"]["maxInFlight"]),
            (&json!("manifest"), &json!(1))
        );
        assert_eq!(queue(http, "b")["paused"]["by"], "manifest");
        let listed = ok(get(http, "/v1/queues"), 200);
        assert_eq!(listed["queues"][0]["managedBy"], "manifest", "{listed}");
        let body = refused(&put(http, "a"), 409, "managed_by_manifest");
        assert_eq!(body["error"]["detail"]["queue"], "a");
        refused(&http.call("DELETE", "/v1/queues/a", "").expect("an answer"), 409, "managed_by_manifest");
        assert_eq!(ok(put(http, "c"), 200).get("managedBy"), None);

        // By hand until the manifest says otherwise than before.
        ok(post(http, "/v1/queues/b/resume", &json!({})), 200);
        ok(post(http, "/v1/queues/a/pause", &json!({"reason": "mine"})), 200);
        swap(
            volume.path(),
            2,
            &first.replace("generation: 1", "generation: 2").replace("maxInFlight: 1", "maxInFlight: 2"),
        );
        within("another limit", || most(http, "a") == 2);
        assert_eq!(queue(http, "a")["paused"]["reason"], "mine");
        assert_eq!(queue(http, "b").get("paused"), None);

        // With mistakes, of before, and of a TaskQueue that was made before: none is taken.
        let refusals = || server.program.log().matches("are not in use").count();
        swap(volume.path(), 3, "epoch: 7\ngeneration: 3\nqueues: [{name: a, limits: {maxInFlight: 0}}]\n");
        within("that it is refused", || refusals() > 0);
        for (version, older) in [(4, "epoch: 7\ngeneration: 1\n"), (5, "epoch: 6\ngeneration: 9\n")] {
            let text = format!(
                "{older}queues:\n- {{name: a, limits: {{maxInFlight: 50}}}}\n- {{name: n{version}}}\n"
            );
            swap(volume.path(), version, &text);
            within("the queue beside it", || queue(http, &format!("n{version}"))["managedBy"] == "manifest");
            assert_eq!(most(http, "a"), 2, "{older}");
        }

        // Taken out it keeps what held, and `PUT` may change it.
        swap(volume.path(), 6, "epoch: 7\ngeneration: 4\nqueues: [{name: b, limits: {maxInFlight: 4}}]\n");
        within("b without a pause", || most(http, "b") == 4);
        assert_eq!((most(http, "a"), queue(http, "a").get("managedBy")), (json!(2), None));
        ok(put(http, "a"), 200);
        refused(&put(http, "b"), 409, "managed_by_manifest");
        swap(volume.path(), 7, "epoch: 8\ngeneration: 1\nqueues: [{name: a, limits: {maxInFlight: 5}}]\n");
        within("a TaskQueue that was made anew", || most(http, "a") == 5);
    }
}

/// Both are told of the change, one by one; one that was stopped over it and comes back with the older file undoes nothing.
#[test]
fn two_servers_of_one_store_follow_whichever_has_the_later_file() {
    let redis = brisq_testkit::Redis::start(brisq_testkit::RedisOptions::default()).expect("a Redis");
    let text = |generation: u32| {
        format!(
            "epoch: 1\ngeneration: {generation}\nqueues: [{{name: a, limits: {{maxInFlight: {generation}}}}}]\n"
        )
    };
    let volumes = [volume(&text(1)), volume(&text(1))];
    let start = |volume: &tempfile::TempDir| {
        let file = volume.path().join("queues.yaml").display().to_string();
        let args = ["--redis", &redis.url(), "--queues", &file].map(str::to_owned).into();
        let options = brisq_testkit::ProgramOptions { args, ..Default::default() };
        let binary = brisq_testkit::binary("brisq-server").expect("a server");
        brisq_testkit::Program::start(&binary, options).expect("a server")
    };
    let servers = volumes.each_ref().map(start);
    let mut https = servers.each_ref().map(|server| server.http().expect("a connection"));
    swap(volumes[0].path(), 2, &text(2));
    within("the change, at both", || https.iter_mut().all(|http| most(http, "a") == 2));
    let [first, second] = servers;
    drop(second);
    let second = start(&volumes[1]);
    let mut of_second = second.http().expect("a connection");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(most(&mut of_second, "a"), 2, "its file is of before");
    swap(volumes[1].path(), 2, &text(3));
    within("the next change", || most(&mut https[0], "a") == 3);
    refused(&put(&mut https[0], "a"), 409, "managed_by_manifest");

    // Between two calls Redis loses all: what is declared is there again without one.
    assert_eq!(redis.command("FLUSHALL").expect("an answer"), "+OK");
    within("it is declared anew", || most(&mut of_second, "a") == 3);
    drop((first, second));
}

#[test]
fn a_file_with_mistakes_keeps_a_server_from_starting() {
    let folder = volume("queues: [{name: a, limits: {burst: 1}}, {name: b, colour: red}]");
    let file = folder.path().join("queues.yaml").display().to_string();
    let server = std::process::Command::new(brisq_testkit::binary("brisq-server").expect("a server"))
        .args(["--data", &folder.path().join("data").display().to_string(), "--queues", &file])
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&server.stderr).into_owned();
    assert_eq!(server.status.code(), Some(2), "{told}");
    assert!(told.contains("queues[0]") && told.contains("queues[1]") && told.contains("`colour`"), "{told}");
}

#[test]
fn up_follows_the_queues_of_its_manifest() {
    let manifest = |spec: &str| {
        format!("apiVersion: brisq.dev/v1alpha1\nkind: TaskQueue\nmetadata: {{name: q}}\nspec: {spec}\n")
    };
    let first = manifest("{queues: [{name: a, limits: {maxInFlight: 1}}, {name: b}]}");
    let up = Up::start(Vec::new(), false, &first).expect("a queue");
    let mut http = up.program.http().expect("a connection");
    let http = &mut http;
    assert_eq!(most(http, "a"), 1);
    refused(&put(http, "b"), 409, "managed_by_manifest");
    up.change(&manifest("{queues: [{name: a, limits: {maxInFlight: 2}, paused: true}]}")).expect("written");
    within("another limit", || most(http, "a") == 2);
    assert_eq!(queue(http, "a")["paused"]["by"], "manifest");
    ok(put(http, "b"), 200);
    up.change(&manifest("{queues: [{name: a, limits: {maxInFlight: 0}}]}")).expect("written");
    within("that it is refused", || up.program.log().contains("is not in use"));
    assert_eq!(most(http, "a"), 2);
    // Of a laptop's manifest nobody counts the generations: what is read last holds.
    up.change(&first).expect("written");
    within("what held at first", || most(http, "a") == 1);
    assert_eq!(queue(http, "a").get("paused"), None);
}
