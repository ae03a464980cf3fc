//! The worker threads and what they share: the Leader/Followers pattern (Schmidt et al. 2000).
//!
//! A thread leads an event loop and handles each event itself. Before it blocks it hands the event loop
//! to another thread and goes on with its one request. One thread per permitted request, plus one per
//! event loop, so there is always one to lead. Idle threads are a stack: the most recently used one wakes
//! first, so its caches are warm and the stacks of the rest stay untouched.
//!
//! A connection has a worker only while it has a request. So idle and slow clients take no thread.

pub(super) mod contexts;
pub(super) mod leader;
pub(super) mod pool;
#[cfg(test)]
mod tests;
pub(super) mod worker;
