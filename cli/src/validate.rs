//! `brisq validate`: what a cluster would say of a manifest, without one.

use std::io::Read;

use anyhow::{Context, anyhow};
use brisq_crd::{Document, Manifest, Mistake};
use brisq_telemetry::say;

use crate::Failed;

#[derive(clap::Args)]
pub struct Flags {
    /// Manifest to check, every document of it; `-` reads standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<String>,
}

pub fn run(flags: &Flags) -> Result<(), Failed> {
    let mut mistakes = 0;
    for file in &flags.files {
        let documents = documents(file, &read(file)?);
        for Placed { place, document } in &documents {
            match document {
                Ok(Document::Ours(manifest)) => say(&format!("{place}: {} is valid", named(manifest))),
                Ok(Document::Foreign(what)) => {
                    say(&format!("{place}: {what} is none of Brisq's and was skipped"));
                }
                Err(found) => {
                    mistakes += found.len();
                    found.iter().for_each(|mistake| say(&format!("{place}: {mistake}")));
                }
            }
        }
        if documents.iter().all(|placed| matches!(placed.document, Ok(Document::Foreign(_)))) {
            mistakes += 1;
            say(&format!("{file}: no document is one of Brisq's"));
        }
    }
    match mistakes {
        0 => Ok(()),
        1 => Err(anyhow!("1 mistake").into()),
        n => Err(anyhow!("{n} mistakes").into()),
    }
}

/// A document and where it stands.
pub struct Placed {
    pub place: String,
    pub document: Result<Document, Vec<Mistake>>,
}

/// The documents of a file, by the rules that `up` and `validate` share.
pub fn documents(file: &str, text: &str) -> Vec<Placed> {
    let documents = brisq_crd::parse_all(text).unwrap_or_else(|mistake| vec![Err(vec![mistake])]);
    let several = documents.len() > 1;
    let placed = documents.into_iter().enumerate().map(|(index, document)| {
        let place = if several { format!("{file}, document {}", index + 1) } else { file.to_owned() };
        Placed { place, document }
    });
    placed.collect()
}

/// Kind and name.
pub fn named(manifest: &Manifest) -> String {
    format!("{} {}", manifest.kind(), manifest.metadata())
}

/// Reads a file, or standard input.
pub fn read(file: &str) -> anyhow::Result<String> {
    if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("{file} cannot be read"))
}
