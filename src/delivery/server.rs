//! One port for everything: HTTP requests go to the routes, WebSocket handshakes become sessions.
//!
//! Place in the pipeline: the edge. Each worker thread has its own routes and its own shard.
//! Invariant: a socket leaves HTTP for good when its handshake is answered; the session that owns
//! it is counted by [`SessionSet`](super::set::SessionSet), not by the HTTP server.

use std::{
    cell::RefCell, future::poll_fn, io, net::TcpListener, pin::Pin, rc::Rc, sync::Arc,
    time::Duration,
};

use actix::Actor;
use actix_codec::Framed;
use actix_http::{
    ConnectionType, HttpService, Protocol, Request, Response, StatusCode, Version,
    body::{BodySize, MessageBody},
    error::DispatchError,
    h1,
    header::{self, HeaderValue},
    ws::{self, HandshakeError},
};
use actix_server::Server;
use actix_service::{IntoServiceFactory, Service, ServiceFactoryExt, fn_service, map_config};
use actix_web::{
    App, HttpResponse,
    dev::{AppConfig, ServiceResponse},
    web::{self, ServiceConfig},
};
use bytes::{Bytes, BytesMut};
use serde_json::json;
use slog::debug;
use tokio::net::TcpStream;

use super::{
    Casting,
    deflate::offer,
    dialect::Door,
    feed::Feeds,
    lobby::{Answer, Lobby, Visit},
    members::Members,
    peer::{Connection, Peer},
    session::{Session, Start},
    set::{EnterError, Permit},
    shard::Shard,
    socket::Wire,
};
use crate::{client::Client, config::SessionConfig};

/// How long an HTTP connection may be idle between two requests.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a client may take to close after an answer that ends its connection.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Most connections of one worker, sessions by streams and polls among them, above which it would not
/// even accept: out of reach, as [`Lobby`] and [`SessionSet`](super::set::SessionSet) refuse with an answer.
const ACCEPTED: usize = 1 << 24;

/// How long a graceful stop waits for HTTP requests that are under way, in seconds. Sessions do not
/// count: they leave HTTP with their handshake.
const SHUTDOWN_TIMEOUT_SECS: u64 = 5;

/// Serves HTTP and sessions on a bound listener, with one worker thread and one shard each for
/// `http.workers`. Nothing handles signals here: stop it by its handle, after
/// [`SessionSet::close_all`](super::set::SessionSet::close_all).
///
/// # Errors
/// Those of the listener.
///
/// # Panics
/// Outside of an actix system or a tokio runtime.
pub fn serve<R>(listener: TcpListener, casting: Arc<Casting>, routes: R) -> io::Result<Server>
where
    R: Fn(&mut ServiceConfig) + Clone + Send + 'static,
{
    let address = listener.local_addr()?;
    let config = casting.config.get();
    let workers = config.http.workers.max(1);
    let request_timeout = config.http.request_timeout;
    let lobby = Lobby::new(casting.stats.clone());
    let server = Server::build()
        .workers(workers)
        .max_concurrent_connections(ACCEPTED)
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_TIMEOUT_SECS)
        .listen("http", listener, move || {
            let worker = Rc::new(Worker::start(casting.clone()));
            let app = App::new()
                .app_data(Feeds::new(casting.clone(), worker.members.clone()))
                .wrap_fn(|request, service| {
                    let served = request.conn_data::<Peer>().map(Peer::served);
                    let answer = service.call(request);
                    async move {
                        let mut answer = answer.await?;
                        end_with_connection(&mut answer);
                        Ok(answer.map_body(|_, body| Answer::new(body, served)))
                    }
                })
                .configure(routes.clone())
                .route("/ws", web::get().to(upgrade_required))
                .route("/v1/ws", web::get().to(upgrade_required));
            let app = app.into_factory().map_err(|error: actix_web::Error| error.error_response());
            let lobby = lobby.clone();
            let upgrade = fn_service(move |(request, framed): (Request, Upgraded)| {
                let worker = worker.clone();
                async move {
                    worker.upgrade(&request, framed).await;
                    Ok::<(), actix_web::Error>(())
                }
            });
            let http = HttpService::build()
                .keep_alive(KEEP_ALIVE)
                .client_request_timeout(request_timeout)
                .client_disconnect_timeout(DISCONNECT_TIMEOUT)
                .local_addr(address)
                .on_connect_ext(|connection: &Connection, data| {
                    data.insert(connection.peer());
                })
                .upgrade(upgrade)
                .finish(map_config(app, |()| AppConfig::default()));
            let casting = casting.clone();
            let connections = fn_service(move |socket: TcpStream| {
                let (casting, lobby) = (casting.clone(), lobby.clone());
                async move {
                    let config = casting.config.get();
                    // Who connects may be about to become a session: many who come back at once must
                    // find the places of those.
                    let open = usize::try_from(casting.stats.sessions.open.get()).unwrap_or(0);
                    let free = config.session.max_sessions.saturating_sub(open);
                    let Some(place) = lobby.enter(config.http.max_connections + free) else {
                        lobby.refuse(socket).await;
                        return Err(DispatchError::DisconnectTimeout);
                    };
                    let address = socket.peer_addr().ok();
                    let visit = Visit::new(place, request_timeout);
                    let (patience, stats) = (config.http.write_timeout, casting.stats.clone());
                    let connection = Connection::new(socket, visit, patience, stats);
                    Ok((connection, Protocol::Http1, address))
                }
            });
            connections.and_then(http)
        })?;
    Ok(server.run())
}

type Upgraded = Framed<Connection, h1::Codec>;

/// What the handshakes of one thread need.
struct Worker {
    casting: Arc<Casting>,
    members: Rc<RefCell<Members>>,
}

/// Why a handshake is refused: `{"code","message"}` with a fitting status.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no WebSocket is served at this path: /ws and /v1/ws are")]
    NotFound,
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("{0}")]
    Enter(#[from] EnterError),
}

impl Worker {
    fn start(casting: Arc<Casting>) -> Self {
        let members = Rc::new(RefCell::new(Members::new(casting.clone())));
        // The shard lives as long as the registry of readers and the session set know it.
        Shard::new(casting.clone(), members.clone()).start();
        Self { casting, members }
    }

    async fn upgrade(&self, request: &Request, mut framed: Upgraded) {
        let timeout = self.casting.config.get().http.request_timeout;
        let (door, permit) = match self.admit(request) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                debug!(self.casting.logger, "handshake refused";
                    "path" => request.path(), "error" => %refusal);
                // The client may be gone; its connection ends here in any case.
                drop(tokio::time::timeout(timeout, refuse(&mut framed, &refusal)).await);
                return;
            }
        };
        let casting = self.casting.clone();
        let config = casting.config.get();
        let mut accepted = ws::handshake_response(request.head());
        let compression = compression(request, &config.session);
        if let Some(answer) = compression {
            accepted.insert_header((header::SEC_WEBSOCKET_EXTENSIONS, answer));
        }
        let accepted = accepted.finish().drop_body();
        let written = tokio::time::timeout(timeout, async {
            write(&mut framed, h1::Message::Item((accepted, BodySize::None)))?;
            flush(&mut framed).await
        });
        let Ok(Ok(())) = written.await else { return };
        let parts = framed.into_parts();
        let Some(socket) = parts.io.into_socket() else { return };
        let inflates = compression.is_some();
        let packs_from = if inflates { config.session.compress_min_bytes } else { usize::MAX };
        let allowances = permit.allowances();
        debug!(self.casting.logger, "session begins"; "client" => %permit.client());
        match Wire::new(socket, &config.session, packs_from, casting.stats.clone(), permit) {
            Ok(wire) => {
                casting.stats.sessions.compressing.add(u64::from(inflates));
                let members = self.members.clone();
                let inbound: BytesMut = parts.read_buf;
                let start =
                    Start { wire, door, inflates, inbound, allowances, members, casting, config };
                Session::new(start).start();
            }
            Err(error) => {
                debug!(self.casting.logger, "session not started"; "error" => %error);
            }
        }
    }

    fn admit(&self, request: &Request) -> Result<(Door, Permit), Refusal> {
        let door = Door::of_path(request.path()).ok_or(Refusal::NotFound)?;
        ws::verify_handshake(request.head())?;
        let config = self.casting.config.get();
        let connected = request.head().peer_addr.map(|address| address.ip());
        let client = Client::of(connected, &request.head().headers, &config.http);
        Ok((door, self.casting.sessions.enter(client, &config.session)?))
    }
}

/// The compression that a session is to have, in the words of the answer.
fn compression(request: &Request, config: &SessionConfig) -> Option<&'static str> {
    let offers = request.head().headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS);
    let offers = offers.filter_map(|offers| offers.to_str().ok());
    config.compression.then(|| offer::accept(offers)).flatten()
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Handshake(HandshakeError::GetMethodRequired) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Handshake(HandshakeError::UnsupportedVersion) => StatusCode::UPGRADE_REQUIRED,
            Self::Handshake(_) => StatusCode::BAD_REQUEST,
            Self::Enter(error) if error.is_own() => StatusCode::TOO_MANY_REQUESTS,
            Self::Enter(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Handshake(_) => "bad_handshake",
            Self::Enter(error) => error.code(),
        }
    }
}

/// HTTP/1.0 knows no chunks: there an answer without a length ends with its connection.
fn end_with_connection(answer: &mut ServiceResponse) {
    let is_old = answer.request().version() < Version::HTTP_11;
    if is_old && answer.response().body().size() == BodySize::Stream {
        let head = answer.response_mut().head_mut();
        head.no_chunking(true);
        head.set_connection_type(ConnectionType::Close);
    }
}

/// Answers a request that is no handshake at a path of handshakes.
async fn upgrade_required() -> HttpResponse {
    HttpResponse::UpgradeRequired()
        .insert_header((header::UPGRADE, "websocket"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(json!({ "code": "upgrade_required", "message": "this path speaks WebSocket" }))
}

async fn refuse(framed: &mut Upgraded, refusal: &Refusal) -> io::Result<()> {
    let body = json!({ "code": refusal.code(), "message": refusal.to_string() }).to_string();
    let mut response = Response::build(refusal.status());
    response
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .force_close();
    match refusal {
        Refusal::Handshake(HandshakeError::UnsupportedVersion) => {
            response.insert_header((header::SEC_WEBSOCKET_VERSION, "13"));
        }
        Refusal::Handshake(HandshakeError::GetMethodRequired) => {
            response.insert_header((header::ALLOW, HeaderValue::from_static("GET")));
        }
        Refusal::Enter(error) => {
            response.insert_header((header::RETRY_AFTER, error.retry_after_secs()));
        }
        Refusal::NotFound | Refusal::Handshake(_) => {}
    }
    let head = response.finish().drop_body();
    write(framed, h1::Message::Item((head, BodySize::Sized(body.len() as u64))))?;
    write(framed, h1::Message::Chunk(Some(Bytes::from(body))))?;
    write(framed, h1::Message::Chunk(None))?;
    flush(framed).await
}

fn write(framed: &mut Upgraded, item: h1::Message<(Response<()>, BodySize)>) -> io::Result<()> {
    Pin::new(framed).write(item)
}

async fn flush(framed: &mut Upgraded) -> io::Result<()> {
    poll_fn(|cx| Pin::new(&mut *framed).flush(cx)).await
}
