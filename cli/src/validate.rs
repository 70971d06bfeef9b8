//! `brisq validate`: what a cluster would say of a manifest, without one.

use std::io::Read;

use anyhow::{Context, anyhow};
use brisq_crd::{Manifest, Mistake};

use crate::Failed;

#[derive(clap::Args)]
pub struct Flags {
    /// Manifest to check; `-` reads standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<String>,
}

pub fn run(flags: &Flags) -> Result<(), Failed> {
    let mut mistakes = 0;
    for file in &flags.files {
        match read(file)? {
            Ok(manifest) => {
                println!("{file}: {} {} is valid", manifest.kind(), manifest.metadata().name);
            }
            Err(found) => {
                mistakes += found.len();
                for mistake in found {
                    println!("{file}: {mistake}");
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

/// Reads a manifest from a file, or from standard input.
pub fn read(file: &str) -> Result<Result<Manifest, Vec<Mistake>>, anyhow::Error> {
    let text = if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
        text
    } else {
        std::fs::read_to_string(file).with_context(|| format!("{file} cannot be read"))?
    };
    Ok(brisq_crd::parse(&text))
}
