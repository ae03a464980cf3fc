//! The worker threads.

pub(super) mod contexts;
pub(super) mod leader;
pub(super) mod pool;
