//! Tables of evidence as it was measured, and the cause each must lead to.

use brisq_diagnosis::{Cause, Evidence, Hot, Signals, diagnose};

fn calm() -> Signals {
    Signals {
        claim_p99_us: Some(1_800.0),
        receive_mean_us: Some(60.0),
        admit_mean_us: Some(5.0),
        coalesce_mean_us: Some(200.0),
        store_mean_us: Some(700.0),
        respond_mean_us: Some(30.0),
        os_late_us: Some(150.0),
        runtime_late_us: Some(1_300.0),
        process_cores: Some(0.3),
        runtime_busy_cores: Some(0.2),
        run_delay_cores: Some(0.02),
        throttled_share: Some(0.0),
        node_cores: Some(0.5),
        commit_mean_us: Some(500.0),
        commit_in_flight_us: Some(800.0),
        commit_share: Some(0.3),
        major_faults: Some(0.0),
        resident_bytes: Some(60e6),
        claims_per_second: Some(200.0),
        slow_runtime_us: Some(300.0),
        ping_us: None,
        ping_share: None,
        redis_slow_share: None,
        redis_slow_us: None,
    }
}

fn evidence(change: impl FnOnce(&mut Signals), hot: Option<(&str, f64)>) -> Evidence {
    let mut breach = calm();
    change(&mut breach);
    let hot = hot.map(|(function, grown_cores)| Hot { function: function.to_owned(), grown_cores });
    Evidence { breach, baseline: calm(), cpus: 2.0, runtime_workers: 2.0, hot, slow_command: None }
}

#[track_caller]
fn check(evidence: &Evidence, cause: Cause) {
    let diagnosis = diagnose(evidence);
    assert_eq!(diagnosis.cause, cause, "{diagnosis:#?}");
    assert!(cause == Cause::Unknown || diagnosis.confidence > 0.2, "{diagnosis:#?}");
    assert!(!diagnosis.evidence.is_empty() && !diagnosis.next_step.is_empty());
    assert!(diagnosis.ruled_out.iter().all(|ruled_out| ruled_out.cause != cause));
}

#[test]
fn a_used_up_quota_is_throttling_though_everything_is_late() {
    for share in [0.06, 0.3, 0.8] {
        let throttled = |s: &mut Signals| {
            s.throttled_share = Some(share);
            s.os_late_us = Some(60_000.0);
            s.runtime_late_us = Some(80_000.0);
            s.run_delay_cores = Some(0.6);
            s.commit_mean_us = Some(20_000.0);
        };
        check(&evidence(throttled, Some(("everything", 0.1))), Cause::CgroupCpuThrottled);
    }
}

#[test]
fn busy_neighbours_that_leave_no_cpu_are_contention_though_everything_is_late() {
    // CPU that is used here and on the whole machine, seconds queued a second, lateness of the sleeping thread.
    for (used, node, queued, late_ms) in [
        // Shares of 60 and of 20 beside four spinning processes on two cores.
        (0.06, 2.0, 4.0, 500.0),
        (0.02, 2.0, 4.1, 900.0),
        // A request of a tenth of a CPU on a full node.
        (0.1, 16.0, 1.2, 60.0),
        // Half of the CPUs were wanted by others, and all by us.
        (1.0, 2.0, 0.9, 20.0),
    ] {
        for stolen in [None, Some(0.0)] {
            let contended = |s: &mut Signals| {
                s.throttled_share = stolen;
                s.process_cores = Some(used);
                s.node_cores = Some(node);
                s.run_delay_cores = Some(queued);
                s.os_late_us = Some(late_ms * 1_000.0);
                s.runtime_late_us = Some(late_ms * 1_500.0);
                s.runtime_busy_cores = Some(used + queued / 2.0);
                s.slow_runtime_us = Some(late_ms * 1_000.0);
                s.commit_mean_us = Some(late_ms * 800.0);
                s.commit_in_flight_us = Some(late_ms * 900.0);
            };
            check(&evidence(contended, Some(("everything", 0.02))), Cause::NodeCpuContention);
        }
    }
}

#[test]
fn what_queues_for_a_cpu_is_contention_only_where_others_have_them() {
    // CPU used here and on the whole machine, seconds queued a second, lateness of the sleeping thread, throttled.
    for (used, node, queued, late_ms, throttled, cause) in [
        (1.92, 2.0, 1.4, 60.0, 0.0, Cause::CpuSaturated),
        (0.2, 0.4, 1.4, 60.0, 0.3, Cause::CgroupCpuThrottled),
        (0.2, 2.0, 1.4, 60.0, 0.3, Cause::CgroupCpuThrottled),
        // Busy neighbours that leave room.
        (0.3, 1.9, 0.06, 0.4, 0.0, Cause::Unknown),
        // Nobody else is busy: no rule knows what the threads queued for.
        (0.3, 0.4, 1.4, 60.0, 0.0, Cause::Unknown),
    ] {
        let queuing = |s: &mut Signals| {
            s.throttled_share = Some(throttled);
            s.process_cores = Some(used);
            s.node_cores = Some(node);
            s.run_delay_cores = Some(queued);
            s.os_late_us = Some(late_ms * 1_000.0);
            s.runtime_late_us = Some(late_ms * 1_000.0);
        };
        check(&evidence(queuing, None), cause);
    }
}

#[test]
fn all_cpus_busy_with_us_is_saturation_though_commits_are_slow_too() {
    let saturated = |s: &mut Signals| {
        s.process_cores = Some(1.92);
        s.runtime_busy_cores = Some(1.95);
        s.run_delay_cores = Some(1.4);
        s.os_late_us = Some(9_000.0);
        s.runtime_late_us = Some(40_000.0);
        s.commit_mean_us = Some(4_000.0);
    };
    check(&evidence(saturated, Some(("spin", 1.5))), Cause::CpuSaturated);
    let mut one_cpu = evidence(saturated, Some(("spin", 0.6)));
    one_cpu.cpus = 1.0;
    one_cpu.breach.process_cores = Some(0.97);
    check(&one_cpu, Cause::CpuSaturated);
}

#[test]
fn busy_workers_without_cpu_are_blocked() {
    for (busy, late) in [(0.4, 20_000.0), (1.2, 100_000.0)] {
        let blocked = |s: &mut Signals| {
            s.runtime_busy_cores = Some(busy);
            s.runtime_late_us = Some(late);
            s.process_cores = Some(0.32);
            s.receive_mean_us = Some(15_000.0);
        };
        check(&evidence(blocked, None), Cause::BlockingInAsyncWorker);
    }
}

#[test]
fn a_function_that_computes_in_some_polls_is_named() {
    for grown in [0.15, 0.3, 0.55] {
        let spinning = |s: &mut Signals| {
            s.runtime_busy_cores = Some(0.2 + grown);
            s.process_cores = Some(0.3 + grown);
            s.runtime_late_us = Some(19_000.0);
            s.receive_mean_us = Some(1_500.0);
        };
        let evidence = evidence(spinning, Some(("checksum", grown)));
        check(&evidence, Cause::CpuInLongPoll);
        assert!(diagnose(&evidence).next_step.contains("checksum"));
    }
}

#[test]
fn beside_a_busy_neighbour_a_function_that_computes_queues_for_cpu_and_does_not_block() {
    for granted in [0.4, 0.5, 0.6] {
        let spinning = |s: &mut Signals| {
            s.runtime_busy_cores = Some(0.2 + 0.8);
            s.process_cores = Some(0.3 + 0.8 * granted);
            s.run_delay_cores = Some(0.02 + 0.8 * (1.0 - granted));
            s.runtime_late_us = Some(60_000.0);
        };
        check(&evidence(spinning, Some(("checksum", 0.8 * granted))), Cause::CpuInLongPoll);
    }
}

#[test]
fn slow_commits_are_the_disk() {
    for commit in [6_000.0, 60_000.0] {
        let slow = |s: &mut Signals| {
            s.commit_mean_us = Some(commit);
            s.commit_in_flight_us = Some(commit * 1.2);
            s.store_mean_us = Some(commit);
        };
        check(&evidence(slow, None), Cause::DiskSlow);
    }
}

#[test]
fn a_redis_that_answers_no_ping_is_the_cause_and_one_that_does_is_not() {
    for (ping, cause) in [(80_000.0, Cause::RedisUnresponsive), (900.0, Cause::Unknown)] {
        let on_redis = |s: &mut Signals, ping| {
            (s.commit_mean_us, s.commit_in_flight_us, s.commit_share) = (None, None, None);
            s.ping_us = Some(ping);
        };
        let slow = |s: &mut Signals| {
            on_redis(s, ping);
            s.store_mean_us = Some(60_000.0);
            s.claim_p99_us = Some(90_000.0);
        };
        let mut evidence = evidence(slow, None);
        on_redis(&mut evidence.baseline, 400.0);
        check(&evidence, cause);
    }
}

#[test]
fn a_stop_in_the_calm_time_hides_none_of_the_breach() {
    let on_redis = |s: &mut Signals, ping, held| {
        (s.commit_mean_us, s.commit_in_flight_us, s.commit_share) = (None, None, None);
        (s.ping_us, s.ping_share) = (Some(ping), Some(held));
    };
    let mut evidence = evidence(|s| on_redis(s, 1_000_000.0, 0.9), None);
    on_redis(&mut evidence.baseline, 900_000.0, 0.19);
    check(&evidence, Cause::RedisUnresponsive);
}

#[test]
fn commands_that_explain_an_unanswered_ping_are_slow_commands_and_one_that_was_caught_in_a_stop_is_not() {
    for (share, longest, held, cause) in [
        (0.4, 90_000.0, 0.5, Cause::RedisSlowCommand),
        (0.03, 12_000.0, 0.04, Cause::RedisSlowCommand),
        (0.15, 4_500_000.0, 0.9, Cause::RedisUnresponsive),
        (0.0, 0.0, 0.9, Cause::RedisUnresponsive),
    ] {
        let on_redis = |s: &mut Signals, ping, held, share, longest| {
            (s.commit_mean_us, s.commit_in_flight_us, s.commit_share) = (None, None, None);
            (s.ping_us, s.ping_share) = (Some(ping), Some(held));
            (s.redis_slow_share, s.redis_slow_us) = (Some(share), Some(longest));
        };
        let slow = |s: &mut Signals| on_redis(s, 90_000.0, held, share, longest);
        let mut evidence = evidence(slow, None);
        on_redis(&mut evidence.baseline, 400.0, 0.005, 0.0, 0.0);
        evidence.slow_command = Some("EVAL (3 arguments) from 10.0.0.7:4711".to_owned());
        check(&evidence, cause);
        assert!(cause == Cause::RedisUnresponsive || diagnose(&evidence).reason.contains("10.0.0.7"));
    }
}

#[test]
fn what_no_rule_explains_is_unknown_with_its_evidence_ranked() {
    let slept = |s: &mut Signals| {
        s.claim_p99_us = Some(60_000.0);
        s.admit_mean_us = Some(50_000.0);
        s.slow_runtime_us = Some(50_000.0);
    };
    let evidence = evidence(slept, None);
    check(&evidence, Cause::Unknown);
    let first: Vec<_> = diagnose(&evidence).evidence.iter().take(3).map(|item| item.signal).collect();
    assert!(first.contains(&"admit_mean_us") && first.contains(&"slow_runtime_us"), "{first:?}");
}

#[test]
fn near_misses_are_not_blamed() {
    check(&evidence(|s| s.throttled_share = Some(0.012), None), Cause::Unknown);
    check(&evidence(|s| s.process_cores = Some(1.2), None), Cause::Unknown);
    check(&evidence(|s| s.commit_mean_us = Some(900.0), None), Cause::Unknown);
    check(&evidence(|s| s.runtime_late_us = Some(2_000.0), None), Cause::Unknown);
}

#[test]
fn missing_signals_are_said_and_lower_the_confidence() {
    let slow = |s: &mut Signals| s.commit_mean_us = Some(30_000.0);
    let whole = diagnose(&evidence(slow, None));
    let mut partial = evidence(slow, None);
    partial.breach.throttled_share = None;
    partial.breach.runtime_late_us = None;
    let partial = diagnose(&partial);
    assert_eq!(partial.cause, Cause::DiskSlow);
    assert!(partial.missing.contains(&"throttled_share") && partial.missing.contains(&"runtime_late_us"));
    assert!(partial.confidence < whole.confidence);
}

#[test]
fn an_unknown_calm_is_said_and_is_never_zero() {
    let on_redis = |s: &mut Signals| {
        (s.commit_mean_us, s.commit_in_flight_us, s.commit_share) = (None, None, None);
        (s.ping_us, s.ping_share) = (Some(80_000.0), Some(0.5));
        (s.redis_slow_share, s.redis_slow_us) = (Some(0.0), Some(0.0));
    };
    let slow_command = |s: &mut Signals| {
        on_redis(s);
        (s.redis_slow_share, s.redis_slow_us) = (Some(0.4), Some(90_000.0));
    };
    let slow_disk = |s: &mut Signals| s.commit_mean_us = Some(30_000.0);
    for (mut evidence, cause, signal) in [
        (evidence(on_redis, None), Cause::RedisUnresponsive, "ping_us"),
        (evidence(slow_command, None), Cause::RedisSlowCommand, "redis_slow_share"),
        (evidence(slow_disk, None), Cause::DiskSlow, "commit_mean_us"),
    ] {
        // Calm as it was, but for what the rule asks for.
        on_redis(&mut evidence.baseline);
        (evidence.baseline.ping_us, evidence.baseline.ping_share) = (Some(400.0), Some(0.005));
        evidence.baseline.commit_mean_us = Some(500.0);
        let known = diagnose(&evidence);
        (evidence.baseline.ping_us, evidence.baseline.ping_share) = (None, None);
        evidence.baseline.redis_slow_share = None;
        evidence.baseline.commit_mean_us = None;
        let unknown = diagnose(&evidence);
        assert_eq!((known.cause, unknown.cause), (cause, cause), "{unknown:#?}");
        assert!(unknown.reason.contains("unknown before"), "{}", unknown.reason);
        assert!(unknown.missing.contains(&signal) && !known.missing.contains(&signal), "{unknown:#?}");
        assert!(unknown.confidence < known.confidence, "{unknown:#?}");
    }
}
