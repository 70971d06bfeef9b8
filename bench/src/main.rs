//! Measurements of the queue, beside the floor that they are held against.

fn main() {}
