//! The sidecar's listener while others keep all its places.

use brisq_e2e::crowd;

use crate::rig::{Sidecar, TIMEOUT};

#[test]
fn slow_heads_are_cut_and_keep_no_probe_from_a_sidecar() {
    let sidecar = Sidecar::start(&[]);
    let crowded = crowd(sidecar.address(), "/v1/slo").expect("answers");
    assert_eq!((crowded.probe, crowded.other), (200, 503), "{crowded:?}");
    assert!(crowded.told.starts_with("HTTP/1.1 408 "), "{crowded:?}");
    assert!(crowded.after < TIMEOUT / 2, "{crowded:?}");
}
