//! The parts of one round, and what can be done to them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use brisq_testkit::{Forwarder, Http, Process, Program, ProgramOptions, Redis, RedisOptions, binary};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clients::{LEASE_MS, QUEUE};
use crate::draw::{Dice, Kind, Load, Plan, What};

/// How soon everything works again once all faults are over.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// Servers, what they work on, and who stands between.
pub struct Rig {
    pub kind: Kind,
    pub redis: Option<Redis>,
    /// From the servers to Redis.
    link: Option<Forwarder>,
    pub programs: Vec<Program>,
    /// From clients to each server.
    pub doors: Vec<Forwarder>,
    clock: Option<Clock>,
    disk: Option<Disk>,
    _folder: TempDir,
}

/// A wall clock that a test sets for programs that it starts.
struct Clock {
    /// Seconds that it is ahead, as 8 bytes that the programs map.
    file: PathBuf,
    library: PathBuf,
    ahead_s: i64,
}

impl Clock {
    fn new(folder: &Path) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/clock/clock.c");
        let library = folder.join("clock.so");
        let mut compile = Command::new("gcc");
        compile.args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        assert!(compile.status().is_ok_and(|status| status.success()), "gcc makes no clock");
        let clock = Self { file: folder.join("clock"), library, ahead_s: 0 };
        clock.write();
        clock
    }

    fn write(&self) {
        let mut options = std::fs::File::options();
        let mut file = options.create(true).truncate(false).write(true).open(&self.file).expect("a file");
        file.write_all(&self.ahead_s.to_ne_bytes()).expect("written");
    }

    fn environment(&self) -> Vec<(String, String)> {
        let variables = [("LD_PRELOAD", &self.library), ("BRISQ_TEST_CLOCK", &self.file)];
        variables.map(|(name, path)| (name.to_owned(), path.display().to_string())).into()
    }
}

/// A small disk in a mount namespace, which lives as long as a process in it that sleeps.
struct Disk {
    holder: Process,
    folder: PathBuf,
}

impl Disk {
    fn new(folder: &Path) -> Self {
        let script = r#"mount -t tmpfs -o size=40m tmpfs "$1" && echo there && exec sleep 1000"#;
        let mut command = Command::new("unshare");
        command.args(["-rm", "bash", "-c", script, "bash"]).arg(folder);
        let mut holder = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a namespace");
        let mut told = [0; 5];
        let mut out = holder.stdout.take().expect("piped");
        std::io::Read::read_exact(&mut out, &mut told).expect("the disk is mounted");
        Self { holder: holder.into(), folder: folder.to_path_buf() }
    }

    fn under(&self) -> Vec<String> {
        let pid = self.holder.pid().to_string();
        ["nsenter", "-t", &pid, "-U", "-m", "--preserve-credentials", "--"].map(str::to_owned).into()
    }

    fn filler(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        root.join(self.folder.strip_prefix("/").unwrap_or(&self.folder)).join("filler")
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("a file");
        while file.write_all(&[b'x'; 4_096]).is_ok() {}
    }
}

impl Rig {
    pub fn start(plan: &Plan) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let planned = |what: &[What]| plan.faults.iter().any(|(_, fault)| what.contains(fault));
        let clock = planned(&[What::StepAhead, What::StepBack]).then(|| Clock::new(folder.path()));
        let env = clock.as_ref().map(Clock::environment).unwrap_or_default();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        let disk = planned(&[What::DiskFull]).then(|| Disk::new(&data));
        let redis = plan.kind.on_redis().then(|| {
            let appendfsync = if plan.kind == Kind::Always { "always" } else { "everysec" };
            let options = RedisOptions { appendfsync, env: env.clone(), ..RedisOptions::default() };
            Redis::start(options).expect("a Redis")
        });
        let link = redis.as_ref().map(|redis| Forwarder::to(redis.port()).expect("a port"));
        let mut args = match &link {
            Some(link) => vec!["--redis".to_owned(), format!("redis://127.0.0.1:{}", link.port())],
            None => vec!["--data".to_owned(), data.join("brisq").display().to_string()],
        };
        if plan.kind == Kind::Relaxed {
            args.extend(["--durability", "relaxed"].map(str::to_owned));
        }
        let under = disk.as_ref().map(Disk::under).unwrap_or_default();
        let options = ProgramOptions { args, env, under };
        let server =
            || Program::start(&binary("brisq-server").expect("built"), options.clone()).expect("a server");
        let programs: Vec<Program> = (0..plan.servers).map(|_| server()).collect();
        let doors = programs.iter().map(|program| Forwarder::to(port(program)).expect("a port")).collect();
        let mut rig = Self { kind: plan.kind, redis, link, programs, doors, clock, disk, _folder: folder };
        rig.govern(&plan.load);
        rig
    }

    /// Sets the queue's policy so that no fault can undo it.
    fn govern(&mut self, load: &Load) {
        let rules = load.rules;
        let mut limits = json!({});
        if let Some(most) = rules.in_flight {
            limits["maxInFlight"] = json!(most);
        }
        if let Some(pace) = rules.pace {
            (limits["perSecond"], limits["burst"]) = (json!(pace.per_second), json!(pace.burst));
        }
        if load.limit_keys > 0 {
            let mut rule = json!({"match": "l*"});
            if let Some(most) = rules.key_in_flight {
                rule["maxInFlight"] = json!(most);
            }
            if let Some(pace) = rules.key_pace {
                (rule["perSecond"], rule["burst"]) = (json!(pace.per_second), json!(pace.burst));
            }
            limits["keys"] = json!([rule]);
        }
        let retry = json!({"policy": "fixed", "delayMs": 30, "jitter": 0});
        // Longer than a clock is ever set ahead.
        let retention = json!({"completedMs": 86_400_000});
        let policy = json!({"maxExpiries": 100, "retry": retry, "limits": limits, "retention": retention});
        let mut http = self.programs[0].http().expect("a connection");
        let answer =
            http.call("PUT", &format!("/v1/queues/{QUEUE}"), &policy.to_string()).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        if self.kind == Kind::Relaxed {
            // A stop syncs.
            self.programs[0].process().signal("TERM").expect("sent");
            self.programs[0].process().wait(BACK_WITHIN).expect("it ends");
            self.restart(0);
        }
    }

    fn restart(&mut self, server: usize) {
        self.programs[server].restart().expect("the server comes back");
        self.doors[server].turn_to(port(&self.programs[server]));
    }

    /// Does it, and undoes it where it does not last until all faults are over.
    pub fn apply(&mut self, what: What, dice: &mut Dice) {
        let server = dice.roll(self.programs.len() as u64) as usize;
        let past_the_lease = Duration::from_millis(LEASE_MS + 200);
        let moment = Duration::from_millis(50 + dice.roll(250));
        match what {
            What::KillServer => {
                self.programs[server].kill9();
                sleep(moment);
                self.restart(server);
            }
            What::StopServer => {
                // By its own number: under another command it is not the child.
                signal(self.programs[server].pid, "STOP");
                sleep(past_the_lease);
                signal(self.programs[server].pid, "CONT");
            }
            What::CutClients => {
                for _ in 0..4 {
                    self.doors.iter().for_each(Forwarder::cut);
                    sleep(Duration::from_millis(60));
                }
            }
            What::CutRedis => {
                for _ in 0..4 {
                    self.link().cut();
                    sleep(Duration::from_millis(60));
                }
            }
            What::DelayClients => self.doors[server].delay(Duration::from_millis(5 + dice.roll(80))),
            What::DelayRedis => self.link().delay(Duration::from_millis(2 + dice.roll(30))),
            What::StepAhead => self.set_clock(dice.of(&[3, 90, 4_000])),
            What::StepBack => self.set_clock(dice.of(&[-3, -90, -4_000])),
            What::MemoryFull => {
                let redis = self.redis.as_ref().expect("a Redis");
                redis.command("CONFIG SET maxmemory 1mb").expect("an answer");
                // The server looks once a second.
                sleep(Duration::from_millis(1_300));
                redis.command("CONFIG SET maxmemory 0").expect("an answer");
            }
            What::DiskFull => {
                let disk = self.disk.as_ref().expect("a disk");
                disk.fill();
                sleep(Duration::from_millis(900));
                std::fs::remove_file(disk.filler()).expect("removed");
            }
            What::StopRedis => {
                let redis = self.redis.as_ref().expect("a Redis");
                redis.signal("STOP").expect("sent");
                sleep(past_the_lease);
                redis.signal("CONT").expect("sent");
            }
            What::KillRedis | What::PowerCut => {
                let redis = self.redis.as_mut().expect("a Redis");
                let kept = (what == What::PowerCut).then(|| redis.log_bytes().expect("a log"));
                if kept.is_some() {
                    sleep(Duration::from_millis(200 + dice.roll(700)));
                }
                redis.kill9();
                if let Some(bytes) = kept {
                    redis.cut_log(bytes).expect("cut");
                }
                sleep(moment);
                redis.restart().expect("Redis comes back");
            }
        }
    }

    fn link(&self) -> &Forwarder {
        self.link.as_ref().expect("a Redis")
    }

    fn set_clock(&mut self, by_s: i64) {
        let clock = self.clock.as_mut().expect("a clock that can be set");
        clock.ahead_s += by_s;
        clock.write();
        sleep(Duration::from_millis(300));
    }

    /// Ends what lasts, and waits until all servers work.
    pub fn heal(&self) {
        self.doors.iter().chain(&self.link).for_each(|link| link.delay(Duration::ZERO));
        let deadline = Instant::now() + BACK_WITHIN;
        for program in &self.programs {
            let ready = || program.http().and_then(|mut http| http.call("GET", "/readyz", ""));
            while !ready().is_ok_and(|answer| answer.status == 200) {
                assert!(Instant::now() < deadline, "a server does not come back:\n{}", program.log());
                sleep(Duration::from_millis(20));
            }
        }
    }

    /// What a server answers to a read.
    pub fn read(&self, path: &str) -> (u16, Value) {
        let deadline = Instant::now() + BACK_WITHIN;
        loop {
            let answer = self.programs[0].http().and_then(|mut http| http.call("GET", path, ""));
            match answer {
                Ok(answer) if answer.status < 500 => return (answer.status, answer.json()),
                other => assert!(Instant::now() < deadline, "{path}: {other:?}"),
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Tasks that have not ended.
    pub fn left(&self) -> u64 {
        let (_, queue) = self.read(&format!("/v1/queues/{QUEUE}"));
        let counts = &queue["counts"];
        ["ready", "delayed", "blocked", "leased"].iter().filter_map(|state| counts[state].as_u64()).sum()
    }
}

fn port(program: &Program) -> u16 {
    let port = program.listen.rsplit(':').next().and_then(|port| port.parse().ok());
    port.expect("an address with a port")
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}

/// A connection that reads many answers.
pub fn reader(program: &Program) -> Http {
    program.http().expect("a connection")
}
