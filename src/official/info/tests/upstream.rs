//! The upstream: a real server of HTTP, which counts what it is asked and misbehaves as it is told.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use actix_web::{App, HttpResponse, HttpServer, web};
use bytes::Bytes;
use futures_util::future::join_all;

use super::*;
use crate::{config::InfoUrl, testing::until};

#[derive(Default)]
struct Server {
    asked: Mutex<Vec<String>>,
    is_broken: AtomicBool,
    /// Answers to nobody, as long as it does.
    hangs: AtomicBool,
    /// What it says of coins, if not [`COINS`].
    coins: Mutex<Option<&'static str>>,
}

const COINS: &str = r#"{"universe":[{"name":"BTC","szDecimals":5}],"tokens":[]}"#;

impl Server {
    /// Starts one, and gives its URL.
    fn start(self: &Arc<Self>) -> String {
        let data = web::Data::from(self.clone());
        let server = HttpServer::new(move || {
            App::new().app_data(data.clone()).route("/info", web::post().to(answer))
        });
        let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        actix_rt::spawn(server.run());
        url
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(server: web::Data<Server>, body: Bytes) -> HttpResponse {
    let text = String::from_utf8(body.to_vec()).unwrap();
    server.asked.lock().unwrap().push(text.clone());
    while server.hangs.load(Ordering::SeqCst) {
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
    if server.is_broken.load(Ordering::SeqCst) {
        return HttpResponse::InternalServerError().finish();
    }
    let request: Value = serde_json::from_str(&text).unwrap();
    match request["type"].as_str().unwrap() {
        "meta" | "spotMeta" => {
            HttpResponse::Ok().body(server.coins.lock().unwrap().unwrap_or(COINS))
        }
        "refused" => HttpResponse::UnprocessableEntity()
            .content_type("text/plain; charset=utf-8")
            .insert_header(("Retry-After", "7"))
            .body("Failed to deserialize"),
        "refused at length" => HttpResponse::BadRequest().body("x".repeat(65 << 10)),
        "long" => HttpResponse::Ok().body(format!("\"{}\"", "x".repeat(17 << 20))),
        "html" => HttpResponse::Ok().body("<html>"),
        "gone" => HttpResponse::Found().insert_header(("location", "/elsewhere")).finish(),
        kind => HttpResponse::Ok().body(format!(r#"{{"of": "{kind}"}}"#)),
    }
}

async fn scene_with(server: &Arc<Server>) -> Scene {
    scene_of(&server.start()).await
}

async fn scene_of(url: &str) -> Scene {
    scene_with_state(tempfile::tempdir().unwrap().path(), url).await
}

async fn scene_with_state(state: &Path, url: &str) -> Scene {
    let info_upstream = Some(InfoUrl::parse(url).unwrap());
    Scene::with_state(state, OfficialConfig { info_upstream, ..OfficialConfig::default() }).await
}

const META: &str = r#"{"type":"meta"}"#;

/// As if so much time had gone by.
async fn go_on(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[actix_rt::test]
async fn without_an_upstream_clients_start_with_nothing_and_other_types_are_refused_with_the_remedy()
 {
    let scene = Scene::of_rows(10).await;

    assert_eq!(scene.ask(META).await.unwrap(), r#"{"universe":[]}"#);
    let spot = scene.ask(r#"{"type":"spotMeta"}"#).await.unwrap();
    assert_eq!(spot, r#"{"universe":[],"tokens":[]}"#);
    let other = scene.ask(r#"{"type":"clearinghouseState","user":"0x1"}"#).await.unwrap_err();
    assert_eq!((other.status(), other.code()), (422, "unsupported_type"));
    for part in ["\"clearinghouseState\"", "official.info_upstream", "--info-upstream"] {
        assert!(other.to_string().contains(part), "{other}");
    }
    let body: Value = serde_json::from_slice(&other.body()).unwrap();
    let expected =
        serde_json::json!({"code": 422, "msg": other.to_string(), "data": "unsupported_type"});
    assert_eq!(body, expected);
    let long = format!(r#"{{"type":"{}"}}"#, "x".repeat(10_000));
    assert!(scene.ask(&long).await.unwrap_err().to_string().len() < 300);
}

#[actix_rt::test]
async fn what_is_not_answered_here_is_passed_on_and_comes_back_as_it_is() {
    let server = Arc::<Server>::default();
    let scene = scene_with(&server).await;
    let request = r#"{ "type":"allMids","startTime":{"not":"ours"}}"#;

    assert_eq!(scene.ask(request).await.unwrap(), r#"{"of": "allMids"}"#);
    let of_dex = r#"{"type":"meta","dex":"xyz"}"#;
    assert!(scene.ask(of_dex).await.unwrap().contains("universe"));
    let refused = scene.ask(r#"{"type":"refused"}"#).await.unwrap_err();
    let moved = scene.ask(r#"{"type":"gone"}"#).await.unwrap_err();

    assert_eq!(server.asked()[..2], [request, of_dex]);
    let InfoError::Upstream(UpstreamError::Refused(said)) = refused else { panic!("{refused}") };
    assert_eq!((said.status, &*said.body), (422, b"Failed to deserialize".as_slice()));
    assert_eq!(said.content_type.as_deref(), Some("text/plain; charset=utf-8"));
    assert_eq!(said.retry_after.as_deref(), Some("7"));
    assert_eq!((moved.status(), moved.code()), (502, "upstream_failed"), "nobody is followed");
    assert!(moved.to_string().contains("302"), "{moved}");
    let stats = &scene.stats.official;
    assert_eq!((stats.passed.get(), stats.passing.get()), (4, 0));
    assert_eq!(stats.upstream_failures.get(), 1, "a refusal is an answer");
}

#[actix_rt::test]
async fn an_answer_that_is_no_json_or_too_long_is_none() {
    let server = Arc::<Server>::default();
    let scene = scene_with(&server).await;

    for (kind, why) in [("long", "longer than 16777216 bytes"), ("html", "not JSON")] {
        let error = scene.ask(&format!(r#"{{"type":"{kind}"}}"#)).await.unwrap_err();
        assert_eq!((error.status(), error.code()), (502, "upstream_failed"));
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(scene.stats.official.upstream_failures.get(), 2);
    // Of a refusal the status is enough.
    let refused = scene.ask(r#"{"type":"refused at length"}"#).await.unwrap_err();
    assert_eq!((refused.status(), refused.code()), (400, "upstream_refused"));
    assert_eq!(refused.to_string(), "the upstream answers with status 400");
}

#[actix_rt::test]
async fn an_upstream_that_is_away_or_hangs_is_told() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let scene = scene_of(&url).await;
    let away = scene.ask(r#"{"type":"allMids"}"#).await.unwrap_err();
    assert_eq!((away.status(), away.code()), (502, "upstream_failed"));
    assert!(away.to_string().contains("refused"), "{away}");

    let server = Arc::<Server>::default();
    let scene = scene_with(&server).await;
    scene.ask(r#"{"type":"allMids"}"#).await.unwrap();
    server.hangs.store(true, Ordering::SeqCst);
    // Time goes on by itself while everybody waits.
    tokio::time::pause();
    let slow = scene.ask(r#"{"type":"allMids"}"#).await.unwrap_err();
    assert_eq!((slow.status(), slow.code()), (504, "upstream_too_slow"));
    assert_eq!(scene.stats.official.passing.get(), 0);
}

#[actix_rt::test]
async fn no_more_than_some_requests_are_passed_on_at_one_time() {
    let server = Arc::<Server>::default();
    let scene = scene_with(&server).await;
    server.hangs.store(true, Ordering::SeqCst);
    let request = r#"{"type":"allMids"}"#;

    let all = join_all((0..MAX_PASSING).map(|_| scene.ask(request)));
    let refused = async {
        until("all are passed on", async || server.asked().len() == MAX_PASSING).await;
        scene.ask(request).await
    };
    let refused = tokio::select! {
        _ = all => panic!("nobody is answered"),
        refused = refused => refused.unwrap_err(),
    };

    assert_eq!((refused.status(), refused.code()), (503, "busy"));
    assert_eq!(scene.stats.official.not_passed.get(), 1);
    server.hangs.store(false, Ordering::SeqCst);
    scene.ask(request).await.unwrap();
    assert_eq!(scene.stats.official.passing.get(), 0, "who went away is passed on no more");
}

#[actix_rt::test]
async fn meta_is_asked_for_once_a_minute_however_many_start() {
    let server = Arc::<Server>::default();
    let scene = scene_with(&server).await;

    let answers = join_all((0..20).map(|_| scene.ask(META))).await;

    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().contains("BTC")));
    assert_eq!(server.asked(), [META]);
    go_on(Duration::from_secs(59)).await;
    scene.ask(META).await.unwrap();
    assert_eq!(server.asked().len(), 1);
    go_on(Duration::from_secs(2)).await;
    scene.ask(META).await.unwrap();
    assert_eq!(server.asked().len(), 2);
    scene.ask(r#"{"type":"spotMeta"}"#).await.unwrap();
    assert_eq!(server.asked()[2], r#"{"type":"spotMeta"}"#);
    assert_eq!(scene.stats.official.passed.get(), 0, "these are our own");
}

#[actix_rt::test]
async fn an_old_answer_is_better_than_none_and_a_broken_upstream_is_left_alone_for_a_while() {
    let server = Arc::<Server>::default();
    let scene = scene_with(&server).await;
    server.is_broken.store(true, Ordering::SeqCst);
    let none = scene.ask(META).await.unwrap_err();
    assert_eq!(none.status(), 500);
    server.is_broken.store(false, Ordering::SeqCst);
    assert!(scene.ask(META).await.is_err(), "it is not asked again at once");
    assert_eq!(server.asked().len(), 1);
    go_on(Duration::from_secs(6)).await;
    let first = scene.ask(META).await.unwrap();

    server.is_broken.store(true, Ordering::SeqCst);
    go_on(Duration::from_secs(61)).await;
    for _ in 0..3 {
        assert_eq!(scene.ask(META).await.unwrap(), first);
    }
    assert_eq!(server.asked().len(), 3);
    // One that hangs holds up nobody else, and who asks it only for a moment.
    server.hangs.store(true, Ordering::SeqCst);
    go_on(Duration::from_secs(6)).await;
    let [one, other] = [scene.ask(META), scene.ask(META)];
    let (one, other) = {
        let mut one = Box::pin(one);
        let asking = async { until("it is asked", async || server.asked().len() == 4).await };
        tokio::select! {
            answer = &mut one => panic!("{answer:?}"),
            () = asking => {}
        }
        let other = other.await;
        tokio::time::pause();
        let since = tokio::time::Instant::now();
        let one = one.await;
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        (one, other)
    };
    assert_eq!((one.unwrap(), other.unwrap()), (first.clone(), first));
}

#[actix_rt::test]
async fn the_answer_of_an_earlier_run_is_better_than_none_where_the_upstream_is_the_same() {
    let server = Arc::<Server>::default();
    let url = server.start();
    let state = tempfile::tempdir().unwrap();
    let scene = scene_with_state(state.path(), &url).await;
    let first = scene.ask(META).await.unwrap();
    let file = state.path().join("meta.json");
    until("it is kept", async || file.exists()).await;
    server.is_broken.store(true, Ordering::SeqCst);

    let scene = scene_with_state(state.path(), &url).await;
    assert_eq!(scene.ask(META).await.unwrap(), first);
    assert_eq!(server.asked(), [META, META], "it was asked again before");
    assert!(scene.ask(r#"{"type":"spotMeta"}"#).await.is_err());
    let scene = scene_with_state(state.path(), &url.replace("127.0.0.1", "localhost")).await;
    assert!(scene.ask(META).await.is_err(), "of another one nothing is known");
    // What is damaged is as good as nothing.
    let kept = std::fs::read(&file).unwrap();
    let without = String::from_utf8(kept.clone()).unwrap().replace("universe", "verse");
    std::fs::write(&file, without).unwrap();
    assert!(scene_with_state(state.path(), &url).await.ask(META).await.is_err());
    std::fs::write(&file, "{").unwrap();
    let scene = scene_with_state(state.path(), &url).await;
    assert!(scene.ask(META).await.is_err());
    server.is_broken.store(false, Ordering::SeqCst);
    go_on(Duration::from_secs(6)).await;
    assert_eq!(scene.ask(META).await.unwrap(), first);
    until("it is mended", async || std::fs::read(&file).unwrap() == kept).await;
}

#[actix_rt::test]
async fn what_is_no_list_of_coins_takes_the_place_of_none() {
    let server = Arc::<Server>::default();
    let scene = scene_with(&server).await;
    *server.coins.lock().unwrap() = Some("null");
    let error = scene.ask(META).await.unwrap_err();
    assert_eq!((error.status(), error.code()), (502, "upstream_failed"));
    *server.coins.lock().unwrap() = None;
    go_on(Duration::from_secs(6)).await;
    assert_eq!(scene.ask(META).await.unwrap(), COINS);

    let spot = r#"{"type":"spotMeta"}"#;
    assert_eq!(scene.ask(spot).await.unwrap(), COINS);
    let empty = r#"{"universe":[],"tokens":[]}"#;
    for odd in ["null", "[]", r#"{"error":"x"}"#, r#"{"universe":null}"#, empty] {
        *server.coins.lock().unwrap() = Some(odd);
        go_on(Duration::from_secs(61)).await;
        assert_eq!(scene.ask(META).await.unwrap(), COINS, "{odd}");
        assert_eq!(scene.ask(spot).await.unwrap(), COINS, "{odd}");
    }
    // Without tokens it is none to who asks for spot.
    let perps = r#"{"universe":[{"name":"ETH"}]}"#;
    *server.coins.lock().unwrap() = Some(perps);
    go_on(Duration::from_secs(61)).await;
    assert_eq!(scene.ask(META).await.unwrap(), perps);
    assert_eq!(scene.ask(spot).await.unwrap(), COINS);
}

#[actix_rt::test]
async fn a_slow_upstream_holds_up_who_asks_only_for_a_moment_and_is_heard_all_the_same() {
    let server = Arc::<Server>::default();
    let scene = scene_with(&server).await;
    let old = scene.ask(META).await.unwrap();
    let new = r#"{"universe":[{"name":"ETH"}]}"#;
    *server.coins.lock().unwrap() = Some(new);
    server.hangs.store(true, Ordering::SeqCst);
    go_on(Duration::from_secs(61)).await;

    assert_eq!(scene.ask(META).await.unwrap(), old);
    server.hangs.store(false, Ordering::SeqCst);

    until("it is heard", async || scene.ask(META).await.unwrap() == new).await;
    assert_eq!(server.asked().len(), 2);
}
