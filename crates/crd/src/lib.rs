//! brisq-crd
