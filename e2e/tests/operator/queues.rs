//! `spec.queues` of a TaskQueue, down to the servers: no node runs pods here, so a server beside the API server is given the file that
//! a kubelet would show it.

use std::path::Path;

use brisq_e2e::{Server, Store};

use super::*;

/// What a kubelet would write; true once the manifest has come so far.
fn show(kubectl: &Kubectl, file: &Path, has: &str) -> Option<()> {
    let config = kubectl.get(&["configmap", "shop"]).ok()?;
    let text = config["data"]["queues.yaml"].as_str().filter(|text| text.contains(has))?;
    let aside = file.with_extension("new");
    std::fs::write(&aside, text).expect("written");
    std::fs::rename(&aside, file).expect("renamed");
    Some(())
}

#[test]
fn a_change_of_a_queue_reaches_servers_that_run_and_restarts_none() {
    let rig = Rig::start();
    let kubectl = &rig.kubectl;
    let _operator = rig.operator("a");
    let of = |spec: &str| {
        kubectl.apply(&queue("shop", spec)).expect("applied");
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("queues.yaml");
    let shown = |has: &str| {
        kubectl
            .until(has, SOON, |kubectl| show(kubectl, &file, has))
            .unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    };
    of("{queues: [{name: emails, limits: {maxInFlight: 1}}, {name: bills, paused: true}]}");
    shown("\"maxInFlight\":1");
    let deployment = || kubectl.get(&["deployment", "shop"]).expect("a Deployment");
    kubectl
        .until("its servers", SOON, |kubectl| kubectl.get(&["deployment", "shop"]).ok())
        .expect("a Deployment");
    let before = deployment()["metadata"]["generation"].clone();
    let args = deployment()["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(args.contains("--queues=/etc/brisq/config/queues.yaml"), "{args}");

    let path = file.display().to_string();
    let server = Server::start(Store::Embedded, &["--queues", &path]).expect("a server");
    let mut http = server.program.http().expect("a connection");
    let mut view =
        |name: &str| http.call("GET", &format!("/v1/queues/{name}"), "").expect("an answer").json();
    let emails = view("emails");
    assert_eq!(
        (&emails["managedBy"], &emails["policy"]["limits"]["maxInFlight"]),
        (&json!("manifest"), &json!(1))
    );
    assert_eq!(view("bills")["paused"]["by"], "manifest");

    of("{queues: [{name: emails, limits: {maxInFlight: 2}}]}");
    shown("\"maxInFlight\":2");
    let began = Instant::now();
    while view("emails")["policy"]["limits"]["maxInFlight"] != 2 {
        assert!(began.elapsed() < SOON, "{}", server.program.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(view("bills").get("managedBy"), None);
    assert_eq!(deployment()["metadata"]["generation"], before, "no pod is replaced for a queue");
}
