//! Ends statements that take too long.
//!
//! SQLite has no time limit of its own: it asks a handler of the connection every some thousand
//! steps whether to go on. Diesel does not hand out its connections' handles, so the handler is
//! set by an extension that SQLite runs on each connection as it is opened.
//! Invariant: only a thread within [`within`] has a deadline; the writer never has one.

use std::{
    cell::Cell,
    ffi::{c_char, c_int, c_void},
    ptr,
    sync::Once,
    time::{Duration, Instant},
};

use libsqlite3_sys::{
    SQLITE_OK, sqlite3, sqlite3_api_routines, sqlite3_auto_extension, sqlite3_progress_handler,
};

use super::fault::Fault;
use crate::store::StoreError;

/// Steps of SQLite's virtual machine between two looks at the clock: well under a millisecond.
const STEPS: c_int = 10_000;

thread_local! {
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Has every connection that is opened from now on look at the deadline of its thread.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: `set_handler` has the signature that SQLite calls it with, and is never unloaded.
        let result = unsafe { sqlite3_auto_extension(Some(set_handler)) };
        assert_eq!(result, SQLITE_OK, "only want of memory can make this fail");
    });
}

/// Runs a read, which is broken off after `limit`.
///
/// # Errors
/// [`StoreError::TooSlow`] when it was, else those of the read.
pub fn within<T>(limit: Duration, read: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    /// Takes the deadline back also when a panic passes through.
    struct Reset;

    impl Drop for Reset {
        fn drop(&mut self) {
            DEADLINE.set(None);
        }
    }

    DEADLINE.set(Instant::now().checked_add(limit));
    let _reset = Reset;
    read().map_err(|fault| if is_over() { Fault(StoreError::TooSlow(limit)) } else { fault })
}

fn is_over() -> bool {
    DEADLINE.get().is_some_and(|deadline| Instant::now() >= deadline)
}

unsafe extern "C" fn set_handler(
    connection: *mut sqlite3,
    _message: *mut *mut c_char,
    _routines: *const sqlite3_api_routines,
) -> c_int {
    // SAFETY: SQLite gives the connection that it is opening; the handler needs no data of its own.
    unsafe { sqlite3_progress_handler(connection, STEPS, Some(ask), ptr::null_mut()) };
    SQLITE_OK
}

/// Anything but 0 interrupts the statement.
unsafe extern "C" fn ask(_: *mut c_void) -> c_int {
    c_int::from(is_over())
}
