//! The daemon's end of the control socket.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener as StdListener,
    },
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::prelude::*;
use async_trait::async_trait;
use serde_json::{Value, json};
use slog::{Logger, debug, o, warn};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::timeout,
};

use super::{
    Answer, Command, Line, MAX_REQUEST_BYTES, Refusal, Request, Told, VERSION, socket_path,
};
use crate::stats::Stats;

/// Clients at one time; a command is typed by hand.
pub const MAX_CLIENTS: usize = 16;

/// How long a client may take to send its request, and to read a line of the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Wait after a connection could not be accepted: most likely files are short.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Lines of progress that may wait for the client.
const QUEUED_LINES: usize = 4;

/// A socket that listens, and its file.
pub struct Socket {
    file: SocketFile,
    listener: StdListener,
}

/// The name of a socket, and which file it was given to.
#[derive(Clone, Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Removes the file, where it still is the one that was made: after a daemon hung, another one
    /// may have put its own there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => {
                remove(&self.path)
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Socket {
    /// Listens in the state directory. A socket that a daemon left behind is replaced; only the
    /// daemon that holds the store's lease may call this, so nobody can be there any more.
    ///
    /// # Errors
    /// Those of the file system; a path that is too long for a socket is one of them.
    pub fn bind(state_dir: &Path) -> io::Result<Self> {
        let path = socket_path(state_dir);
        // It gets its mode before it gets its name: nobody else can connect in between.
        let unfinished = state_dir.join(format!(".control.{}", std::process::id()));
        remove(&unfinished)?;
        let listener = StdListener::bind(&unfinished)?;
        let placed = || {
            fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600))?;
            let made = fs::symlink_metadata(&unfinished)?;
            fs::rename(&unfinished, &path)?;
            listener.set_nonblocking(true)?;
            Ok(made)
        };
        match placed() {
            Ok(made) => {
                let file = SocketFile { path, device: made.dev(), inode: made.ino() };
                Ok(Self { file, listener })
            }
            Err(error) => {
                remove(&unfinished)?;
                Err(error)
            }
        }
    }

    pub fn file(&self) -> &SocketFile {
        &self.file
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Answers requests, each by its [`Command`].
pub struct ControlServer {
    socket: Option<Socket>,
    commands: Vec<Box<dyn Command>>,
    stats: Arc<Stats>,
    logger: Logger,
}

impl ControlServer {
    pub fn new(
        socket: Socket,
        commands: Vec<Box<dyn Command>>,
        stats: Arc<Stats>,
        logger: &Logger,
    ) -> Self {
        let logger = logger.new(o!("actor" => "control"));
        let mut all: Vec<Box<dyn Command>> = vec![Box::new(Ping)];
        all.extend(commands);
        Self { socket: Some(socket), commands: all, stats, logger }
    }
}

impl Actor for ControlServer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(socket) = self.socket.take() else { return };
        let listener = match UnixListener::from_std(socket.listener) {
            Ok(listener) => listener,
            Err(error) => {
                warn!(self.logger, "the control socket does not listen"; "error" => %error);
                return;
            }
        };
        let commands: Rc<[Box<dyn Command>]> = std::mem::take(&mut self.commands).into();
        ctx.spawn(
            accept(listener, commands, self.stats.clone(), self.logger.clone()).into_actor(self),
        );
    }
}

/// A place among the clients, free again when it is dropped.
struct Place(Arc<Stats>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.control_clients.add(-1);
    }
}

async fn accept(
    listener: UnixListener,
    commands: Rc<[Box<dyn Command>]>,
    stats: Arc<Stats>,
    logger: Logger,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(logger, "a connection to the control socket failed"; "error" => %error);
                actix_rt::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // They are all on this thread.
        let others = stats.control_clients.get();
        stats.control_clients.add(1);
        let place = Place(stats.clone());
        let (commands, logger) = (commands.clone(), logger.clone());
        actix_rt::spawn(async move {
            let _place = place;
            let served = if others < MAX_CLIENTS as i64 {
                serve(stream, &commands).await
            } else {
                let busy = format!("{MAX_CLIENTS} clients are served already");
                let (_, mut write) = stream.into_split();
                end(&mut write, Err(Refusal::new("busy", busy))).await
            };
            if let Err(error) = served {
                debug!(logger, "a client of the control socket is gone"; "error" => %error);
            }
        });
    }
}

/// Serves one connection.
async fn serve(stream: UnixStream, commands: &[Box<dyn Command>]) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let (command, parameters) = match request(&mut read, commands).await? {
        Ok(found) => found,
        Err(refusal) => return end(&mut write, Err(refusal)).await,
    };
    let (told, mut lines) = mpsc::channel(QUEUED_LINES);
    let told = Told(told);
    let running = command.run(parameters, &told);
    tokio::pin!(running);
    let result = loop {
        tokio::select! {
            biased;
            Some(progress) = lines.recv() => say(&mut write, Answer::Progress { progress }).await?,
            result = &mut running => break result,
            // What it had begun ends with its future.
            gone = hang_up(&mut read) => return gone,
        }
    };
    while let Ok(progress) = lines.try_recv() {
        say(&mut write, Answer::Progress { progress }).await?;
    }
    end(&mut write, result).await
}

type Found<'c> = Result<(&'c dyn Command, Value), Refusal>;

/// Reads the one line of a client and finds what it asks for.
async fn request<'c>(
    read: &mut BufReader<OwnedReadHalf>,
    commands: &'c [Box<dyn Command>],
) -> io::Result<Found<'c>> {
    let mut line = Vec::new();
    let mut limited = read.take(MAX_REQUEST_BYTES as u64 + 1);
    timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await??;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(understand(&line, commands))
}

fn understand<'c>(line: &[u8], commands: &'c [Box<dyn Command>]) -> Found<'c> {
    if line.len() > MAX_REQUEST_BYTES {
        let text = format!("a request has at most {MAX_REQUEST_BYTES} bytes");
        return Err(Refusal::new("too_big", text));
    }
    let request: Request = serde_json::from_slice(line).map_err(|error| {
        Refusal::bad_request(format!("a request is {{\"version\":1,\"request\":..}}: {error}"))
    })?;
    if request.version != VERSION {
        let text = format!(
            "this daemon speaks version {VERSION} and not {}: use the program that it was started from",
            request.version
        );
        return Err(Refusal::new("version", text));
    }
    let Some(command) = commands.iter().find(|command| command.name() == request.request) else {
        let names: Vec<_> = commands.iter().map(|command| command.name()).collect();
        let text = format!(
            "this daemon knows no request {:?}, only {}",
            request.request,
            names.join(", ")
        );
        return Err(Refusal::new("unknown_request", text));
    };
    Ok((&**command, request.parameters))
}

/// Ends when the client has closed the connection. What it sends besides its request is passed over.
async fn hang_up(read: &mut BufReader<OwnedReadHalf>) -> io::Result<()> {
    let mut passed_over = [0; 512];
    while read.read(&mut passed_over).await? > 0 {}
    Ok(())
}

async fn say(write: &mut OwnedWriteHalf, answer: Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Line { version: VERSION, answer })?;
    line.push(b'\n');
    timeout(PATIENCE, write.write_all(&line)).await?
}

async fn end(write: &mut OwnedWriteHalf, result: Result<Value, Refusal>) -> io::Result<()> {
    let answer = match result {
        Ok(result) => Answer::Done { result },
        Err(Refusal { code, message }) => Answer::Error { code: code.to_owned(), message },
    };
    say(write, answer).await
}

/// Tells who answers.
struct Ping;

#[async_trait(?Send)]
impl Command for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }

    async fn run(&self, _: Value, _: &Told) -> Result<Value, Refusal> {
        Ok(json!({"pid": std::process::id(), "program": env!("CARGO_PKG_VERSION")}))
    }
}

#[cfg(test)]
mod tests;
