//! A TCP proxy on loopback between a daemon and its server, which cuts, loses and swallows as told.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{PATIENCE, until};

/// How often a pump that hears nothing looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// What PostgreSQL says when a statement is over and no transaction is open.
const READY_AND_IDLE: &[u8] = b"Z\0\0\0\x05I";

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Server,
}

/// What happens to connections, the old and the new ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Pass,
    /// Connections are taken, and what comes over them vanishes.
    Swallow,
    /// Nobody listens; there are no connections.
    Refuse,
}

#[derive(Default)]
struct State {
    mode: Mode,
    /// A connection is cut when so many more bytes have come from there, over all connections.
    cut_after: Option<(From, usize)>,
    /// The connection on which the client says this is cut when the server has done it, and nobody
    /// is let in again: [`Mode::Refuse`].
    lose_answer_to: Option<&'static [u8]>,
    target: Option<SocketAddr>,
    connections: Vec<Arc<Connection>>,
    cuts: usize,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// Bytes of it were swallowed: it is of no use any more.
    spoilt: AtomicBool,
    /// The answers to what the client says are lost.
    answer_lost: AtomicBool,
}

impl Connection {
    fn cut(&self) {
        // What is closed already is as cut as can be.
        self.client.shutdown(Shutdown::Both).ok();
        self.server.shutdown(Shutdown::Both).ok();
    }
}

/// The proxy. Its threads end with it.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    over: Arc<AtomicBool>,
}

impl Proxy {
    pub fn to(target: SocketAddr) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), target)
    }

    /// Listens at this address, for clients that know no other.
    ///
    /// # Panics
    /// When it stays taken.
    pub fn at(address: SocketAddr, target: SocketAddr) -> Self {
        let mut bound = TcpListener::bind(address);
        // The thread of another proxy may have it for a moment more.
        until(PATIENCE, || {
            if bound.is_err() {
                bound = TcpListener::bind(address);
            }
            bound.is_ok()
        });
        let listener = bound.unwrap_or_else(|error| panic!("{address}: {error}"));
        let address = listener.local_addr().unwrap();
        let state = State { target: Some(target), ..State::default() };
        let proxy = Self { address, state: Arc::new(Mutex::new(state)), over: Arc::default() };
        let (state, over) = (proxy.state.clone(), proxy.over.clone());
        thread::spawn(move || accept(address, listener, &state, &over));
        proxy
    }

    /// Stands in front of the server of a database, and gives the URL that leads through it.
    pub fn before(url: &str) -> (Self, String) {
        let rest = url.split_once('@').unwrap().1;
        let (host, _) = rest.split_once('/').unwrap();
        let proxy = Self::to(host.parse().unwrap());
        let through = url.replace(host, &proxy.address.to_string());
        (proxy, through)
    }

    /// From now on the server is another one; connections to the old one are cut.
    pub fn forward_to(&self, target: SocketAddr) {
        self.state().target = Some(target);
        self.cut();
    }

    /// Connections that were cut on purpose, after bytes or for a lost answer.
    pub fn cuts(&self) -> usize {
        self.state().cuts
    }

    pub fn cut(&self) {
        self.state().connections.drain(..).for_each(|connection| connection.cut());
    }

    pub fn cut_after(&self, from: From, bytes: usize) {
        self.state().cut_after = Some((from, bytes));
    }

    pub fn lose_answer_to(&self, said: &'static [u8]) {
        self.state().lose_answer_to = Some(said);
    }

    pub fn swallow(&self) {
        self.state().mode = Mode::Swallow;
    }

    pub fn refuse(&self) {
        self.state().mode = Mode::Refuse;
        self.cut();
    }

    /// All is well again. What has lost bytes is cut.
    pub fn pass(&self) {
        let mut state = self.state();
        state.mode = Mode::Pass;
        state.connections.retain(|connection| {
            let spoilt = connection.spoilt.load(Ordering::SeqCst);
            if spoilt {
                connection.cut();
            }
            !spoilt
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.cut();
    }
}

fn accept(
    address: SocketAddr,
    listener: TcpListener,
    state: &Arc<Mutex<State>>,
    over: &Arc<AtomicBool>,
) {
    let mut listener = Some(listener);
    while !over.load(Ordering::SeqCst) {
        if state.lock().unwrap().mode == Mode::Refuse {
            listener = None;
            thread::sleep(LOOK);
            continue;
        }
        // Somebody may have the port for a moment: the daemon's own attempt to connect.
        let Some(bound) = listener.take().or_else(|| TcpListener::bind(address).ok()) else {
            thread::sleep(LOOK);
            continue;
        };
        bound.set_nonblocking(true).unwrap();
        match bound.accept() {
            Ok((client, _)) => {
                client.set_nonblocking(false).unwrap();
                connect(client, state);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
        listener = Some(bound);
    }
}

fn connect(client: TcpStream, state: &Arc<Mutex<State>>) {
    let target = state.lock().unwrap().target.unwrap();
    // Without a server the client's connection ends at once.
    let Ok(server) = TcpStream::connect(target) else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
    }
    let (spoilt, answer_lost) = (AtomicBool::new(false), AtomicBool::new(false));
    let connection = Arc::new(Connection { client, server, spoilt, answer_lost });
    state.lock().unwrap().connections.push(connection.clone());
    for from in [From::Client, From::Server] {
        let (connection, state) = (connection.clone(), state.clone());
        thread::spawn(move || {
            pump(from, &connection, &state);
            connection.cut();
            state.lock().unwrap().connections.retain(|other| !Arc::ptr_eq(other, &connection));
        });
    }
}

/// Carries bytes one way until an end of the connection is gone.
fn pump(from: From, connection: &Connection, state: &Mutex<State>) {
    let (mut source, mut sink) = match from {
        From::Client => (&connection.client, &connection.server),
        From::Server => (&connection.server, &connection.client),
    };
    let mut bytes = vec![0; 64 << 10];
    loop {
        let length = match source.read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => return,
        };
        let carried = match judge(from, &bytes[..length], connection, &mut state.lock().unwrap()) {
            Verdict::Carry => length,
            Verdict::Swallow => continue,
            Verdict::CutAfter(length) => {
                // Who is cut off need not get it.
                sink.write_all(&bytes[..length]).ok();
                return;
            }
        };
        if sink.write_all(&bytes[..carried]).is_err() {
            return;
        }
    }
}

enum Verdict {
    Carry,
    Swallow,
    /// So many bytes of them are carried.
    CutAfter(usize),
}

fn judge(from: From, bytes: &[u8], connection: &Connection, state: &mut State) -> Verdict {
    let holds = |wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    if state.mode == Mode::Swallow || connection.spoilt.load(Ordering::SeqCst) {
        connection.spoilt.store(true, Ordering::SeqCst);
        return Verdict::Swallow;
    }
    if from == From::Server && connection.answer_lost.load(Ordering::SeqCst) {
        if !holds(READY_AND_IDLE) {
            return Verdict::Swallow;
        }
        state.cuts += 1;
        state.mode = Mode::Refuse;
        return Verdict::CutAfter(0);
    }
    if from == From::Client
        && let Some(said) = state.lose_answer_to
        && holds(said)
    {
        state.lose_answer_to = None;
        connection.answer_lost.store(true, Ordering::SeqCst);
    }
    match state.cut_after {
        Some((wanted, left)) if wanted == from && left <= bytes.len() => {
            state.cut_after = None;
            state.cuts += 1;
            Verdict::CutAfter(left)
        }
        Some((wanted, left)) if wanted == from => {
            state.cut_after = Some((wanted, left - bytes.len()));
            Verdict::Carry
        }
        _ => Verdict::Carry,
    }
}
