//! Memory of the server on the embedded store.

use anyhow::ensure;
use brisq_client::{Connection, Target};

use crate::Span;
use crate::http::{Server, client};
use crate::table::Table;

/// Tasks of one call.
const BATCH: u64 = 1_000;

pub fn run(span: Span, table: &mut Table) -> anyhow::Result<()> {
    let runtime = client()?;
    let server = Server::embedded(&[])?;
    let idle = server.resident_bytes()?;
    runtime.block_on(async {
        let mut connection =
            Connection::new(&Target::new(&format!("http://{}", server.program.listen), None)?);
        let tasks = vec![r#"{"payload":"xxxxxxxxxxxxxxxx"}"#; BATCH as usize].join(",");
        let body = format!(r#"{{"tasks":[{tasks}]}}"#);
        for _ in 0..span.many / BATCH {
            connection.call("POST", "/v1/queues/bench/tasks", body.as_bytes()).await?;
        }
        let ready: u64 = connection.queues().await?.iter().map(|queue| queue.counts.ready).sum();
        ensure!(ready == span.many, "{ready} of {} tasks are ready", span.many);
        anyhow::Ok(())
    })?;
    let full = server.resident_bytes()?;
    table.add(
        "memory of the server",
        &format!("embedded, {} tasks queued", span.many),
        &[
            ("idle MB", idle as f64 / 1e6),
            ("full MB", full as f64 / 1e6),
            ("bytes/task", (full - idle) as f64 / span.many as f64),
        ],
    );
    Ok(())
}
