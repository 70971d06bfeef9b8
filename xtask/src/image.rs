//! `cargo xtask image`: our programs as OCI archives, written from scratch: no container runtime, no base image.
//!
//! An image holds the programs, the C libraries that they link, the root certificates, and two accounts. Times and owners
//! are zero, so that the same programs make the same digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use brisq_testkit::go_tool;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::step::{output, run};

/// Where archives are written.
pub const FOLDER: &str = "target/images";
/// Name of our image; tags are the version, and the version with `-faults`.
pub const BRISQ: &str = "ghcr.io/brisq/brisq";
/// Image of Redis, made of the machine's own for clusters without a registry.
pub const REDIS: &str = "localhost/redis:7";
/// Image of an S3-compatible server, for tests.
pub const S3: &str = "localhost/versitygw:1";
/// What holds a pod's namespaces.
pub const PAUSE: &str = "localhost/pause:1";
/// Programs of our image.
const PROGRAMS: [&str; 4] = ["brisq-server", "brisq-profiler", "brisq-operator", "brisq"];
const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// Writes `brisq` and `brisq-faults`, of what is built.
pub fn brisq() -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    for (tag, server) in
        [(version.to_owned(), "brisq-server"), (format!("{version}-faults"), "brisq-server-faults")]
    {
        let mut image = Image::new(format!("{BRISQ}:{tag}"));
        for program in PROGRAMS {
            let built = if program == "brisq-server" { server } else { program };
            let path = Path::new("target/release").join(built);
            ensure!(
                path.is_file(),
                "{} is not built: `cargo xtask test --only setup --only build`",
                path.display()
            );
            // Lines are for profiles, and profiles are of the server.
            let path = if program == "brisq-server" { path } else { without_lines(&path)? };
            image.program(&path, program)?;
        }
        image.file(&format!("/{CERTIFICATES}"), CERTIFICATES)?;
        image.text("etc/passwd", "brisq:x:65532:65532::/:/brisq\n");
        image.user = "65532:65532";
        image.write(&Path::new(FOLDER).join(format!("brisq-{tag}.tar")))?;
    }
    Ok(())
}

/// Writes what a cluster without a registry needs besides.
pub fn others() -> anyhow::Result<()> {
    let pause = Path::new("target/images/pause");
    std::fs::create_dir_all(FOLDER)?;
    let pause_text = pause.display().to_string();
    run("gcc", &["-Os", "-static", "-s", "-o", &pause_text, "tools/cluster/pause.c"])?;
    let mut image = Image::new(PAUSE.to_owned());
    image.program(pause, "pause")?;
    image.entrypoint = vec!["/pause".to_owned()];
    image.write(&Path::new(FOLDER).join("pause.tar"))?;

    let mut image = Image::new(REDIS.to_owned());
    for program in ["redis-server", "redis-cli"] {
        let found = output("which", &[program])?;
        image.program(&std::fs::canonicalize(found.trim())?, &format!("usr/bin/{program}"))?;
    }
    image.text("etc/passwd", "redis:x:999:999::/data:/bin/false\n");
    image.user = "999:999";
    image.entrypoint = vec!["/usr/bin/redis-server".to_owned()];
    image.write(&Path::new(FOLDER).join("redis.tar"))?;

    let mut image = Image::new(S3.to_owned());
    image.program(&go_tool("versitygw")?, "versitygw")?;
    image.entrypoint = vec!["/versitygw".to_owned()];
    image.write(&Path::new(FOLDER).join("versitygw.tar"))
}

/// A copy without line tables, a tenth of the size; names of functions stay.
fn without_lines(program: &Path) -> anyhow::Result<PathBuf> {
    let folder = Path::new("target/images/stripped");
    std::fs::create_dir_all(folder)?;
    let to = folder.join(program.file_name().context("a program has a name")?);
    run("strip", &["--strip-debug", "-o", &to.display().to_string(), &program.display().to_string()])?;
    Ok(to)
}

struct Image {
    name: String,
    /// Content and mode by path, sorted: directories come before what is in them.
    files: BTreeMap<String, (Vec<u8>, u32)>,
    user: &'static str,
    entrypoint: Vec<String>,
}

impl Image {
    fn new(name: String) -> Self {
        Self { name, files: BTreeMap::new(), user: "65532:65532", entrypoint: Vec::new() }
    }

    fn text(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), (text.as_bytes().to_vec(), 0o644));
    }

    fn file(&mut self, from: &str, path: &str) -> anyhow::Result<()> {
        let content = std::fs::read(from).with_context(|| format!("{from} cannot be read"))?;
        self.files.insert(path.to_owned(), (content, 0o644));
        Ok(())
    }

    /// A program, with the libraries that it links.
    fn program(&mut self, from: &Path, path: &str) -> anyhow::Result<()> {
        let content = std::fs::read(from).with_context(|| format!("{} cannot be read", from.display()))?;
        self.files.insert(path.to_owned(), (content, 0o755));
        for library in libraries(from) {
            let content = std::fs::read(&library).with_context(|| library.display().to_string())?;
            let name = library.display().to_string().trim_start_matches('/').to_owned();
            self.files.insert(name, (content, 0o755));
        }
        Ok(())
    }

    fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut folders = std::collections::BTreeSet::from([PathBuf::from("tmp")]);
        for path in self.files.keys() {
            folders.extend(Path::new(path).ancestors().skip(1).map(Path::to_path_buf));
        }
        for folder in folders.iter().filter(|folder| !folder.as_os_str().is_empty()) {
            let mode = if folder == Path::new("tmp") { 0o1777 } else { 0o755 };
            let mut header = header(0, mode);
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, folder, std::io::empty())?;
        }
        for (path, (content, mode)) in &self.files {
            tar.append_data(&mut header(content.len(), *mode), path, content.as_slice())?;
        }
        Ok(tar.into_inner()?)
    }

    /// An OCI layout in one file, as `ctr images import` and `skopeo copy` take it; its `manifest.json` is for `docker load`,
    /// which before version 25 read nothing else.
    fn write(&self, to: &Path) -> anyhow::Result<()> {
        let mut blobs: Vec<(String, Vec<u8>)> = Vec::new();
        let mut blob = |content: Vec<u8>, kind: &str| {
            let sha256 = HEXLOWER.encode(&Sha256::digest(&content));
            let media = format!("application/vnd.oci.image.{kind}");
            let entry =
                json!({"mediaType": media, "digest": format!("sha256:{sha256}"), "size": content.len()});
            blobs.push((sha256, content));
            entry
        };
        let layer = blob(self.layer()?, "layer.v1.tar");
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"User": self.user, "Entrypoint": self.entrypoint, "Env": ["PATH=/usr/bin:/bin:/"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.get("digest")]},
        });
        let config = blob(serde_json::to_vec(&config)?, "config.v1+json");
        let docker = json!([{
            "Config": path_of(&config),
            "RepoTags": [self.name],
            "Layers": [path_of(&layer)],
        }]);
        let media = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": media, "config": config, "layers": [layer]});
        let mut manifest = blob(serde_json::to_vec(&manifest)?, "manifest.v1+json");
        let tag = self.name.rsplit(':').next().unwrap_or_default();
        if let Some(entry) = manifest.as_object_mut() {
            let annotations =
                json!({"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag});
            entry.insert("annotations".to_owned(), annotations);
        }
        let index: Value = json!({"schemaVersion": 2, "manifests": [manifest]});

        std::fs::create_dir_all(FOLDER)?;
        let mut tar = tar::Builder::new(File::create(to)?);
        let mut put =
            |path: &str, content: &[u8]| tar.append_data(&mut header(content.len(), 0o644), path, content);
        put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        put("index.json", &serde_json::to_vec(&index)?)?;
        put("manifest.json", &serde_json::to_vec(&docker)?)?;
        for (sha256, content) in &blobs {
            put(&format!("blobs/sha256/{sha256}"), content)?;
        }
        tar.into_inner()?.flush()?;
        let mib = std::fs::metadata(to)?.len() as f64 / 1024.0 / 1024.0;
        println!("{:<40} {mib:>6.1} MiB  {}", self.name, to.display());
        Ok(())
    }
}

/// Where a blob lies in an archive.
fn path_of(blob: &Value) -> String {
    let digest = blob.get("digest").and_then(Value::as_str).unwrap_or_default();
    format!("blobs/{}", digest.replace(':', "/"))
}

fn header(size: usize, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// What the loader would load; nothing for a static program.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let path = program.display().to_string();
    let listed = std::process::Command::new("ldd").arg(&path).output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_lie_by_their_digest() {
        assert_eq!(path_of(&json!({"digest": "sha256:ab12"})), "blobs/sha256/ab12");
    }
}
