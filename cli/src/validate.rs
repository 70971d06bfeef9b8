//! `brisq validate`: what a cluster would say of a manifest, without one.

use std::io::Read;

use anyhow::{Context, anyhow};

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
        let documents = brisq_crd::parse_all(&read(file)?).unwrap_or_else(|mistake| vec![Err(vec![mistake])]);
        let several = documents.len() > 1;
        for (index, document) in documents.into_iter().enumerate() {
            let place = if several { format!("{file}, document {}", index + 1) } else { file.clone() };
            match document {
                Ok(manifest) => println!("{place}: {} {} is valid", manifest.kind(), manifest.metadata()),
                Err(found) => {
                    mistakes += found.len();
                    for mistake in found {
                        println!("{place}: {mistake}");
                    }
                }
            }
        }
    }
    match mistakes {
        0 => Ok(()),
        1 => Err(anyhow!("1 mistake").into()),
        n => Err(anyhow!("{n} mistakes").into()),
    }
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
