//! A daemon, the node that it follows, and clients.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::MutexGuard,
};

use serde_json::Value;

use crate::{
    chain::Chain,
    client::{Client, Sdk, port_of_the_rust_sdk},
    common::{Setup, TestDaemon, eventually, proxy::Proxy},
    feed::{Feed, Subscription},
};

/// The one local server that the Rust SDK knows.
pub const RUST_SDK: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3001));

/// Stands at [`RUST_SDK`], for as long as this lives.
pub struct StandIn {
    // Gone before the next test may have the port.
    _proxy: Proxy,
    _port: MutexGuard<'static, ()>,
}

impl StandIn {
    /// Leads to this daemon.
    pub fn before(daemon: SocketAddr) -> Self {
        let port = port_of_the_rust_sdk();
        Self { _proxy: Proxy::at(RUST_SDK, daemon), _port: port }
    }
}

pub struct Scene {
    pub setup: Setup,
    daemon: Option<TestDaemon>,
    pub chain: Chain,
}

impl Scene {
    /// With a daemon that keeps everybody's events.
    pub fn new(config: &str) -> Self {
        Self::of("all", config)
    }

    /// With a daemon that keeps the events of these users, one a line.
    pub fn of(whitelist: &str, config: &str) -> Self {
        let mut setup = Setup::new();
        setup.whitelist = whitelist.to_owned();
        setup.config = config.to_owned();
        let chain = Chain::new(setup.node());
        let daemon = Some(setup.start());
        Self { setup, daemon, chain }
    }

    pub fn daemon(&self) -> &TestDaemon {
        self.daemon.as_ref().expect("it runs")
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.daemon().port).into()
    }

    /// Waits until all that was written is stored.
    pub fn wait_stored(&self) {
        eventually("all is stored", || {
            self.daemon().status()["store"]["inserted"].as_u64() == Some(self.chain.rows)
        });
    }

    /// Stands at the one address of this machine that the Rust SDK knows.
    pub fn stand_in(&self) -> StandIn {
        StandIn::before(self.address())
    }

    pub fn stop_daemon(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            assert!(daemon.stop().success());
        }
    }

    pub fn start_daemon(&mut self) {
        self.daemon = Some(self.setup.start());
    }

    pub fn client(&self, sdk: Sdk, options: &Value) -> Client {
        Client::start(sdk, self.address(), options)
    }

    /// Makes subscriptions while the node goes on writing.
    pub fn subscribe(
        &mut self,
        client: &mut Client,
        wanted: &[(u64, Feed, &str)],
    ) -> Vec<Subscription> {
        let mut made = Vec::new();
        for &(transport, feed, user) in wanted {
            made.push(Subscription::ask(client, transport, feed, user));
            self.chain.advance(3);
        }
        let chain = &mut self.chain;
        client.wait("all subscriptions", |client| {
            let missing =
                made.iter_mut().filter_map(|one| (!one.is_made(client, chain)).then_some(()));
            let complete = missing.count() == 0;
            if !complete {
                chain.advance(1);
            }
            complete
        });
        made
    }

    /// Waits until subscriptions have all that was written.
    pub fn catch_up<'s>(
        &self,
        client: &mut Client,
        subscriptions: impl IntoIterator<Item = &'s Subscription>,
    ) {
        for subscription in subscriptions {
            let what = format!("the last of {subscription:?}");
            client.wait(&what, |client| subscription.has_caught_up(client, &self.chain));
        }
    }
}
