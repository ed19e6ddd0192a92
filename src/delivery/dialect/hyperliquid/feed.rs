//! What can be subscribed to: how it is called, and of which events it is made.

use crate::{
    delivery::view::View,
    event::Topic,
    official::{FILLS, MISC, Rows},
};

/// What can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// Of users.
    Rows(Rows),
    /// Of users, fills and misc events together.
    Events,
    /// Of everybody.
    Trades,
}

impl Feed {
    /// By the number of its view. Those of misc events alone come last.
    pub const ALL: [Self; 7] = [
        Self::Rows(Rows::Fills { aggregate: false }),
        Self::Rows(Rows::Fills { aggregate: true }),
        Self::Events,
        Self::Rows(Rows::TwapSliceFills),
        Self::Trades,
        Self::Rows(Rows::Fundings),
        Self::Rows(Rows::LedgerUpdates),
    ];

    /// How many of them are made of fills.
    pub const OF_FILLS: usize = 5;

    /// What clients call so.
    pub fn of_type(name: &str, aggregate: bool) -> Option<Self> {
        Some(match name {
            "userFills" => Self::Rows(Rows::Fills { aggregate }),
            "userEvents" => Self::Events,
            "userFundings" => Self::Rows(Rows::Fundings),
            "userNonFundingLedgerUpdates" => Self::Rows(Rows::LedgerUpdates),
            "userTwapSliceFills" => Self::Rows(Rows::TwapSliceFills),
            "trades" => Self::Trades,
            _ => return None,
        })
    }

    pub fn channel(self) -> &'static str {
        match self {
            Self::Rows(Rows::Fills { .. }) => "userFills",
            Self::Rows(Rows::Fundings) => "userFundings",
            Self::Rows(Rows::LedgerUpdates) => "userNonFundingLedgerUpdates",
            Self::Rows(Rows::TwapSliceFills) => "userTwapSliceFills",
            Self::Events => "user",
            Self::Trades => "trades",
        }
    }

    /// Whether it shows events of a topic.
    pub fn is_made_of(self, topic: Topic) -> bool {
        match self {
            Self::Rows(rows) => topic == rows.topic(),
            Self::Events => [FILLS, MISC].contains(&topic),
            Self::Trades => topic == FILLS,
        }
    }

    /// How an event looks in it.
    pub fn view(self) -> View {
        let number = Self::ALL.iter().position(|feed| *feed == self);
        View::new(number.expect("each has its place") as u8)
    }

    /// Whose view that is.
    pub fn of_view(view: View) -> Option<Self> {
        Self::ALL.get(view.number()).copied()
    }

    /// Whether it shows several events of a block as one.
    pub fn puts_together(self) -> bool {
        matches!(self, Self::Trades | Self::Rows(Rows::Fills { aggregate: true }))
    }
}

/// The field of the data that has the list.
pub fn list_of(rows: Rows) -> &'static str {
    match rows {
        Rows::Fills { .. } => "fills",
        Rows::Fundings => "fundings",
        Rows::LedgerUpdates => "nonFundingLedgerUpdates",
        Rows::TwapSliceFills => "twapSliceFills",
    }
}
