//! `brisq`: the queue on a laptop, and the tool for those who run it.

fn main() {}
