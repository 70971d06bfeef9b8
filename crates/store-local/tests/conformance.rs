//! The conformance suite on the embedded store, and its agreement with the reference.

use std::sync::Arc;

use brisq_store::{Store, conformance::follows_the_model};
use brisq_store_local::{LocalConfig, LocalStore};
use tempfile::TempDir;

async fn open() -> (Arc<dyn Store>, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = LocalStore::open(folder.path(), LocalConfig::default()).expect("a store");
    (Arc::new(store), folder)
}

brisq_store::conformance!(open);

#[tokio::test]
async fn random_walks_agree_with_the_reference() {
    let (store, _folder) = open().await;
    for seed in 1..=4 {
        follows_the_model(Arc::clone(&store), seed).await;
    }
}
