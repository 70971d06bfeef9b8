//! The conformance suite on the embedded store, and its agreement with the reference.

use std::sync::Arc;

use brisq_store::{Store, conformance::follows_the_model};
use brisq_store_local::{LocalConfig, LocalStore};
use tempfile::TempDir;

/// One process has the store: there is no second handle.
async fn open(handles: usize) -> (Vec<Arc<dyn Store>>, TempDir) {
    assert_eq!(handles, 1);
    let folder = tempfile::tempdir().expect("a folder");
    let store = LocalStore::open(folder.path(), LocalConfig::default()).expect("a store");
    (vec![Arc::new(store)], folder)
}

brisq_store::conformance!(open, 1);

#[tokio::test]
async fn random_walks_agree_with_the_reference() {
    let (mut stores, _folder) = open(1).await;
    let store = stores.remove(0);
    for seed in 1..=4 {
        follows_the_model(Arc::clone(&store), seed).await;
    }
}
