//! Rows of figures, as text and as JSON with the machine they come from.

use std::fmt;
use std::process::Command;

use brisq_telemetry::complain;
use serde::Serialize;
use serde_json::json;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub what: String,
    /// On what, and how.
    pub how: String,
    /// Name and value, in order; the name ends with the unit.
    pub figures: Vec<(&'static str, f64)>,
}

/// All rows of a run.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds a row, and shows it at once: a run takes minutes.
    pub fn add(&mut self, what: &str, how: &str, figures: &[(&'static str, f64)]) {
        let row = Row { what: what.to_owned(), how: how.to_owned(), figures: figures.to_vec() };
        complain(&row.to_string());
        self.rows.push(row);
    }

    /// The rows with machine, version and commit.
    pub fn to_json(&self) -> anyhow::Result<String> {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let figures: serde_json::Map<_, _> =
                    row.figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
                json!({"what": row.what, "how": row.how, "figures": figures})
            })
            .collect();
        let document = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "commit": said("git", &["rev-parse", "HEAD"]),
            "kernel": said("uname", &["-sr"]),
            "cpu": cpu(),
            "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            "rows": rows,
        });
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} {:<34}", self.what, self.how)?;
        for (name, value) in &self.figures {
            let digits = if value.abs() >= 100.0 { 0 } else { 3 };
            write!(f, "  {name} {value:.digits$}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

/// What a program prints; empty where there is none.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or_else(String::new, |model| model.trim_start_matches(['\t', ' ', ':']).to_owned())
}
