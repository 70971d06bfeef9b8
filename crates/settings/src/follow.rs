use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::Files;

/// How often files that may change are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Calls `again` when one of the `files` differs from what was read of it, and at each SIGHUP; it reads them anew through
/// what it is given, and says whether what it read is in use. Files that a refused one does not name any more are
/// followed on.
///
/// # Errors
/// When the signal cannot be listened to.
pub fn follow(
    mut files: Files,
    mut again: impl FnMut(&mut Files) -> bool + Send + 'static,
) -> io::Result<impl Future<Output = ()> + Send> {
    // From here on SIGHUP does not end the process.
    let mut hangups = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => false,
                _ = hangups.recv() => true,
            };
            let looked_at = files.clone();
            let changed = tokio::task::spawn_blocking(move || looked_at.changed()).await.unwrap_or(false);
            if !asked && !changed {
                continue;
            }
            let mut newer = files.anew();
            if !again(&mut newer) {
                newer.keep(files);
            }
            files = newer;
        }
    })
}

/// From here on SIGHUP does not end the process, of a program that has no files to read again.
///
/// # Errors
/// When the signal cannot be listened to.
pub fn outlive_hangups() -> io::Result<()> {
    // What listened once keeps the signal from its default.
    signal(SignalKind::hangup()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A file that names another: both are followed, also when the first changed between being read and being followed,
    /// and also after a time in which it had a mistake.
    #[tokio::test]
    async fn what_was_read_is_followed_from_the_moment_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (first, second) = (path("first"), path("second"));
        std::fs::write(&second, "1").unwrap();
        std::fs::write(&first, &second).unwrap();
        let mut files = Files::default();
        let named = files.read(&first).unwrap();
        files.read(&named).unwrap();
        // While the program starts.
        std::fs::write(&second, "2").unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let of_first = first.clone();
        let following = follow(files, move |files| {
            counted.fetch_add(1, Ordering::Relaxed);
            let named = files.read(&of_first).unwrap();
            files.read(&named).is_ok()
        });
        tokio::spawn(following.unwrap());
        let reach = async |n: usize| {
            let reached = async {
                while calls.load(Ordering::Relaxed) < n {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), reached)
                .await
                .unwrap_or_else(|_| panic!("call {n}"));
        };
        reach(1).await;
        std::fs::write(&first, "/nowhere").unwrap();
        reach(2).await;
        std::fs::write(&second, "3").unwrap();
        reach(3).await;
    }
}
