//! `kubectl brisq`, as people type it, and what it says to them.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use brisq_testkit::{binary, kubernetes};

use crate::rig::Rig;
use crate::{ORDERS, SOON, all_run};

/// Runs through kubectl, which finds its plugins on the PATH by their names; answers the exit code and all that was said.
fn brisq(kubeconfig: &Path, args: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().expect("a folder");
    symlink(binary("brisq").expect("brisq"), folder.path().join("kubectl-brisq")).expect("a link");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(kubernetes("kubectl").expect("kubectl"));
    command.arg("brisq").args(args).env("PATH", path).env("KUBECONFIG", kubeconfig);
    let output = command.output().expect("it runs");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    println!("$ kubectl brisq {}\n{said}", args.join(" "));
    (output.status.code().expect("an exit code"), said)
}

/// It ends with this code, and says each of these.
fn says(kubeconfig: &Path, args: &[&str], code: i32, parts: &[&str]) -> String {
    let (is, said) = brisq(kubeconfig, args);
    assert_eq!(is, code, "{args:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{args:?} says no {part:?}: {said}");
    }
    said
}

#[test]
fn people_are_told_what_there_is_and_what_is_wrong() {
    let rig = Rig::start();
    let kubeconfig = rig.server().kubeconfig();
    let say = |args: &[&str], code: i32, parts: &[&str]| says(&kubeconfig, args, code, parts);

    // Nothing is there yet.
    say(&["status"], 0, &["no TaskQueue in namespace default"]);
    say(&["captures"], 0, &["no captures in namespace default", "brisq capture QUEUE"]);
    for command in ["status", "capture"] {
        say(&[command, "nobody"], 1, &[r#"brisq: taskqueues.brisq.dev "nobody" not found"#]);
    }
    say(&["open", "nothing"], 1, &[r#"brisq: profilecaptures.brisq.dev "nothing" not found"#]);
    let nobody =
        ["ok     resources", "wrong  operator", "nobody leads", "ok     task queues", "1 of 4 checks failed"];
    say(&["doctor"], 1, &nobody);
    let elsewhere = ["no Lease brisq-operator in namespace shop", "helm install", "--operator-namespace"];
    say(&["doctor", "--operator-namespace", "shop"], 1, &elsewhere);
    let missing = ["none.conf", "No such file"];
    say(&["status", "--kubeconfig", "none.conf"], 1, &missing);

    // What has to do with no cluster.
    let valid = ["orders.yaml: TaskQueue orders is valid"];
    say(&["validate", "-f", "../examples/orders.yaml"], 0, &valid);
    let both = ["document 1: ProfilingPolicy captures is valid", "document 2: TaskQueue orders is valid"];
    say(&["validate", "-f", "../examples/orders-s3.yaml"], 0, &both);
    say(&["validate", "-f", "none.yaml"], 1, &["none.yaml cannot be read"]);
    say(&["-n", "shop", "validate", "-f", "none.yaml"], 2, &["speaks to no cluster"]);

    // An operator, and a TaskQueue whose pods never run here.
    let _operator = rig.operator("a");
    rig.wait_leader("a");
    say(&["doctor"], 0, &["ok     operator     a leads", "none in this namespace"]);
    rig.kubectl.apply(ORDERS).expect("the example");
    let not_ready = |said: String| said.contains("orders: Ready=False: ").then_some(());
    rig.kubectl
        .until("it is told", SOON, |_| not_ready(say(&["status"], 0, &["orders"])))
        .unwrap_or_else(|error| panic!("{error}\n{}", rig.log()));
    say(&["doctor"], 1, &["wrong  task queues  not ready: orders"]);
    for child in [["deployment", "orders"], ["statefulset", "orders-redis"]] {
        rig.kubectl.until("a child", SOON, |kubectl| kubectl.get(&child).ok()).expect("a child");
    }
    all_run(&rig.kubectl, "orders", 2);
    rig.kubectl.run(&["wait", "--for=condition=Ready", "tq/orders", "--timeout=30s"]).expect("ready");
    say(&["doctor"], 0, &["1 in this namespace, all ready"]);
    let head = "NAME     READY   REPLICAS   OBJECTIVE";
    say(&["status", "orders"], 0, &[head, "orders   True    2          p99<5ms"]);

    // Captures, by the name that was told.
    let said = say(&["capture", "orders", "--no-wait"], 0, &["ordered    orders-manual-"]);
    let name = said.split_whitespace().nth(1).expect("a name");
    say(&["captures", "orders"], 0, &[name, "Manual"]);
    say(&["captures", "others"], 0, &["no captures of others in namespace default"]);
    say(&["open", name], 1, &["has no bundle", &format!("kubectl describe pcap {name}")]);
}

#[test]
fn who_may_not_look_is_told_so() {
    let rig = Rig::start();
    rig.kubectl.run(&["create", "serviceaccount", "nobody"]).expect("an account");
    let token = rig.kubectl.run(&["create", "token", "nobody"]).expect("a token");
    let kubeconfig = rig.server().kubeconfig_of("nobody", token.trim()).expect("a kubeconfig");
    let parts = ["ok     resources", "its Lease cannot be looked at", "forbidden", "not allowed to look"];
    let said = says(&kubeconfig, &["doctor"], 1, &parts);
    assert!(!said.contains("helm install"), "nothing is missing: {said}");
    says(&kubeconfig, &["status"], 1, &["cannot list resource"]);

    // And who reaches nobody.
    let text = std::fs::read_to_string(&kubeconfig).expect("a kubeconfig");
    let address = text.split('"').find(|part| part.starts_with("https://")).expect("an address");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let away = kubeconfig.with_file_name("away.conf");
    let to = format!("https://{}", closed.expect("a port"));
    std::fs::write(&away, text.replace(address, &to)).expect("a kubeconfig");
    for command in ["doctor", "status", "captures"] {
        says(&away, &[command], 1, &["brisq: ", "onnect"]);
    }
}
