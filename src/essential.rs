//! Which code may not fail, and which may fail for one client only.
//!
//! tokio swallows the panic of a task, so an actor of the pipeline could die unseen and leave a
//! half-dead daemon. The daemon's panic hook therefore asks [`is_essential`] and aborts; the one
//! place where a panic may end a single session instead is [`contained`].

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static ESSENTIAL: Cell<bool> = const { Cell::new(false) };
}

/// A panic that was contained; what it said went to the panic hook.
#[derive(Debug, PartialEq, Eq)]
pub struct Panicked;

/// Runs code whose panic must end the process.
pub fn essential<R>(run: impl FnOnce() -> R) -> R {
    let _restore = set(true);
    run()
}

/// Marks the whole thread as essential: for threads that run nothing else, as the pipeline's do.
pub fn essential_thread() {
    ESSENTIAL.set(true);
}

/// Whether a panic on this thread, at this moment, must end the process.
pub fn is_essential() -> bool {
    ESSENTIAL.get()
}

/// Runs code whose panic concerns one client only.
///
/// # Errors
/// [`Panicked`] when it did. The caller drops what `run` worked on.
pub fn contained<R>(run: impl FnOnce() -> R) -> Result<R, Panicked> {
    let _restore = set(false);
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| Panicked)
}

fn set(value: bool) -> Restore {
    Restore(ESSENTIAL.replace(value))
}

/// Puts the flag back, also while a panic passes by: the hook has run by then.
struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        ESSENTIAL.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_holds_inside_and_comes_back_outside() {
        assert!(!is_essential());

        essential(|| {
            assert!(is_essential());
            assert_eq!(contained(is_essential), Ok(false));
            assert!(is_essential());
        });

        assert!(!is_essential());
    }

    #[test]
    fn a_contained_panic_is_reported_and_leaves_the_flag_as_it_was() {
        let outcome = essential(|| (contained(|| panic!("on purpose")), is_essential()));

        assert_eq!(outcome, (Err::<(), _>(Panicked), true));
    }
}
