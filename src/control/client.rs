//! The end of the control socket that commands hold: plain blocking I/O.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

use super::{Answer, Line, MAX_REQUEST_BYTES, Request, VERSION, socket_path};

/// Most bytes of a line of an answer.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the control socket {path}: {error}")]
    Connect { path: String, error: io::Error },
    /// It stopped or died in the middle of it.
    #[error("the daemon went away before it had answered")]
    Gone,
    #[error("the connection to the daemon failed: {0}")]
    Io(#[from] io::Error),
    /// The daemon would hang up in the middle of it.
    #[error(
        "the request has {0} bytes, and the daemon takes at most {MAX_REQUEST_BYTES}: ask for less \
         at a time"
    )]
    TooBig(usize),
    #[error("the daemon's answer is not understood: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error(
        "the daemon speaks version {0} of the control protocol, this program version {VERSION}"
    )]
    Version(u32),
    /// The daemon's own words.
    #[error("{message}")]
    Refused { code: String, message: String },
}

/// A connection to the daemon, for one request.
#[derive(Debug)]
pub struct Client(UnixStream);

impl Client {
    /// Connects to the daemon of a state directory; `None` when none runs there.
    ///
    /// # Errors
    /// When there is one that we may not ask.
    pub fn connect(state_dir: &Path) -> Result<Option<Self>, ClientError> {
        let path = socket_path(state_dir);
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Some(Self(stream))),
            // The second is what a daemon that was killed leaves behind.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(ClientError::Connect { path: path.display().to_string(), error }),
        }
    }

    /// Asks for something.
    pub fn request(mut self, name: &str, parameters: Value) -> Result<Answers, ClientError> {
        let request = Request { version: VERSION, request: name.to_owned(), parameters };
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        if line.len() > MAX_REQUEST_BYTES {
            return Err(ClientError::TooBig(line.len()));
        }
        self.0.write_all(&line)?;
        Ok(Answers { stream: BufReader::new(self.0), line: Vec::new() })
    }
}

/// What the daemon answers to a request. Dropped before the last line it ends what was asked for.
pub struct Answers {
    stream: BufReader<UnixStream>,
    /// The beginning of a line of which the end has not come.
    line: Vec<u8>,
}

impl Answers {
    /// Waits at most this long for each line from now on; `None`: for ever.
    pub fn wait_at_most(&self, patience: Option<Duration>) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(patience)
    }

    /// Reads the next line; `None` when none came in time.
    ///
    /// # Errors
    /// [`ClientError::Gone`] when the connection ends, among others.
    pub fn next_line(&mut self) -> Result<Option<Answer>, ClientError> {
        let room = MAX_LINE_BYTES.saturating_sub(self.line.len() as u64);
        match self.stream.by_ref().take(room).read_until(b'\n', &mut self.line) {
            Ok(_) if self.line.last() != Some(&b'\n') => return Err(ClientError::Gone),
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) =>
            {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(ClientError::Gone);
            }
            Err(error) => return Err(error.into()),
        }
        let line: Line = serde_json::from_slice(&std::mem::take(&mut self.line))?;
        if line.version != VERSION {
            return Err(ClientError::Version(line.version));
        }
        Ok(Some(line.answer))
    }

    /// Waits for the end and gives the result; progress on the way goes to `tell`.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the daemon's words, among others.
    pub fn finish(mut self, mut tell: impl FnMut(Value)) -> Result<Value, ClientError> {
        loop {
            match self.next_line()? {
                None => {}
                Some(Answer::Progress { progress }) => tell(progress),
                Some(Answer::Done { result }) => return Ok(result),
                Some(Answer::Error { code, message }) => {
                    return Err(ClientError::Refused { code, message });
                }
            }
        }
    }
}
