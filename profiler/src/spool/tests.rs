use std::fs::File;

use tempfile::TempDir;

use super::*;

const MIB: u64 = 1024 * 1024;
const HOUR: Duration = Duration::from_secs(3_600);

/// A folder of captures.
struct Rig {
    folder: TempDir,
    artifacts: Artifacts,
    now: SystemTime,
}

impl Rig {
    fn new(bytes_max: Option<u64>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::folder(folder.path(), "captures").unwrap();
        let artifacts = bytes_max.map_or(artifacts.clone(), |most| artifacts.bounded(most));
        Self { folder, artifacts, now: SystemTime::now() }
    }

    /// A file of so many bytes that takes no room on the disk, last written so long ago.
    fn file(&mut self, path: &str, bytes: u64, age: Duration) {
        let path = self.folder.path().join("captures").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = File::create(&path).unwrap();
        file.set_len(bytes).unwrap();
        self.touch(&path, age);
    }

    /// The file and the folders above it, each of which changed with it.
    fn touch(&self, path: &FilePath, age: Duration) {
        for path in path.ancestors().take_while(|path| *path != self.folder.path()) {
            File::open(path).unwrap().set_modified(self.now - age).unwrap();
        }
    }

    /// A whole capture of so many bytes beside its manifest.
    fn whole(&mut self, path: &str, reason: &str, bytes: u64, age: Duration) {
        self.file(&format!("{path}/cpu.pb.gz"), bytes, age);
        let manifest = self.folder.path().join("captures").join(path).join(MANIFEST);
        let window = serde_json::json!({"fromMs": 1, "toMs": 2});
        let text = serde_json::json!({"reason": reason, "onsetInside": true, "window": window, "files": []});
        std::fs::write(&manifest, text.to_string()).unwrap();
        self.touch(&manifest, age);
    }

    /// Names of the captures that are there, whole or not.
    fn left(&self) -> Vec<String> {
        let entries = |folder: PathBuf| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let name = |folder: PathBuf| folder.file_name().unwrap().to_string_lossy().into_owned();
        let mut names: Vec<_> =
            entries(self.folder.path().join("captures")).flat_map(entries).map(name).collect();
        names.sort();
        names
    }

    async fn prune(&self, captures: usize, files: usize, bytes: Option<u64>) -> Contents {
        self.artifacts.prune_to(Bounds { captures, files, bytes }).await.unwrap()
    }
}

fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

#[tokio::test]
async fn what_killed_profilers_left_makes_room_and_no_whole_capture_goes_for_it() {
    for age in [20, 5] {
        let mut rig = Rig::new(Some(768 * MIB));
        rig.whole("2026-11-20/whole", "Breach", 10 * MIB, HOUR);
        for n in 0..16 {
            rig.file(&format!("2026-11-21/left-{n}/cpu.pb.gz"), 30 * MIB, minutes(age));
            // What a writer had in hand when it was killed; `object_store` does not list it.
            rig.file(&format!("2026-11-21/left-{n}/pods/b/flame.svg#1"), 30 * MIB, minutes(age));
        }
        let guard = rig.artifacts.make_room(MIB).await.unwrap();
        let left = rig.artifacts.contents().await.unwrap();
        assert!(guard.is_some() && left.bytes <= 768 * MIB, "{age} min: {} bytes", left.bytes);
        assert!(rig.left().contains(&"whole".to_owned()), "{age} min: {:?}", rig.left());
        assert_eq!(rig.left().len() == 1, age >= 15, "{age} min: {:?}", rig.left());
    }
}

#[tokio::test]
async fn what_is_being_written_stays_and_a_bundle_for_which_there_is_no_room_is_refused() {
    let mut rig = Rig::new(Some(768 * MIB));
    for n in 0..16 {
        rig.file(&format!("2026-11-21/busy-{n}/cpu.pb.gz"), 60 * MIB, minutes(1));
    }
    let refused = rig.artifacts.make_room(MIB).await.map(drop);
    assert!(
        matches!(refused, Err(WriteError::NoRoom { used, files: 32 }) if used == 960 * MIB),
        "{refused:?}"
    );
    assert_eq!(rig.left().len(), 16);
}

#[tokio::test]
async fn a_clock_that_was_ahead_keeps_nothing_for_ever() {
    let mut rig = Rig::new(None);
    rig.file("2026-11-21/ahead/cpu.pb.gz", 1, Duration::ZERO);
    for path in ["captures/2026-11-21/ahead/cpu.pb.gz", "captures/2026-11-21/ahead"] {
        let file = File::open(rig.folder.path().join(path)).unwrap();
        file.set_modified(rig.now + 24 * HOUR).unwrap();
    }
    rig.artifacts.tidy().await.unwrap();
    assert!(rig.left().is_empty(), "{:?}", rig.left());
}

#[tokio::test]
async fn an_empty_folder_of_a_capture_is_one_that_was_left() {
    let rig = Rig::new(None);
    let folder = rig.folder.path().join("captures/2026-11-21/empty");
    std::fs::create_dir_all(&folder).unwrap();
    rig.artifacts.tidy().await.unwrap();
    assert_eq!(rig.left(), ["empty"], "it may be the beginning of one");
    rig.touch(&folder, HOUR);
    rig.artifacts.tidy().await.unwrap();
    assert!(!folder.parent().unwrap().exists(), "with its day");
}

#[tokio::test]
async fn the_oldest_go_first_by_number_bytes_and_files() {
    for (what, captures, files, bytes) in
        [("number", 2, 99, None), ("bytes", 99, 99, Some(25 * MIB)), ("files", 99, 7, None)]
    {
        let mut rig = Rig::new(None);
        for (n, name) in ["2026-11-22/a", "2026-11-23/b", "2026-11-23/c"].into_iter().enumerate() {
            rig.whole(name, "Breach", 10 * MIB, HOUR - minutes(n as u64));
        }
        rig.prune(captures, files, bytes).await;
        assert_eq!(rig.left(), ["b", "c"], "{what}");
        assert!(!rig.folder.path().join("captures/2026-11-22").exists(), "{what}: an empty day goes, too");
        rig.prune(0, 0, Some(0)).await;
        assert_eq!(rig.left(), ["c"], "the newest stays: somebody waits for it");
    }
}

#[tokio::test]
async fn a_capture_by_hand_goes_before_any_of_a_breach_whichever_is_older() {
    let mut rig = Rig::new(None);
    for (n, (name, reason)) in
        [("a", "Breach"), ("b", "Manual"), ("c", "ServerLost"), ("d", "Manual"), ("e", "Manual")]
            .into_iter()
            .enumerate()
    {
        rig.whole(&format!("2026-11-22/{name}"), reason, 1, HOUR - minutes(n as u64));
    }
    rig.prune(4, 99, None).await;
    assert_eq!(rig.left(), ["a", "c", "d", "e"]);
    rig.prune(3, 99, None).await;
    assert_eq!(rig.left(), ["a", "c", "e"]);
    rig.prune(2, 99, None).await;
    assert_eq!(rig.left(), ["c", "e"], "only the newest is worth more than a breach");
}

#[tokio::test]
async fn what_is_no_capture_is_counted_and_never_removed() {
    let mut rig = Rig::new(None);
    let foreign = ["notes/old/manifest.json", "2026-11-2x/old/manifest.json", "2026-11-20/file", "readme"];
    for path in foreign {
        rig.file(path, MIB, HOUR);
    }
    rig.whole("2026-11-22/a", "Breach", 1, HOUR);
    rig.whole("2026-11-22/b", "Breach", 1, minutes(1));
    let contents = rig.prune(9, 99, Some(2 * MIB)).await;
    assert!(contents.bytes >= 4 * MIB, "{contents:?}");
    for path in foreign {
        assert!(rig.folder.path().join("captures").join(path).exists(), "{path}");
    }
}

#[tokio::test]
async fn a_store_that_is_no_folder_is_bounded_by_number_and_left_overs_go_there_too() {
    let mut rig = Rig::new(None);
    rig.artifacts.spool = None;
    rig.whole("2026-11-22/a", "Breach", 1, HOUR);
    rig.whole("2026-11-22/b", "Breach", 1, minutes(1));
    rig.file("2026-11-22/left/pods/b/cpu.pb.gz", 1, HOUR);
    rig.prune(1, 99, None).await;
    let files = list(&rig.artifacts.store, &rig.artifacts.root).await.unwrap();
    let paths: Vec<_> = files.iter().map(|file| file.path.as_ref()).collect();
    assert!(paths.iter().all(|path| path.starts_with("captures/2026-11-22/b/")), "{paths:?}");
    assert_eq!(paths.len(), 2);
}
