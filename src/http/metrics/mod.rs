//! `GET /metrics`: every stage in figures, for Prometheus. It has a listener of its own.
//!
//! Invariants: each family is declared here, once, and in the table of `docs/http.md`, which a test
//! compares; units are seconds and bytes; what was never measured has no sample; nothing is asked
//! that could hang, so that a scrape works best when the store does not. In every stage received =
//! sent + dropped, and dropped has a reason. A bound stands beside its fill, under the same name
//! with `limit`.

mod keeping;
mod official;
mod process;
mod sessions;
mod stages;
mod text;

use std::{io, net::TcpListener, sync::Arc};

use actix_web::{App, HttpResponse, HttpServer, dev::Server, http::header, web};

use self::text::{CONTENT_TYPE, Kind, Page, seconds};
use super::{ApiState, health};
use crate::{
    event::Timestamp,
    logging::Queued,
    source::quarantine::Quarantine,
    stats::{Counter, Gauge},
};

/// One thread: a scrape comes every few seconds.
const WORKERS: usize = 1;

/// What the metrics are made from.
pub struct Metrics {
    pub state: Arc<ApiState>,
    pub quarantine: Arc<Quarantine>,
    /// The channel of the log; `None` where the process logs in its own way.
    pub queued: Option<Queued>,
}

/// Serves `/metrics` on a bound listener, and nothing else. Stop it by its handle.
///
/// # Errors
/// Those of the listener.
pub fn serve(listener: TcpListener, metrics: Arc<Metrics>) -> io::Result<Server> {
    let request_timeout = metrics.state.config.get().http.request_timeout;
    let data = web::Data::from(metrics);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .service(super::get("/metrics", scrape))
            .default_service(web::to(super::not_found))
    });
    let server = server.workers(WORKERS).disable_signals().client_request_timeout(request_timeout);
    Ok(server.listen(listener)?.run())
}

async fn scrape(metrics: web::Data<Metrics>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, CONTENT_TYPE))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page(&metrics, Timestamp::now()))
}

/// Writes the whole page.
pub fn page(metrics: &Metrics, now: Timestamp) -> String {
    let mut page = Page::default();
    health(&mut page, metrics, now);
    stages::streams(&mut page, metrics, now);
    stages::whitelist(&mut page, metrics);
    stages::router(&mut page, metrics);
    keeping::memory(&mut page, metrics);
    keeping::logging(&mut page, metrics);
    keeping::store(&mut page, metrics);
    keeping::backfill(&mut page, metrics);
    keeping::mirror(&mut page, metrics);
    sessions::sessions(&mut page, metrics);
    sessions::commands(&mut page, metrics);
    official::info(&mut page, metrics);
    process::process(&mut page);
    page.finish()
}

impl Page {
    fn counter(&mut self, name: &'static str, help: &str, value: &Counter) {
        self.family(Kind::Counter, name, help).sample(&[], value.get());
    }

    fn gauge(&mut self, name: &'static str, help: &str, value: impl std::fmt::Display) {
        self.family(Kind::Gauge, name, help).sample(&[], value);
    }

    fn by_reason(&mut self, name: &'static str, help: &str, reasons: &[(&str, &Counter)]) {
        let mut family = self.family(Kind::Counter, name, help);
        for (reason, counter) in reasons {
            family.sample(&[("reason", reason)], counter.get());
        }
    }
}

fn health(page: &mut Page, metrics: &Metrics, now: Timestamp) {
    let state = &metrics.state;
    let name = "nodecast_start_time_seconds";
    page.gauge(name, "When the daemon started, since 1970.", seconds(state.started.0));
    let ready = health::readiness(state, now).ready;
    let name = "nodecast_ready";
    page.gauge(
        name,
        "1 while every node directory has a fresh stream, as /readyz.",
        u8::from(ready),
    );
    let reasons = health::degradations(state, now).len();
    let name = "nodecast_degradations";
    page.gauge(name, "Reasons for which the daemon is degraded now; status names them.", reasons);
}

/// A gauge that is 0 until something was measured.
fn measured(gauge: &Gauge) -> Option<i64> {
    Some(gauge.get()).filter(|value| *value != 0)
}
