use std::io;
use std::path::{Path, PathBuf};

/// Period of a quota, µs: the kernel's default, and what Kubernetes sets.
const PERIOD_US: u64 = 100_000;

/// A cgroup with the CPU controller that is removed when it goes out of scope. Its processes must have ended by then.
#[derive(Debug)]
pub struct CpuGroup {
    folder: PathBuf,
    unified: bool,
}

impl CpuGroup {
    /// Makes one without a quota.
    ///
    /// # Errors
    /// When there is no CPU controller that may be written here: that takes root.
    pub fn new(name: &str) -> io::Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/cpu");
        let unified = !v1.join("cpu.cfs_quota_us").exists() && !v1.join("tasks").exists();
        let parent = if unified { Path::new("/sys/fs/cgroup") } else { v1 };
        let folder = parent.join(format!("brisq-test-{}-{name}", std::process::id()));
        if unified {
            std::fs::write(parent.join("cgroup.subtree_control"), "+cpu")?;
        }
        std::fs::create_dir(&folder).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{} cannot be made ({error}): run as root", folder.display()),
            )
        })?;
        Ok(Self { folder, unified })
    }

    /// The command that runs another one inside.
    #[must_use]
    pub fn under(&self) -> Vec<String> {
        let procs = self.folder.join("cgroup.procs");
        ["sh", "-c", &format!("echo $$ > {} && exec \"$0\" \"$@\"", procs.display())]
            .map(str::to_owned)
            .into()
    }

    /// Shares of a new group, and of a process outside of any.
    pub const SHARES: u64 = 1_024;

    /// Weighs so much from now on against others that want CPU. Kubernetes sets these shares from a container's request, 1,024
    /// for each CPU.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_shares(&self, shares: u64) -> io::Result<()> {
        if self.unified {
            // As Kubernetes converts them.
            let weight = 1 + shares.saturating_sub(2) * 9_999 / 262_142;
            return std::fs::write(self.folder.join("cpu.weight"), weight.to_string());
        }
        std::fs::write(self.folder.join("cpu.shares"), shares.to_string())
    }

    /// Grants so many CPUs from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_quota(&self, cpus: f64) -> io::Result<()> {
        let quota_us = (cpus * PERIOD_US as f64) as u64;
        if self.unified {
            return std::fs::write(self.folder.join("cpu.max"), format!("{quota_us} {PERIOD_US}"));
        }
        std::fs::write(self.folder.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
        std::fs::write(self.folder.join("cpu.cfs_quota_us"), quota_us.to_string())
    }
}

impl Drop for CpuGroup {
    fn drop(&mut self) {
        // A killed process leaves its cgroup a moment after it was waited for.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("{} is left behind", self.folder.display());
    }
}
