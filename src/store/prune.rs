//! The request `prune` of the control socket: the running daemon deletes old events.
//!
//! Place: between [`ControlServer`](crate::control::ControlServer) and `DbWriter`, which is the one
//! that may write. Invariants: commits go first, so it deletes in portions with a pause between them;
//! another store than the daemon's own is refused; who hangs up ends it behind the portion that is
//! under way.

use std::time::Duration;

use actix::prelude::*;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Retained, StoreError};
use crate::{
    control::{Command, Refusal, Told},
    event::Timestamp,
};

/// Of the request. Its parameters are a [`PruneOrder`], what it tells and its result [`Deleted`].
pub const PRUNE: &str = "prune";

/// Code of the refusal to prune a store that is not the daemon's.
pub const OTHER_STORE: &str = "other_store";

/// Time between two portions, in which commits go first.
const PAUSE: Duration = Duration::from_millis(10);

/// Deletes one portion of the events that are older. Between two of them the live stream has its
/// turn.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<Pruned, StoreError>")]
pub struct Prune {
    pub edge: Timestamp,
}

/// What became of a [`Prune`].
#[derive(Clone, Copy, Debug)]
pub enum Pruned {
    Done(Retained),
    /// Nothing: the live stream has more waiting than a few events. To be asked for again later.
    Postponed,
}

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneOrder {
    /// The store that is meant, by its [name](super::EventStore::describe).
    pub store: String,
    /// Events before it go, microseconds since 1970.
    pub before: i64,
}

/// How many events are gone.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Deleted {
    pub deleted: usize,
}

/// Has `DbWriter` delete.
pub struct PruneCommand {
    /// Of the daemon.
    pub store: String,
    pub writer: Recipient<Prune>,
}

#[async_trait(?Send)]
impl Command for PruneCommand {
    fn name(&self) -> &'static str {
        PRUNE
    }

    async fn run(&self, parameters: Value, told: &Told) -> Result<Value, Refusal> {
        let order: PruneOrder = serde_json::from_value(parameters).map_err(Refusal::bad_request)?;
        if order.store != self.store {
            let text = format!("this daemon writes to {} and not to {}", self.store, order.store);
            return Err(Refusal::new(OTHER_STORE, text));
        }
        let edge = Timestamp(order.before);
        if edge > Timestamp::now() {
            return Err(Refusal::bad_request(format!("{edge} lies in the future")));
        }
        let mut deleted = 0;
        loop {
            let portion = self.writer.send(Prune { edge }).await;
            let portion = portion.map_err(|_| Refusal::new("stopping", "the daemon stops"))?;
            match portion {
                Ok(Pruned::Done(retained)) => {
                    deleted += retained.deleted;
                    if !retained.more {
                        return Ok(json!(Deleted { deleted }));
                    }
                    told.tell(&Deleted { deleted }).await;
                }
                Ok(Pruned::Postponed) => {}
                Err(error) => {
                    let text = format!("stopped after {deleted} events: {error}");
                    return Err(Refusal::new("store", text));
                }
            }
            actix_rt::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::sync::mpsc;

    use super::*;

    /// In the place of `DbWriter`: what it answers next, and the edges that it was given.
    #[derive(Default)]
    struct Script {
        answers: VecDeque<Result<Pruned, StoreError>>,
        edges: Vec<Timestamp>,
    }

    impl Actor for Script {
        type Context = Context<Self>;
    }

    impl Handler<Prune> for Script {
        type Result = Result<Pruned, StoreError>;

        fn handle(&mut self, Prune { edge }: Prune, _ctx: &mut Self::Context) -> Self::Result {
            self.edges.push(edge);
            self.answers.pop_front().expect("it is asked no more than there is to do")
        }
    }

    #[derive(Message)]
    #[rtype(result = "Vec<Timestamp>")]
    struct GetEdges;

    impl Handler<GetEdges> for Script {
        type Result = Vec<Timestamp>;

        fn handle(&mut self, _: GetEdges, _ctx: &mut Self::Context) -> Self::Result {
            self.edges.clone()
        }
    }

    fn portion(deleted: usize, more: bool) -> Result<Pruned, StoreError> {
        Ok(Pruned::Done(Retained { deleted, more, ..Retained::default() }))
    }

    /// What is answered, what is told before, and with which edges the writer was asked.
    async fn prune(
        parameters: Value,
        answers: impl IntoIterator<Item = Result<Pruned, StoreError>>,
    ) -> (Result<Value, Refusal>, Vec<Value>, Vec<Timestamp>) {
        let writer = Script { answers: answers.into_iter().collect(), edges: Vec::new() }.start();
        let command =
            PruneCommand { store: "sqlite:a".to_owned(), writer: writer.clone().recipient() };
        let (told, mut lines) = mpsc::channel(8);
        let answer = command.run(parameters, &Told(told)).await;
        let mut progress = Vec::new();
        while let Ok(line) = lines.try_recv() {
            progress.push(line);
        }
        (answer, progress, writer.send(GetEdges).await.unwrap())
    }

    #[actix_rt::test]
    async fn portions_go_on_behind_the_live_stream_until_nothing_is_left_and_tell_how_far_they_are()
    {
        let answers =
            [Ok(Pruned::Postponed), portion(3, true), Ok(Pruned::Postponed), portion(2, false)];
        let order = json!({"store": "sqlite:a", "before": 7});

        let (answer, told, edges) = prune(order, answers).await;

        assert_eq!(answer, Ok(json!({"deleted": 5})));
        assert_eq!(told, [json!({"deleted": 3})]);
        assert_eq!(edges, [Timestamp(7); 4]);
    }

    #[actix_rt::test]
    async fn a_store_that_fails_in_between_ends_it_with_what_was_done() {
        let away = Err(StoreError::Unavailable("away".to_owned()));
        let order = json!({"store": "sqlite:a", "before": 7});

        let (answer, ..) = prune(order, [portion(3, true), away]).await;

        let refusal = answer.unwrap_err();
        assert_eq!(refusal.code, "store");
        assert!(refusal.message.starts_with("stopped after 3 events: "), "{refusal}");
    }

    #[actix_rt::test]
    async fn the_writer_is_asked_for_nothing_that_the_daemon_may_not_delete() {
        let future = Timestamp::now().0 + 3_600_000_000;
        for (order, code) in [
            (json!({"store": "sqlite:b", "before": 7}), OTHER_STORE),
            (json!({"store": "sqlite:a", "before": future}), "bad_request"),
            (json!({"store": "sqlite:a", "before": 7, "but": 1}), "bad_request"),
        ] {
            let (answer, _, edges) = prune(order, [portion(1, false)]).await;

            assert_eq!(answer.unwrap_err().code, code);
            assert!(edges.is_empty());
        }
    }
}
