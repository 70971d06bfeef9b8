//! The file of `--queues`: what a manifest declares, as the operator writes it or a person does.

use brisq_api::{DeclaredQueues, QueueMistake};
use brisq_model::Mark;
use brisq_yaml::{Echo, Mistake};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

/// The largest number that every store keeps exactly.
const NUMBER_MAX: u64 = (1 << 53) - 1;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    epoch: Option<u64>,
    #[serde(default)]
    generation: Option<u64>,
    #[serde(default)]
    queues: Vec<serde_json::Value>,
}

/// Reads the text of a file.
///
/// # Errors
/// Every mistake.
pub fn read(text: &str) -> Result<DeclaredQueues, Vec<String>> {
    let told = |mistakes: Vec<Mistake>| mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>();
    let file: File = brisq_yaml::read(text, Echo::Values).map_err(told)?;
    let mark = mark(&file).map_err(|mistake| vec![mistake.to_owned()])?;
    let list: Result<Vec<Box<RawValue>>, _> = file.queues.iter().map(to_raw_value).collect();
    let list = list.map_err(|error| vec![format!("queues: cannot be written as JSON: {error}")])?;
    DeclaredQueues::of_list(mark, &list)
        .map_err(|mistakes| mistakes.iter().map(QueueMistake::to_string).collect())
}

fn mark(file: &File) -> Result<Option<Mark>, &'static str> {
    match (file.epoch, file.generation) {
        (None, None) => Ok(None),
        (Some(_), None) => Err("epoch: is about a `generation`; give one, or leave it out"),
        (epoch, Some(generation)) => {
            let epoch = epoch.unwrap_or(0);
            if !(1..=NUMBER_MAX).contains(&generation) || epoch > NUMBER_MAX {
                return Err("generation: `generation` is 1 or more, `epoch` 0 or more, both below 2^53");
            }
            Ok(Some(Mark { epoch, generation }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_holds_and_which_it_is() {
        let yaml = "epoch: 7\ngeneration: 2\nqueues:\n- name: a\n  paused: true\n  limits: {perSecond: 2.5, burst: 3}\n- {name: b, retry: null}\n";
        let declared = read(yaml).unwrap();
        assert_eq!(declared.mark, Some(Mark { epoch: 7, generation: 2 }));
        let told: Vec<_> = declared
            .queues
            .iter()
            .map(|(name, queue)| {
                (name.as_str(), queue.paused, queue.policy.rate.map(|rate| rate.milli_per_second))
            })
            .collect();
        assert_eq!(told, [("a", true, Some(2_500)), ("b", false, None)]);
        assert_eq!(read("queues: []").unwrap(), DeclaredQueues::default());
        assert_eq!(read("generation: 1").unwrap().mark, Some(Mark { epoch: 0, generation: 1 }));
    }

    /// As the operator writes it.
    #[test]
    fn a_file_of_the_operator_is_one() {
        #[derive(Deserialize)]
        struct ConfigMap {
            data: std::collections::BTreeMap<String, String>,
        }
        for (config_map, queues) in [
            (include_str!("../../operator/golden/external/configmap-orders.yaml"), 2),
            (include_str!("../../operator/golden/smallest/configmap-orders.yaml"), 0),
        ] {
            let (config_map, _) =
                brisq_yaml::Document::parse(config_map).unwrap().read::<ConfigMap>(Echo::Values).unwrap();
            let declared = read(&config_map.data["queues.yaml"]).unwrap();
            assert_eq!(declared.mark, Some(Mark { epoch: 1_764_547_200, generation: 3 }));
            assert_eq!(declared.queues.len(), queues);
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_its_place() {
        for (yaml, part) in [
            ("", "must be a mapping"),
            ("queue: []", "queue: there is no such field"),
            ("queues: {a: {}}", "queues: must be a list"),
            ("queues: [{}]", "queues[0]: `name` is missing"),
            ("queues: [{name: a}, {name: a}]", "queues[1]: there are two queues `a`"),
            ("queues: [{name: a, limits: {perSecond: 0}}]", "queues[0]: `limits.perSecond`"),
            ("queues: [{name: a, limit: {}}]", "queues[0]: There is no field `limit`"),
            ("queues: [{name: a, paused: 'true'}]", "queues[0]: `paused` is true or false"),
            ("epoch: 1", "give one"),
            ("generation: 0", "1 or more"),
            ("generation: 9007199254740992", "below 2^53"),
        ] {
            let told = read(yaml).unwrap_err().join("\n");
            assert!(told.contains(part), "{yaml}: {told}");
        }
    }
}
