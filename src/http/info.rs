//! `GET /`: what this service is and where its routes are.

use actix_web::HttpResponse;
use serde::Serialize;

use super::{State, json};

#[derive(Serialize)]
struct Info<'a> {
    service: &'static str,
    version: &'static str,
    topics: &'a [crate::event::Topic],
    routes: &'static [Route],
}

#[derive(Serialize)]
struct Route {
    method: &'static str,
    path: &'static str,
    about: &'static str,
}

const ROUTES: &[Route] = &[
    route("GET", "/v1/events", "history: JSON pages, or NDJSON with Accept: application/x-ndjson"),
    route("GET", "/v1/ws", "live events, native protocol (WebSocket)"),
    route("GET", "/v1/stream", "live events (Server-Sent Events)"),
    route("GET", "/v1/poll", "live events by long polls"),
    route("GET", "/v1/status", "every stage in figures"),
    route(
        "GET",
        "/ws",
        "live events, official protocol, and that of the older service (WebSocket)",
    ),
    route("POST", "/info", "history in the official protocol, and what its upstream answers"),
    route("POST", "/events", "history as the older service answers it"),
    route("GET", "/height", "highest block read"),
    route("GET", "/livez", "the process answers"),
    route("GET", "/readyz", "fresh lines come from every node directory"),
    route("GET", "/health", "readiness and what is degraded, in short"),
];

const fn route(method: &'static str, path: &'static str, about: &'static str) -> Route {
    Route { method, path, about }
}

pub async fn info(state: State) -> HttpResponse {
    let info = Info {
        service: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        topics: &state.topics,
        routes: ROUTES,
    };
    json(HttpResponse::Ok(), &info)
}
