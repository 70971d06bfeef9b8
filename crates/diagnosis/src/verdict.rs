use crate::rules::{Opinion, RULES, SURE};
use crate::signals::{Evidence, SIGNALS};

/// What made claims slow; [`Cause::sentence`] says each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    CgroupCpuThrottled,
    NodeCpuContention,
    CpuSaturated,
    BlockingInAsyncWorker,
    CpuInLongPoll,
    DiskSlow,
    RedisSlowCommand,
    RedisUnresponsive,
    Unknown,
}

impl Cause {
    /// Name in artifacts, status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CgroupCpuThrottled => "CgroupCpuThrottled",
            Self::NodeCpuContention => "NodeCpuContention",
            Self::CpuSaturated => "CpuSaturated",
            Self::BlockingInAsyncWorker => "BlockingInAsyncWorker",
            Self::CpuInLongPoll => "CpuInLongPoll",
            Self::DiskSlow => "DiskSlow",
            Self::RedisSlowCommand => "RedisSlowCommand",
            Self::RedisUnresponsive => "RedisUnresponsive",
            Self::Unknown => "Unknown",
        }
    }

    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::CgroupCpuThrottled => "The kernel stopped the process because its CPU quota was used up.",
            Self::NodeCpuContention => {
                "Other processes of the machine had the CPUs, and this one queued for them."
            }
            Self::CpuSaturated => "The process used all the CPU it may use, and its threads queued for more.",
            Self::BlockingInAsyncWorker => "A call blocked a runtime worker, and requests behind it waited.",
            Self::CpuInLongPoll => {
                "A function kept a runtime worker computing, and requests behind it waited."
            }
            Self::DiskSlow => "Commits waited for the disk.",
            Self::RedisSlowCommand => "Commands that ran long in Redis held up all others.",
            Self::RedisUnresponsive => "Redis, or the network to it, did not answer, not even a PING.",
            Self::Unknown => "No known cause fits the evidence.",
        }
    }

    const fn next_step(self) -> &'static str {
        match self {
            Self::CgroupCpuThrottled => {
                "Raise or remove the CPU limit; until then spread the load over more replicas."
            }
            Self::NodeCpuContention => {
                "Raise the CPU request: beside busy neighbours a container gets CPU in proportion to it. Or move the neighbours off the node."
            }
            Self::CpuSaturated => {
                "Open the differential flame graph: if one function grew, mend it; if all grew alike, add replicas or CPUs."
            }
            Self::BlockingInAsyncWorker => {
                "Look for waiting calls in the stacks of the slowest claims and move them to a blocking thread or an async form."
            }
            Self::CpuInLongPoll => {
                "Start with the first function of topFunctions: make it cheaper, or move it off the runtime's workers."
            }
            Self::DiskSlow => {
                "Look at what else uses the disk and at its queue; a faster disk, or `--durability relaxed` if a second may be lost."
            }
            Self::RedisSlowCommand => {
                "Look for who sends that command and make it smaller, or give it a Redis of its own: Redis runs one command at a time."
            }
            Self::RedisUnresponsive => {
                "Look at Redis itself: SLOWLOG for a command that held it up, INFO persistence for a fork, its node's CPU and network."
            }
            Self::Unknown => {
                "Read the evidence from its top: the largest departures from the baseline come first."
            }
        }
    }
}

/// A signal beside its baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct EvidenceItem {
    /// Name, with its unit last.
    pub signal: &'static str,
    pub value: f64,
    /// The value in calm time, where that is known.
    pub baseline: Option<f64>,
    /// Value by baseline, where the baseline is not almost nothing.
    pub ratio: Option<f64>,
    pub source: &'static str,
}

/// A cause that the evidence does not fit, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct RuledOut {
    pub cause: Cause,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    pub cause: Cause,
    /// Why this cause, in numbers.
    pub reason: String,
    /// 0 to 1: margin to the runner-up, less where signals are missing.
    pub confidence: f64,
    /// All signals, largest departure from the baseline first.
    pub evidence: Vec<EvidenceItem>,
    pub ruled_out: Vec<RuledOut>,
    /// Signals that were not there: in the breach, or in the calm time that a rule compares it with.
    pub missing: Vec<&'static str>,
    pub next_step: String,
}

/// Names the cause that the evidence fits.
#[must_use]
pub fn diagnose(evidence: &Evidence) -> Diagnosis {
    let opinions: Vec<Opinion> = RULES.iter().map(|rule| rule(evidence)).collect();
    let chosen = opinions.iter().position(|opinion| opinion.score >= SURE);
    let unheard_of = |name| opinions.iter().any(|opinion| opinion.missing.contains(&name));
    let missing: Vec<&'static str> = SIGNALS
        .iter()
        .filter(|signal| (signal.get)(&evidence.breach).is_none() || unheard_of(signal.name))
        .map(|signal| signal.name)
        .collect();
    let (cause, reason, confidence) = match chosen.and_then(|index| opinions.get(index).map(|o| (index, o))) {
        Some((index, opinion)) => {
            // Causes above explain nothing here, and causes below may be symptoms: the runner-up is the strongest of
            // those that stand before the chosen one, or half as strong behind it.
            let rival = |(n, other): (usize, &Opinion)| match n.cmp(&index) {
                std::cmp::Ordering::Less => other.score,
                std::cmp::Ordering::Equal => 0.0,
                std::cmp::Ordering::Greater => other.score / 2.0,
            };
            let runner_up = opinions.iter().enumerate().map(rival).fold(0.0, f64::max);
            (opinion.cause, opinion.reason.clone(), opinion.score - runner_up / 2.0)
        }
        None => (Cause::Unknown, "no rule was sure enough".to_owned(), 0.0),
    };
    let unheard = opinions.iter().filter(|opinion| !opinion.missing.is_empty()).count();
    let confidence = (confidence * (1.0 - 0.15 * unheard as f64)).clamp(0.0, 1.0);
    let ruled_out = opinions
        .iter()
        .filter(|opinion| opinion.cause != cause)
        .map(|opinion| RuledOut { cause: opinion.cause, reason: opinion.reason.clone() })
        .collect();
    let next_step = match (&evidence.hot, cause) {
        (Some(hot), Cause::CpuInLongPoll) => format!("{} Here it is {}.", cause.next_step(), hot.function),
        _ => cause.next_step().to_owned(),
    };
    Diagnosis { cause, reason, confidence, evidence: ranked(evidence), ruled_out, missing, next_step }
}

/// Signals by how far they left their baseline, each measured in its own floor.
fn ranked(evidence: &Evidence) -> Vec<EvidenceItem> {
    let mut items: Vec<(f64, EvidenceItem)> = Vec::new();
    for signal in SIGNALS {
        let Some(value) = (signal.get)(&evidence.breach) else { continue };
        let baseline = (signal.get)(&evidence.baseline);
        let ratio =
            baseline.filter(|before| before.abs() > signal.floor / 100.0).map(|before| value / before);
        let departure = (value - baseline.unwrap_or(0.0)).abs() / signal.floor;
        let against = baseline.unwrap_or(0.0).abs().max(signal.floor);
        let weight = departure
            .min((value.abs().max(signal.floor) / against).max(against / value.abs().max(signal.floor)));
        items.push((
            weight,
            EvidenceItem { signal: signal.name, value, baseline, ratio, source: signal.source },
        ));
    }
    // How far one left an unknown baseline nobody knows: it stands behind those of which it is known.
    items.sort_by(|(a, one), (b, other)| {
        other.baseline.is_some().cmp(&one.baseline.is_some()).then(b.total_cmp(a))
    });
    items.into_iter().map(|(_, item)| item).collect()
}
