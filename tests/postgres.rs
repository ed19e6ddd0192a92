//! What happens when the PostgreSQL server is away: nothing to clients, nothing to the data.

#![cfg(feature = "failpoints")]
// The helpers of tests are tests too, which clippy's own exception does not see.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;
#[path = "postgres/cuts.rs"]
mod cuts;
#[path = "postgres/denials.rs"]
mod denials;
#[path = "postgres/scene.rs"]
mod scene;
#[path = "postgres/servers.rs"]
mod servers;
#[path = "postgres/standby.rs"]
mod standby;

use common::{
    Setup, eventually,
    node::{ALICE, Kind, append, fills_line},
    postgres::PostgresServer,
    receive_type,
};

const DAY: u32 = 20_260_315;

/// Blocks that come while the server is away.
const BLOCKS: u64 = 60;

#[test]
fn a_server_that_is_killed_again_and_again_stops_no_stream_and_loses_nothing() {
    let server = PostgresServer::start();
    let mut setup = Setup::new();
    setup.database_url = Some(server.url.clone());
    let mut file = Kind::fills(setup.node()).open(DAY, 9);
    let daemon = setup.start();
    let mut client = daemon.subscribe("fills");
    let mut block = 0;
    let mut cast = |blocks: u64| {
        for _ in 0..blocks {
            block += 1;
            append(&mut file, &(fills_line(block, ALICE, 2) + "\n"));
            // Each of them is with the client before the next is written.
            for index in 0..2 {
                let event = receive_type(&mut client, "event");
                assert_eq!((&event["block"], &event["index"]), (&block.into(), &index.into()));
            }
        }
        block
    };

    for _ in 0..4 {
        // In the middle of commits.
        cast(10);
        server.kill();
        let written = cast(BLOCKS);
        eventually("status says it", || {
            let status = daemon.status();
            status["state"] == "degraded" && status["reasons"].to_string().contains("store")
        });
        server.restart();
        eventually("all is stored", || setup.stored().len() as u64 == written * 2);
        eventually("all is well again", || {
            !daemon.status()["reasons"].to_string().contains("store")
        });
    }

    let status = daemon.status();
    assert_eq!(status["router"]["generations"], 0, "nothing had to be read again: {status}");
    assert_eq!(status["router"]["conflicts"], 0, "{status}");
    assert_eq!(daemon.stop().code(), Some(0));
}
