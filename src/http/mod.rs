//! HTTP: history, status and health, as routes of the `App` beside the WebSocket sessions; metrics on
//! a listener of their own.
//!
//! Place in the pipeline: behind the store and the log; it reads what the stages count and writes
//! nothing. Sessions take their sockets before these routes are asked.
//! Invariants: a store that cannot be reached is an error and never an empty answer; every value
//! is measured; nothing is held of the store while a client is written to.

mod error;
mod export;
mod feed;
mod health;
mod history;
mod info;
pub mod metrics;
mod official;
mod older;
mod page;
mod params;
mod standby;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use actix_web::{HttpResponse, HttpResponseBuilder, guard, http::header, web};
use serde::Serialize;
use slog::Logger;

pub use self::{
    error::ApiError,
    export::Exports,
    standby::{StandbyState, serve as serve_standby},
};
use crate::{
    config::LiveConfig,
    event::{Timestamp, Topic},
    official::info::Info,
    router::log::Log,
    source::Budget,
    stats::Stats,
    store::{EventStore, Run},
    whitelist::WhitelistState,
};

/// What the routes read. One is made at the start and shared by all workers.
pub struct ApiState {
    pub store: Arc<dyn EventStore>,
    pub stats: Arc<Stats>,
    pub log: Arc<Log>,
    pub config: Arc<LiveConfig>,
    /// One per chain.
    pub budgets: Vec<Arc<Budget>>,
    /// Topics that may be asked for.
    pub topics: Vec<Topic>,
    /// Node directories as configured, also those in which no stream was found yet.
    pub nodes: Vec<Arc<str>>,
    /// Asked for each report, as only the wiring knows who keeps the list.
    pub whitelist: Box<dyn Fn() -> WhitelistState + Send + Sync>,
    pub run: Run,
    /// When the daemon started.
    pub started: Timestamp,
    pub exports: Exports,
    /// Answers requests of the official protocol.
    pub info: Arc<Info>,
    pub logger: Logger,
}

type State = web::Data<ApiState>;

/// Adds the routes to an `App`, the answers to unknown paths and methods included.
pub fn routes(state: Arc<ApiState>) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static {
    move |config| {
        config
            .app_data(State::from(state.clone()))
            .service(get("/", info::info))
            .service(get("/v1/events", history::events))
            .service(get("/v1/stream", feed::stream))
            .service(get("/v1/poll", feed::poll))
            .service(get("/v1/status", status::status))
            .service(get("/livez", health::livez))
            .service(get("/readyz", health::readyz))
            .service(get("/health", health::health))
            .service(official::info_resource())
            .service(older::events_resource())
            .service(older::height_resource())
            .service(web::resource(["/ws", "/v1/ws"]).to(upgrade_required))
            .default_service(web::to(not_found));
    }
}

/// A resource that answers GET and HEAD, and 405 to everything else.
fn get<F, Args>(path: &str, handler: F) -> actix_web::Resource
where
    F: actix_web::Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::resource(path)
        .route(web::route().guard(guard::Any(guard::Get()).or(guard::Head())).to(handler))
        .default_service(web::to(get_only))
}

async fn get_only() -> Result<HttpResponse, ApiError> {
    Err(ApiError::MethodNotAllowed { allow: "GET, HEAD" })
}

async fn not_found() -> Result<HttpResponse, ApiError> {
    Err(ApiError::NotFound)
}

async fn upgrade_required() -> Result<HttpResponse, ApiError> {
    Err(ApiError::UpgradeRequired)
}

/// Answers with what holds now and must not be kept by caches.
fn json(mut response: HttpResponseBuilder, body: &impl Serialize) -> HttpResponse {
    response.insert_header((header::CACHE_CONTROL, "no-store")).json(body)
}
