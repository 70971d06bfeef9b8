//! Real parts for tests: programs of ours and of others as child processes on free ports, and a plain HTTP client.
//!
//! Whatever is started here ends with the value that stands for it, by its process id.
#![forbid(unsafe_code)]

mod api_server;
mod browser;
mod cgroup;
mod etcd;
mod forwarder;
mod http;
mod kubectl;
mod process;
mod program;
mod redis;
mod seeds;
mod tools;

pub use api_server::{ApiServer, Objects, Request};
pub use browser::Browser;
pub use cgroup::CpuGroup;
pub use forwarder::Forwarder;
pub use http::{Answer, Http};
pub use kubectl::Kubectl;
pub use process::{Process, peak_bytes};
pub use program::{Program, ProgramOptions, binary};
pub use redis::{Redis, RedisOptions};
pub use seeds::seeds;
pub use tools::{cache, cargo_tool, go_tool, kubernetes, wheel_tool};
