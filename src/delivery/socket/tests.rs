use std::{io::Read, net::TcpListener};

use actix_web::http::header::HeaderMap;

use super::*;
use crate::{
    config::HttpConfig,
    delivery::Casting,
    router::log::{Heads, Log},
    testing::foundation,
};

#[actix_rt::test]
async fn a_bundle_finds_room_by_a_write_where_that_can_help() {
    let (foundation, _directory) = foundation(Log::new(1 << 20, 0, Heads::default())).await;
    let casting = Casting::new(foundation);
    let config = SessionConfig { outbox_bytes: 1_000, ..SessionConfig::default() };
    let client = Client::of(None, &HeaderMap::new(), &HttpConfig::default());
    let permit = casting.sessions.enter(client, &config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let wire = Wire::new(socket, &config, usize::MAX, casting.stats.clone(), permit).unwrap();
    poll_fn(|cx| wire.poll_writable(cx)).await.unwrap();
    let frames: Vec<_> = (1..=4).map(|byte| Bytes::from(vec![byte; 200])).collect();
    let long: Vec<_> = (0..6).flat_map(|_| frames[..1].to_vec()).collect();

    wire.push(Bytes::from(vec![0; 900])).unwrap();
    assert_eq!(wire.push_bundle(&Rc::new(Bundle::new(&long))), Err(Full));
    assert_eq!(wire.waiting_bytes(), 900, "no write makes room for that");
    wire.push_bundle(&Rc::new(Bundle::new(&frames))).unwrap();
    assert_eq!(wire.waiting_bytes(), 800, "what waited has left");
    assert_eq!(wire.flush(), Flush::Drained);

    let mut received = vec![0; 1_700];
    peer.read_exact(&mut received).unwrap();
    assert_eq!(received, [vec![0; 900], frames.concat()].concat());
    let stats = &casting.stats.sessions;
    let counts = [&stats.frames_queued, &stats.frames_sent, &stats.sent_bytes, &stats.writes];
    assert_eq!(counts.map(|one| one.get()), [5, 5, 1_700, 2]);
}
