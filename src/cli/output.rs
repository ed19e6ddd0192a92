//! Standard output, for commands whose answer is a text.

use std::io::{self, BufWriter, ErrorKind, Write};

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

/// Writes lines as they come. A reader that went away is no fault here either.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_lines(mut lines: impl Iterator<Item = String>) -> io::Result<()> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    let written = lines.try_for_each(|line| writeln!(stdout, "{line}"));
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
