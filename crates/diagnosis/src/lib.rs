//! brisq-diagnosis
