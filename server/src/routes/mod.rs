//! Handlers, one file per resource: parse, call the core, answer.

pub mod leases;
pub mod queues;
pub mod service;
pub mod tasks;
