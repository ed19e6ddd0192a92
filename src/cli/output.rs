//! Standard output, for commands whose answer is a text.

use std::io::{self, ErrorKind, Write};

/// Writes a text. A reader that went away (`nodecast config default | head`) is no fault.
///
/// # Errors
/// When standard output cannot be written, a full disk for one.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
