//! What the port answers while this daemon stands by for another one: it lives, and is not ready.

use std::{
    io,
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
};

use actix_web::{App, HttpResponse, HttpServer, dev::Server, web};
use serde::Serialize;

use super::{ApiError, get, json, status::millis};
use crate::event::Timestamp;

/// How long requests that are under way may take when it ends, in seconds.
const SHUTDOWN_TIMEOUT_SECS: u64 = 1;

/// Why and since when it stands by.
pub struct StandbyState {
    started: Timestamp,
    reason: Mutex<Arc<str>>,
}

impl StandbyState {
    pub fn new(started: Timestamp, reason: String) -> Self {
        Self { started, reason: Mutex::new(reason.into()) }
    }

    pub fn reason(&self) -> Arc<str> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_reason(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason.into();
    }
}

/// The fields of the same names in the answers of a daemon that has the lease.
#[derive(Serialize)]
struct Standby {
    /// As `/health` and `/livez` say it, and as `/v1/status` does.
    status: &'static str,
    state: &'static str,
    ready: bool,
    reasons: [Arc<str>; 1],
    uptime_ms: u64,
    version: &'static str,
}

/// Serves on a bound listener until it is stopped by its handle.
///
/// # Errors
/// Those of the listener.
pub fn serve(listener: TcpListener, state: Arc<StandbyState>) -> io::Result<Server> {
    let data = web::Data::from(state);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .service(get("/livez", alive))
            .service(get("/v1/status", alive))
            .service(get("/readyz", not_ready))
            .service(get("/health", not_ready))
            .default_service(web::to(unavailable))
    });
    // A client that keeps its connection open is told to come again.
    let server = server.workers(1).disable_signals().shutdown_timeout(SHUTDOWN_TIMEOUT_SECS);
    Ok(server.listen(listener)?.run())
}

async fn alive(state: web::Data<StandbyState>) -> HttpResponse {
    json(HttpResponse::Ok(), &report(&state))
}

async fn not_ready(state: web::Data<StandbyState>) -> HttpResponse {
    json(HttpResponse::ServiceUnavailable(), &report(&state))
}

async fn unavailable(state: web::Data<StandbyState>) -> Result<HttpResponse, ApiError> {
    Err(ApiError::Standby(state.reason()))
}

fn report(state: &StandbyState) -> Standby {
    Standby {
        status: "standby",
        state: "standby",
        ready: false,
        reasons: [state.reason()],
        uptime_ms: millis(Timestamp::now().since(state.started)),
        version: env!("CARGO_PKG_VERSION"),
    }
}
