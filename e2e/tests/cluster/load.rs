//! Load on the Service, from within the cluster: there it reaches every server, as workers do. A port that is forwarded
//! to this machine leads to one pod and ends with it.

use brisq_testkit::Kubectl;
use serde_json::Value;

use crate::steps::image;

/// A pod that runs `brisq load`; it is gone when this is.
pub struct Load {
    kubectl: Kubectl,
    pod: String,
}

/// Starts it, and waits until it runs.
pub fn load(kubectl: &Kubectl, args: &[&str]) -> Load {
    let args = serde_json::to_string(args).expect("JSON");
    let manifest =
        include_str!("../../manifests/load.yaml").replace("IMAGE", &image("")).replace("ARGS", &args);
    let made = kubectl.feed(&["create", "-f", "-", "-o", "name"], &manifest).expect("a load");
    let load = Load { kubectl: kubectl.clone(), pod: made.trim().to_owned() };
    load.wait("Ready", "60s");
    load
}

impl Load {
    /// Its report, once it has ended by itself.
    pub fn done(self) -> Value {
        self.wait("Ready=False", "120s");
        let pod = self.kubectl.get(&[&self.pod]).expect("its pod");
        let report = pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"].as_str();
        let report = report.unwrap_or_else(|| panic!("no report: {}\n{}", pod["status"], self.log()));
        serde_json::from_str(report).unwrap_or_else(|error| panic!("{error}: {report}\n{}", self.log()))
    }

    fn wait(&self, condition: &str, timeout: &str) {
        let condition = format!("--for=condition={condition}");
        self.kubectl
            .run(&["wait", &condition, &self.pod, &format!("--timeout={timeout}")])
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
    }

    fn log(&self) -> String {
        self.kubectl.run(&["logs", &self.pod, "--tail=20"]).unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // The namespace ends with the test: what is left there is no harm.
        let _ = self.kubectl.run(&["delete", &self.pod, "--now", "--wait=false"]);
    }
}
