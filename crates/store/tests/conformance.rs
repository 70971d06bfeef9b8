//! The conformance suite on the in-memory reference.

use std::sync::Arc;

use brisq_store::{MemoryStore, Store};

async fn open(handles: usize) -> (Vec<Arc<dyn Store>>, ()) {
    let store = MemoryStore::default();
    let others = (1..handles).map(|_| store.another_handle()).collect::<Vec<_>>();
    let all = std::iter::once(store).chain(others).map(|store| Arc::new(store) as Arc<dyn Store>);
    (all.collect(), ())
}

mod one_handle {
    brisq_store::conformance!(super::open, 1);
    brisq_store::wakeups!(super::open, 1);
}

mod two_handles {
    brisq_store::conformance!(super::open, 2);
    brisq_store::wakeups!(super::open, 2);
}
