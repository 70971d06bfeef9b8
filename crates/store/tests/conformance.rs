//! The conformance suite on the in-memory reference.

use std::sync::Arc;

use brisq_store::{MemoryStore, Store};

async fn open() -> (Arc<dyn Store>, ()) {
    (Arc::new(MemoryStore::default()), ())
}

brisq_store::conformance!(open);
