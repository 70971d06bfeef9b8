//! What a server recorded while it was starved of CPU (1,000 tasks a second, an objective of 300 ms, four spinning neighbours on
//! two CPUs): claims that wait for tasks are fast at first, many cross the threshold in flight and end fast, few end at all.

use brisq_slo::{Evaluator, Fleet, Objective, ProcessId, Reading};

/// Ms since the shares were cut, claims that finished since the first row and slow ones of these, those in flight that are slow,
/// and how old the oldest is, µs.
type Row = (i64, u64, u64, u64, u64);

const SHARES_60: &[Row] = &[
    (-3_001, 5_948, 0, 0, 4_971),
    (-1_997, 6_984, 0, 0, 18_481),
    (-1_001, 7_991, 0, 0, 6_793),
    (7, 8_972, 0, 0, 35_574),
    (1_044, 9_002, 3, 39, 676_587),
    (2_007, 9_047, 9, 19, 591_460),
    (3_007, 9_108, 70, 22, 606_388),
    (4_183, 9_172, 134, 22, 418_579),
    (5_059, 9_195, 157, 41, 559_545),
    (6_007, 9_259, 221, 0, 287_038),
    (7_068, 9_300, 262, 23, 612_546),
    (8_047, 9_324, 286, 40, 631_095),
];
const SHARES_20: &[Row] = &[
    (-3_000, 7_020, 0, 0, 7_396),
    (-2_000, 8_023, 0, 0, 1_741),
    (-1_000, 9_025, 0, 0, 3_309),
    (27, 9_994, 0, 0, 57_117),
    (1_135, 9_998, 3, 20, 1_160_596),
    (2_028, 10_008, 6, 52, 1_680_723),
    // 48 of 49 end fast.
    (3_159, 10_057, 7, 8, 2_007_126),
    (4_215, 10_057, 7, 8, 3_063_374),
    (5_511, 10_065, 15, 7, 1_211_363),
    (6_162, 10_065, 15, 56, 1_862_470),
    (7_235, 10_072, 22, 52, 1_939_599),
    (8_023, 10_073, 23, 51, 2_726_609),
    (9_007, 10_121, 71, 8, 2_599_381),
    (10_075, 10_124, 74, 12, 1_799_187),
];

#[test]
fn the_onset_of_a_starved_server_is_when_it_was_starved() {
    const CUT_MS: i64 = 1_800_000_000_000;
    for (name, rows) in [("60 shares", SHARES_60), ("20 shares", SHARES_20)] {
        let mut evaluator = Evaluator::new(Objective::new(99.0, 300_000, 30, 100).expect("an objective"));
        let (mut fleet, process) = (Fleet::default(), ProcessId { pid: 1, started_ms: 0 });
        let (mut onset, mut before_ms) = (None, rows[0].0);
        for (after_ms, finished_total, slow_total, in_flight_slow, oldest_in_flight_us) in rows {
            let reading = Reading {
                finished_total: *finished_total,
                slow_total: *slow_total,
                in_flight_slow: *in_flight_slow,
                oldest_in_flight_us: *oldest_in_flight_us,
            };
            let second = fleet.add((CUT_MS + after_ms) as u64, &[(process, reading)]);
            let length_ms = (after_ms - before_ms) as u64;
            let evaluation =
                second.spread(length_ms).map(|second| evaluator.add(second)).last().expect("one");
            if evaluation.breached && onset.is_none() {
                onset = evaluation.onset_ms.map(|ms| ms as i64 - CUT_MS);
            }
            before_ms = *after_ms;
        }
        assert!(onset.is_some_and(|ms| ms.abs() <= 1_000), "{name}: {onset:?} ms");
    }
}
