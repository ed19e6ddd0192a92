//! Which code must not panic and go on.
//!
//! The threads of the pipeline are essential for all their life. A shard is essential while it
//! casts events, but shares its thread with HTTP handlers and with sessions' frame handling, whose
//! panics end one request or one session.

use std::cell::Cell;

thread_local! {
    static ESSENTIAL: Cell<bool> = const { Cell::new(false) };
}

/// Marks the current thread as essential for the rest of its life.
pub fn mark_thread() {
    ESSENTIAL.set(true);
}

/// Runs `work` as essential code.
pub fn essential<R>(work: impl FnOnce() -> R) -> R {
    with(true, work)
}

/// Runs `work` as code whose panic its caller catches.
pub fn contained<R>(work: impl FnOnce() -> R) -> R {
    with(false, work)
}

/// Whether a panic here and now has to end the process.
pub fn is_essential() -> bool {
    ESSENTIAL.get()
}

fn with<R>(essential: bool, work: impl FnOnce() -> R) -> R {
    /// Sets the mark back also when `work` panics and somebody catches it.
    struct Restore(bool);

    impl Drop for Restore {
        fn drop(&mut self) {
            ESSENTIAL.set(self.0);
        }
    }

    let _restore = Restore(ESSENTIAL.replace(essential));
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_restored_after_a_panic() {
        essential(|| {
            let caught = std::panic::catch_unwind(|| contained(|| panic!("in a frame")));

            assert!(caught.is_err());
            assert!(is_essential());
        });
        assert!(!is_essential());
    }
}
