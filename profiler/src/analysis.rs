//! What is found in a recording: signals of the breach against those of the calm, functions that grew, the cause.

use std::sync::Arc;

use brisq_diagnosis::{Diagnosis, Evidence, Hot, diagnose};
use brisq_recorder::wire::Frame;
use brisq_recorder::{Cost, Functions};
use serde::{Deserialize, Serialize};

use crate::recording::Recording;
use crate::signals;

/// Fewer samples than this on a side make no comparison.
pub(crate) const DIFF_SAMPLES_MIN: u64 = 200;
/// Functions in `topFunctions`.
const TOP_FUNCTIONS: usize = 20;
/// A function that is off the workers for so little cannot have made claims slow.
const HOT_CORES_MIN: f64 = 0.01;

/// A function in the differential profile.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopFunction {
    pub function: String,
    /// Empty when unknown.
    pub file: String,
    /// 0 when unknown.
    pub line: u32,
    /// CPU in the breach that was its own, in cores.
    pub self_cores: f64,
    /// CPU in the breach with all it called, in cores.
    pub total_cores: f64,
    /// Its own CPU in the baseline, in cores; absent without a comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_self_cores: Option<f64>,
    /// How much its own CPU grew, in cores.
    pub delta_cores: f64,
}

pub(crate) struct Analysis {
    pub(crate) diagnosis: Diagnosis,
    pub(crate) top: Vec<TopFunction>,
    pub(crate) evidence: Evidence,
    pub(crate) samples: u64,
    pub(crate) baseline_samples: u64,
}

impl Analysis {
    /// Compares the breach with the calm before it.
    pub(crate) fn of(
        recording: &Recording,
        breach_frames: &[Arc<Frame>],
        breach: &Functions,
        baseline: &Functions,
    ) -> Self {
        let comparable = breach.samples >= DIFF_SAMPLES_MIN && baseline.samples >= DIFF_SAMPLES_MIN;
        let top = top_functions(breach, comparable.then_some(baseline));
        let hot = top.first().filter(|first| comparable && first.delta_cores >= HOT_CORES_MIN);
        let evidence = Evidence {
            breach: signals::signals(breach_frames),
            baseline: signals::signals(&recording.baseline),
            cpus: recording.hello.cpus,
            runtime_workers: recording.hello.runtime_workers.into(),
            slow_command: signals::slow_commands(breach_frames)
                .and_then(|commands| commands.first().map(|c| format!("{} from {}", c.command, c.client))),
            hot: hot.map(|first| Hot { function: first.function.clone(), grown_cores: first.delta_cores }),
        };
        let diagnosis = diagnose(&evidence);
        Self { diagnosis, top, evidence, samples: breach.samples, baseline_samples: baseline.samples }
    }

    /// Whether there is enough of both sides.
    pub(crate) fn comparable(&self) -> bool {
        self.samples >= DIFF_SAMPLES_MIN && self.baseline_samples >= DIFF_SAMPLES_MIN
    }
}

/// Functions by how much their own CPU grew. Own is what a function spent itself or in system libraries that it called:
/// so a spinning function stands above the runtime that called it and above the `memcpy` it called.
fn top_functions(breach: &Functions, baseline: Option<&Functions>) -> Vec<TopFunction> {
    let own_before =
        |name: &Arc<str>| baseline.map(|calm| calm.by_name.get(name).map_or(0.0, |cost| cost.self_cores));
    let grown = |name, cost: &Cost| cost.self_cores - own_before(name).unwrap_or(0.0);
    let mut costs: Vec<_> =
        breach.by_name.iter().map(|(name, cost)| (grown(name, cost), name, cost)).collect();
    costs.sort_by(|(a, name, _), (b, other, _)| b.total_cmp(a).then_with(|| name.cmp(other)));
    costs.truncate(TOP_FUNCTIONS);
    let top = |(delta_cores, name, cost): (f64, &Arc<str>, &Cost)| {
        let place = cost.place.as_ref();
        TopFunction {
            function: name.to_string(),
            file: place.map_or_else(String::new, |place| place.file.to_string()),
            line: place.map_or(0, |place| place.line),
            self_cores: cost.self_cores,
            total_cores: cost.total_cores,
            baseline_self_cores: own_before(name),
            delta_cores,
        }
    };
    costs.into_iter().map(top).collect()
}
