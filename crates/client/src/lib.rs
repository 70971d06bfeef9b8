//! brisq-client
