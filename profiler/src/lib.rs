//! brisq-profiler
