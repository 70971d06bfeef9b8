//! Evidence in, cause out: ordered causal rules, from the machine upward.
//!
//! A lower cause explains the higher symptom: a throttled process has a late runtime too, and a slow disk makes claims
//! wait in the store stage. So rules are asked in causal order and the first that is sure enough answers. Blaming the
//! largest stage instead is right for one fault in eleven.
#![forbid(unsafe_code)]
#![expect(
    missing_docs,
    reason = "users of this crate live in this repository: units, bounds and reasons are written down"
)]

mod rules;
mod signals;
mod verdict;

pub use signals::{Evidence, Hot, Signals};
pub use verdict::{Cause, Diagnosis, EvidenceItem, RuledOut, diagnose};
