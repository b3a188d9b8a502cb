//! The buffer a shard reads into. Idle connections own none.

use std::cell::RefCell;

/// Bytes read from a socket at once.
pub(crate) const SCRATCH: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Lends the shard's buffer. Never nested: `work` is synchronous and belongs to one connection.
pub(crate) fn with<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| work(buffer))
}
