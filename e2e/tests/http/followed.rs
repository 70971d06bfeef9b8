//! A file that is followed as a kubelet changes it: by another link, in one step.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// Hashes of "secret" and "a".
const HASHES: [(&str, &str); 2] = [
    ("secret", "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"),
    ("a", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
];
/// Looks are two seconds apart.
const SEEN_AFTER: Duration = Duration::from_secs(8);

/// The volume shows this from now on.
fn swap(volume: &Path, generation: u32, text: &str) {
    let folder = format!("..{generation}");
    std::fs::create_dir(volume.join(&folder)).expect("made");
    std::fs::write(volume.join(&folder).join("tokens.yaml"), text).expect("written");
    symlink(&folder, volume.join("..data_tmp")).expect("linked");
    std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("renamed");
    // The one before goes with it.
    let _ = std::fs::remove_dir_all(volume.join(format!("..{}", generation - 1)));
}

#[test]
fn a_mounted_secret_is_followed_and_an_empty_or_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let volume = folder.path();
    let of = |which: usize| {
        let hash = HASHES[which].1;
        format!("tokens:\n- {{name: a, sha256: {hash}, tenant: t, scopes: [\"tasks:read\"]}}\n")
    };
    swap(volume, 1, &of(0));
    symlink("..data/tokens.yaml", volume.join("tokens.yaml")).expect("linked");
    let file = volume.join("tokens.yaml").display().to_string();
    let server = Server::start(Store::Embedded, &["--tokens", &file]).expect("a server");
    let mut tokens = HASHES.map(|(token, _)| server.program.http().expect("a connection").with_token(token));
    let mut taken = || tokens.each_mut().map(|http| get(http, "/v1/queues").status == 200);
    let within = |what: &str, holds: &mut dyn FnMut() -> bool| {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < SEEN_AFTER, "not in {SEEN_AFTER:?}: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    assert_eq!(taken(), [true, false]);
    swap(volume, 2, &of(1));
    within("the other token", &mut || taken() == [false, true]);
    for (generation, text) in [(3, ""), (4, "tokens: {"), (5, "\n---\n")] {
        let refusals = || server.program.log().matches("are not in use").count();
        let before = refusals();
        swap(volume, generation, text);
        within("that it is refused", &mut || refusals() > before);
        assert_eq!(taken(), [false, true], "{text:?} changes nothing");
    }
    swap(volume, 6, &of(0));
    within("the first token", &mut || taken() == [true, false]);
    std::fs::remove_file(volume.join("..data")).expect("unmounted");
    std::thread::sleep(SEEN_AFTER / 2);
    assert_eq!(taken(), [true, false], "a file that is gone changes nothing");
}
