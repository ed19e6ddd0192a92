//! What a client says, and what has to be done about it.

use bytes::Bytes;
use tokio::time::Instant;

use super::Session;
use crate::{
    delivery::{
        close::CloseReason,
        dialect::{Aside, Desk, Later},
        frame::Inbound,
        subscription::Change,
    },
    event::Address,
    fail_point,
    official::Admission,
};

/// Most frames that are asked for aside and not made yet.
const MAX_ASIDES: usize = 100;

/// What has to be done about a client's frame.
pub(super) enum Step {
    /// More bytes are needed.
    Wait,
    Nothing,
    Pong(Bytes),
    /// Not before the answer that is put off.
    Later(String),
    Answer {
        replies: Vec<Bytes>,
        changes: Vec<Change>,
        later: Option<Later>,
        asides: Vec<Aside>,
    },
    Close(CloseReason),
}

impl Session {
    /// Takes one message of the client and finds out what has to be done. May panic: nothing
    /// outside of this session is changed here.
    pub(super) fn step(&mut self) -> Step {
        let message = match self.assembler.next(&mut self.inbound) {
            Ok(Some(message)) => message,
            Ok(None) => return Step::Wait,
            Err(reason) => return Step::Close(reason),
        };
        fail_point!("session.frame");
        // Pongs answer our own pings: bytes are their bound.
        let counts = !matches!(message, Inbound::Close(_) | Inbound::Pong);
        if counts && !self.allowances.take_messages(1, Instant::now()) {
            return Step::Close(CloseReason::TooMany);
        }
        match message {
            Inbound::Text(text) if self.resuming => match self.dialect.meanwhile(&text) {
                Some(frame) => Step::Answer {
                    replies: vec![frame],
                    changes: Vec::new(),
                    later: None,
                    asides: Vec::new(),
                },
                None => Step::Later(text),
            },
            Inbound::Text(text) => self.hear(&text),
            Inbound::Binary(content) => self.hear_binary(&content),
            Inbound::Ping(payload) => Step::Pong(payload),
            Inbound::Pong => Step::Nothing,
            Inbound::Close(code) => Step::Close(CloseReason::Client(code)),
        }
    }

    pub(super) fn hear(&mut self, text: &str) -> Step {
        if !self.settled
            && let Some(dialect) = self.door.settle(text)
        {
            self.settled = true;
            self.dialect = dialect;
            self.seat.speaks(dialect);
        }
        let dialect = self.dialect;
        let step = self.at_desk(|desk| dialect.receive(text, desk));
        if let Step::Answer { later: Some(later), .. } = &step
            && !self.allowances.take_messages(later.requests.saturating_sub(1), Instant::now())
        {
            return Step::Close(CloseReason::TooMany);
        }
        step
    }

    fn hear_binary(&mut self, content: &[u8]) -> Step {
        let (dialect, mut heard) = (self.dialect, Ok(()));
        let step = self.at_desk(|desk| heard = dialect.receive_binary(content, desk));
        heard.map_or_else(Step::Close, |()| step)
    }

    pub(super) fn at_desk(&mut self, work: impl FnOnce(&mut Desk<'_>)) -> Step {
        let (cursor, delivered) = (self.seat.settle(), self.seat.delivered());
        let waiting = self.asides.len() + usize::from(self.is_aside);
        let listing = &self.casting.listing;
        let is_listed = |user: &Address| listing.is_listed(user);
        // What was reloaded holds for open sessions too: it is a right, and no limit.
        let (live, client) = (&self.casting.config, self.wire.client());
        let admission = || Admission::of(&live.get().official, client);
        let mut desk = Desk {
            subscriptions: &mut self.seat.subscriptions,
            limits: &self.config.session,
            topics: &self.casting.topics,
            stats: &self.casting.stats,
            keeps_all: self.config.whitelist.all,
            is_listed: &is_listed,
            admission: &admission,
            cursor: &cursor,
            delivered: &delivered,
            replies: Vec::new(),
            changes: Vec::new(),
            later: None,
            speaks: None,
            asides: Vec::new(),
            free_asides: MAX_ASIDES.saturating_sub(waiting),
        };
        work(&mut desk);
        let Desk { replies, changes, later, asides, speaks, .. } = desk;
        if let Some(dialect) = speaks {
            self.dialect = dialect;
            self.seat.speaks(dialect);
        }
        Step::Answer { replies, changes, later, asides }
    }
}
