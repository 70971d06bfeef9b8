//! What holds for every program: its first line is its own, a log that nobody reads and a hang-up end none of them, and
//! help shows nothing of the environment.

use super::*;

/// A program that serves, and what it is started with beside a ready file and free ports.
type Serving = (&'static str, &'static str, fn(&Path) -> Vec<String>);

fn under(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

const SERVING: [Serving; 3] = [
    ("brisq-server", "brisq-server starts", |folder| vec!["--data".into(), under(folder, "data")]),
    ("brisq-profiler", "brisq-profiler starts", |folder| {
        vec!["--data".into(), under(folder, "data"), "--socket".into(), under(folder, "socket")]
    }),
    ("brisq", "page ", |folder| vec!["up".into(), "--data".into(), under(folder, "data")]),
];

fn spawn((name, _, args): Serving, folder: &Path, to: Stdio, errors: Stdio) -> Process {
    let ready = folder.join("ready.json");
    let mut command = Command::new(binary(name).expect("built"));
    command.args(args(folder)).args(["--listen", "127.0.0.1:0"]);
    if name != "brisq-profiler" {
        command.args(["--admin-listen", "127.0.0.1:0"]);
    }
    command.arg("--ready-file").arg(&ready).stdin(Stdio::null()).stdout(to).stderr(errors);
    let process = Process::spawn(&mut command).expect("starts");
    within(Duration::from_secs(30), name, || ready.exists());
    process
}

#[test]
fn the_first_line_of_every_program_is_its_own() {
    for serving in SERVING {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let to = || File::options().create(true).append(true).open(&log).expect("a log");
        let _process = spawn(serving, folder.path(), to().into(), to().into());
        let said = std::fs::read_to_string(&log).expect("a log");
        let first = said.lines().next().expect("a line");
        let json: Value = serde_json::from_str(first).unwrap_or_default();
        let message = json["message"].as_str().unwrap_or(first);
        assert!(message.starts_with(serving.1), "{}: {said}", serving.0);
    }
    let server = Server::start(Store::Redis, &[]).expect("a server");
    within(Duration::from_secs(5), "a line", || server.program.log().contains('\n'));
    let first: Value =
        serde_json::from_str(server.program.log().lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["message"], "brisq-server starts", "{}", server.program.log());
}

#[test]
fn a_closed_pipe_and_a_hangup_end_no_program() {
    for serving in SERVING {
        let folder = tempfile::tempdir().expect("a folder");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let other = writer.try_clone().expect("a pipe");
        drop(reader);
        let mut process = spawn(serving, folder.path(), other.into(), writer.into());
        let ready = std::fs::read(folder.path().join("ready.json")).expect("read");
        let ready: Value = serde_json::from_slice(&ready).expect("JSON");
        let listen = ready["listen"].as_str().expect("an address").to_owned();
        process.signal("HUP").expect("sent");
        std::thread::sleep(Duration::from_millis(500));
        let mut http = Http::connect(&listen).expect("a connection");
        assert_eq!(http.call("GET", "/healthz", "").expect("an answer").status, 200, "{}", serving.0);
        process.signal("TERM").expect("sent");
        let status = process.wait(Duration::from_secs(20)).expect("ends");
        assert_eq!(status.code(), Some(0), "{}", serving.0);
    }
}

#[test]
fn no_help_and_no_mistake_of_any_program_shows_a_secret() {
    let variables = [
        "REDIS",
        "TOKENS",
        "S3_ENDPOINT",
        "S3_BUCKET",
        "TOKEN_FILE",
        "TOKEN",
        "URL",
        "IMAGE",
        "DATA",
        "LISTEN",
    ];
    let names = variables.map(|name| format!("BRISQ_{name}"));
    let env: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "redis://u:hunter2@h")).collect();
    for (program, args, code) in [
        ("brisq-server", &["--help"][..], 0),
        ("brisq-profiler", &["--help"], 0),
        ("brisq-operator", &["--help"], 0),
        ("brisq", &["--help"], 0),
        ("brisq", &["up", "--help"], 0),
        ("brisq", &["load", "--help"], 0),
        ("brisq", &["help", "load"], 0),
        ("brisq-profiler", &["redis://u:hunter2@h"], 2),
        ("brisq-operator", &["redis://u:hunter2@h"], 2),
        ("brisq", &["up", "redis://u:hunter2@h"], 2),
    ] {
        let output = run(program, args, if code == 0 { &env } else { &[] });
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert_eq!(output.status.code(), Some(code), "{program} {args:?}: {text}");
        assert!(!text.is_empty() && !text.contains("hunter2"), "{program} {args:?}: {text}");
    }
}
