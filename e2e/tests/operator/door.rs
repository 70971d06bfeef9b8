//! The operator as a process: its log, its signals, and the listener that a kubelet probes.

use std::net::TcpListener;

use brisq_e2e::crowd;
use brisq_testkit::Process;

use crate::*;

#[test]
fn clients_hangups_and_a_log_that_nobody_reads_end_no_operator() {
    let rig = Rig::start();
    let mut first = rig.operator("a");
    rig.wait_leader("a");
    let log = rig.log();
    let line: Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    assert_eq!(line["message"], "brisq-operator starts", "the first line is ours: {log}");
    first.signal("TERM").expect("sent");
    assert!(first.wait(SOON).expect("it ends").success());

    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let listen = free.expect("a free port").to_string();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = rig.command("b", &listen);
    command.stdout(writer.try_clone().expect("a pipe")).stderr(writer);
    let mut operator = Process::spawn(&mut command).expect("an operator");
    // Its own end of the pipe goes with the command.
    drop((command, reader));
    rig.wait_leader("b");
    operator.signal("HUP").expect("sent");
    rig.kubectl.apply(ORDERS).expect("the example");
    rig.kubectl
        .until("it works", SOON, |kubectl| kubectl.get(&["deployment", "orders"]).ok())
        .expect("a Deployment");
    let crowded = crowd(&listen, "/metrics").expect("answers");
    assert_eq!((crowded.probe, crowded.other), (200, 503), "{crowded:?}");
    assert!(crowded.told.starts_with("HTTP/1.1 408 "), "{crowded:?}");
    assert!(crowded.after < SOON, "{crowded:?}");
    operator.signal("TERM").expect("sent");
    assert!(operator.wait(SOON).expect("it ends").success());
}
