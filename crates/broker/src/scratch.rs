//! The buffer a shard reads into. Idle connections own none.

use std::cell::RefCell;

/// Bytes read from a socket at once.
pub(crate) const SCRATCH: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
    static PLAIN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the shard's buffer. Never nested: `work` is synchronous and belongs to one connection.
pub(crate) fn with<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| work(buffer))
}

/// Lends the shard's buffer for what was decrypted of the one above. Never nested in itself; made when it is first used.
pub(crate) fn with_plain<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    PLAIN.with_borrow_mut(|buffer| {
        buffer.resize(SCRATCH, 0);
        work(buffer)
    })
}
