//! Spare contexts: what a finished request needed, kept for the next one. They hold buffers and idle
//! upstream connections.
//!
//! Called by the worker threads and the accept thread. The lock is held for a few instructions.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::server::limits::CONTEXT_IDLE_TIMEOUT;

/// A stack of contexts, each with the time since which it is unused. The last one was used most recently,
/// so its memory is most likely in the caches.
pub(crate) struct Contexts<C>(Mutex<Vec<(Box<C>, Instant)>>);

impl<C> Contexts<C> {
    pub(crate) fn new() -> Self {
        Contexts(Mutex::default())
    }

    pub(crate) fn put(&self, context: Box<C>) {
        let since = Instant::now();
        self.lock().push((context, since));
    }

    /// Takes the context that was used most recently.
    pub(crate) fn take(&self) -> Option<Box<C>> {
        self.lock().pop().map(|(context, _)| context)
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Drops the contexts that have been unused for [`CONTEXT_IDLE_TIMEOUT`].
    pub(crate) fn drop_idle(&self, now: Instant) {
        let mut contexts = self.lock();
        let is_idle =
            |(_, since): &(_, Instant)| now.duration_since(*since) >= CONTEXT_IDLE_TIMEOUT;
        // The stack is in the order in which its contexts became unused.
        let count = contexts
            .iter()
            .take_while(|context| is_idle(context))
            .count();
        let idle: Vec<_> = contexts.drain(..count).collect();
        // Dropping them closes connections, which takes too long for the lock.
        drop(contexts);
        drop(idle);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Box<C>, Instant)>> {
        // Nothing that can panic runs under this lock, so a poisoned one is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_recently_used_context_is_taken_first() {
        let contexts = Contexts::new();
        for context in [0, 1] {
            contexts.put(Box::new(context));
        }
        assert_eq!(contexts.count(), 2);
        let taken: Vec<_> = (0..3)
            .map(|_| contexts.take().map(|taken| *taken))
            .collect();
        assert_eq!(taken, [Some(1), Some(0), None]);
    }

    #[test]
    fn contexts_that_stay_unused_for_long_are_dropped() {
        let contexts = Contexts::new();
        let put = Instant::now();
        contexts.put(Box::new('a'));
        contexts.drop_idle(put + CONTEXT_IDLE_TIMEOUT / 2);
        assert_eq!(contexts.count(), 1);
        contexts.drop_idle(Instant::now() + CONTEXT_IDLE_TIMEOUT);
        assert_eq!(contexts.count(), 0);
    }
}
