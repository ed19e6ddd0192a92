//! Rows: what the official protocol tells of a user's events, whichever way it is asked for them.

use std::ops::ControlFlow;

use super::{FILLS, Funding, LedgerUpdate, MISC, aggregate, push_twap_slice_fill, time_ms};
use crate::event::{Event, Topic};

/// What rows are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    Fills {
        /// Fills of one crossing order in one block are told as one.
        aggregate: bool,
    },
    Fundings,
    LedgerUpdates,
    TwapSliceFills,
}

/// How rows are asked for: fundings look different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    BySubscription,
    ByRequest,
}

impl Rows {
    pub fn topic(self) -> Topic {
        match self {
            Self::Fills { .. } | Self::TwapSliceFills => FILLS,
            Self::Fundings | Self::LedgerUpdates => MISC,
        }
    }

    /// The kind of the events, by which the store finds them; `None` for all of the topic.
    pub fn kind(self) -> Option<&'static str> {
        match self {
            Self::Fills { .. } => None,
            Self::TwapSliceFills => Some("twapId"),
            Self::Fundings => Some("Funding"),
            Self::LedgerUpdates => Some("LedgerUpdate"),
        }
    }

    /// Gives each row of a whole block with its time in milliseconds, until `take` has enough.
    pub fn of_block(
        self,
        asked: Asked,
        block: &[Event],
        mut take: impl FnMut(i64, &[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if self == (Self::Fills { aggregate: true }) {
            let time = block.first().map_or(0, time_ms);
            return aggregate(block).iter().try_for_each(|fill| take(time, fill));
        }
        block.iter().try_for_each(|event| {
            let time = time_ms(event);
            self.of_event(asked, event, |row| take(time, row))
        })
    }

    /// Gives each row of an event by itself, until `take` has enough; none for one that is something else.
    pub fn of_event(
        self,
        asked: Asked,
        event: &Event,
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut row = Vec::new();
        match self {
            Self::Fills { .. } => return take(&event.body),
            Self::TwapSliceFills => {
                if push_twap_slice_fill(event, &mut row) {
                    return take(&row);
                }
            }
            Self::LedgerUpdates => {
                if let Some(update) = LedgerUpdate::read(event) {
                    update.push(&mut row);
                    return take(&row);
                }
            }
            Self::Fundings => {
                let Some(funding) = Funding::read(event) else { return ControlFlow::Continue(()) };
                for delta in &funding.deltas {
                    row.clear();
                    match asked {
                        Asked::BySubscription => delta.push_event(&funding, &mut row),
                        Asked::ByRequest => delta.push_update(&funding, &mut row),
                    }
                    take(&row)?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}
