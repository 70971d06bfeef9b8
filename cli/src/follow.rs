//! A manifest that changes while `brisq up` runs it: its queues are taken into use, and all else at the next start.

use std::io;
use std::sync::Arc;

use brisq_crd::TaskQueueSpec;
use brisq_server::Declared;
use brisq_settings::Files;
use brisq_telemetry::{complain, say};

use crate::Failed;
use crate::plan::Plan;

/// Takes the queues of `file` into use whenever it changes, and at SIGHUP. One with mistakes changes nothing.
///
/// # Errors
/// When the signal cannot be listened to.
pub fn follow(
    files: Files,
    file: String,
    demo: bool,
    running: &Plan,
    declared: Arc<Declared>,
) -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let (name, spec) = (running.name.clone(), running.spec.clone());
    brisq_settings::follow(files, move |files| match Plan::of_file(&file, demo, files) {
        Ok(newer) => {
            declared.adopt(Some(newer.spec.declared_queues()));
            say(&format!("queues     {} of {file}, read again", newer.spec.queues.len()));
            if newer.name != name || without_queues(&newer.spec) != without_queues(&spec) {
                say(&format!("unchanged  all else in {file} is taken into use at the next start"));
            }
            true
        }
        Err(Failed::Usage(mistakes)) => {
            mistakes.iter().for_each(|mistake| complain(mistake));
            complain(&format!("{file} was read again and is not in use"));
            false
        }
        Err(Failed::Work(error)) => {
            complain(&format!("{file} was read again and is not in use: {error:#}"));
            false
        }
    })
}

fn without_queues(spec: &TaskQueueSpec) -> TaskQueueSpec {
    TaskQueueSpec { queues: Vec::new(), ..spec.clone() }
}
