use std::path::{Component, Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use brisq_api::sidecar::{FileEntry, Manifest};
use brisq_crd::ProfileCapture;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::sidecar::Sidecar;
use super::{Where, say_partial};

#[derive(clap::Args)]
pub struct Flags {
    /// ProfileCapture to fetch
    capture: String,
    /// Folder to write it to; made if absent [default: ./CAPTURE]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    #[command(flatten)]
    at: Where,
}

/// The content that came is the one that was written.
fn check(file: &FileEntry, content: &[u8]) -> anyhow::Result<()> {
    let FileEntry { name, sha256, bytes } = file;
    let came = content.len();
    ensure!(came as u64 == *bytes, "{name}: {came} bytes came, the manifest says {bytes}: fetch it again");
    let is = HEXLOWER.encode(&Sha256::digest(content));
    ensure!(is == *sha256, "{name}: what came is not what the manifest says (SHA-256 {is}, not {sha256})");
    Ok(())
}

pub async fn run(flags: Flags, before: Where) -> anyhow::Result<()> {
    let cluster = flags.at.or(before).cluster().await?;
    let name = &flags.capture;
    let capture =
        cluster.api::<ProfileCapture>().get(name).await.with_context(|| format!("ProfileCapture {name}"))?;
    let status = capture.status.clone().unwrap_or_default();
    let uri = status
        .uri
        .clone()
        .ok_or_else(|| anyhow!("{name} has no bundle yet: kubectl describe pcap {name}"))?;
    let sidecar = Sidecar::find(&cluster, &capture).await?;
    // `scheme://host/path`: any sidecar of the TaskQueue reads a shared store; one that keeps its own is the author's.
    let folder = uri.splitn(4, '/').nth(3).ok_or_else(|| anyhow!("{uri} is not understood"))?;
    let to = flags.to.unwrap_or_else(|| PathBuf::from(name));
    let manifest = sidecar.get(&format!("{folder}/manifest.json")).await?;
    let files =
        serde_json::from_slice::<Manifest>(&manifest).context("the manifest is not understood")?.files;
    for file in &files {
        let content = sidecar.get(&format!("{folder}/{}", file.name)).await?;
        check(file, &content)?;
        write(&to, &file.name, &content)?;
    }
    write(&to, "manifest.json", &manifest)?;
    brisq_telemetry::say(&format!("cause      {}", status.cause.as_deref().unwrap_or("Unknown")));
    say_partial(&status.conditions);
    brisq_telemetry::say(&format!("from       {uri}"));
    brisq_telemetry::say(&format!("files      {} in {}", files.len() + 1, to.display()));
    brisq_telemetry::say(&format!("report     {}", to.join("report.html").display()));
    brisq_telemetry::say(&format!("profile    go tool pprof -http : {}", to.join("cpu.pb.gz").display()));
    Ok(())
}

/// Names come from a store: none may lead out of the folder.
fn write(folder: &Path, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(plain && !name.is_empty(), "{name}: is no name of a file");
    let path = folder.join(name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    }
    std::fs::write(&path, content).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_or_changed_is_told() {
        let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".to_owned();
        let file = FileEntry { name: "a".to_owned(), sha256, bytes: 5 };
        check(&file, b"hello").unwrap();
        assert!(check(&file, b"hell").unwrap_err().to_string().contains("4 bytes came, the manifest says 5"));
        assert!(check(&file, b"hullo").unwrap_err().to_string().contains("not what the manifest says"));
    }
}
