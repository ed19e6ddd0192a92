//! The frames of an event, one for each channel that shows it.
//!
//! Invariants: a body is copied, never serialised again; what several events are put together to is told with
//! the first of them, so once, and only where they have come together.

use std::{io::Write, ops::ControlFlow};

use bytes::Bytes;

use super::{
    Shown,
    feed::{Feed, list_of},
};
use crate::{
    delivery::{dialect::encode::IN_MEMORY, frame, view::View},
    event::{Address, Cursor, Event},
    official::{self, Asked, FILLS, Fill, Funding, LedgerUpdate, Rows, Trade},
    router::log::{ENCODINGS, EVERYDAY, LogEvent, block_around},
};

/// Where an event keeps the frame of a view. What is made of misc events alone is in the places of what is made
/// of fills.
pub fn slot(view: View) -> usize {
    EVERYDAY + view.number() % Feed::OF_FILLS
}

const _: () = assert!(EVERYDAY + Feed::OF_FILLS <= ENCODINGS);

/// The frame of an event in a view; empty where that does not show it.
pub fn of(shown: Shown<'_>) -> Bytes {
    let frame = || {
        let user = shown.event().sequenced.event.user?;
        match Feed::of_view(shown.view)? {
            Feed::Rows(rows) => user_rows(rows, shown, user),
            Feed::Events => user_event(shown, user),
            Feed::Trades => trade(shown),
        }
    };
    frame().unwrap_or_default()
}

fn user_rows(rows: Rows, shown: Shown<'_>, user: Address) -> Option<Bytes> {
    let entry = shown.event();
    let event = &entry.sequenced.event;
    let mut list = Vec::with_capacity(event.body.len() + 64);
    let mut push = |row: &[u8]| {
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(row);
        ControlFlow::Continue(())
    };
    let all = match rows {
        Rows::Fills { aggregate: true } => aggregated(shown).iter().try_for_each(|fill| push(fill)),
        rows => rows.of_event(Asked::BySubscription, event, push),
    };
    debug_assert!(all.is_continue());
    let (channel, field) = (Feed::Rows(rows).channel(), list_of(rows));
    (!list.is_empty()).then(|| {
        frame::text(|out| {
            write!(out, r#"{{"channel":"{channel}","data":{{"user":"{user}","{field}":["#)
                .expect(IN_MEMORY);
            out.extend_from_slice(&list);
            out.push(b']');
            place(entry, out);
            out.extend_from_slice(b"}}");
        })
    })
}

/// What a client gets first.
pub fn snapshot(rows: Rows, user: Address, items: &[Bytes], cursor: &Cursor) -> Bytes {
    let (channel, list) = (Feed::Rows(rows).channel(), list_of(rows));
    frame::text(|out| {
        out.reserve(items.iter().map(|item| item.len() + 1).sum::<usize>() + 256);
        write!(
            out,
            r#"{{"channel":"{channel}","data":{{"isSnapshot":true,"user":"{user}","{list}":["#
        )
        .expect(IN_MEMORY);
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(item);
        }
        write!(out, r#"],"seq":{},"cursor":"{cursor}"}}}}"#, cursor.seq).expect(IN_MEMORY);
    })
}

/// `userEvents` has a form for each kind, and no list of fundings: one message for each.
fn user_event(shown: Shown<'_>, user: Address) -> Option<Bytes> {
    let entry = shown.event();
    let event = &entry.sequenced.event;
    // Our own fields stand beside the data, in which some clients know one field only.
    let message = |write: &dyn Fn(&mut Vec<u8>)| {
        frame::text(|out| {
            write!(out, r#"{{"channel":"{}","data":{{"#, Feed::Events.channel()).expect(IN_MEMORY);
            write(out);
            write!(out, r#"}},"user":"{user}""#).expect(IN_MEMORY);
            place(entry, out);
            out.push(b'}');
        })
    };
    if event.id.topic == FILLS {
        return Some(message(&|out| {
            out.extend_from_slice(br#""fills":["#);
            out.extend_from_slice(&event.body);
            out.push(b']');
        }));
    }
    if let Some(funding) = Funding::read(event) {
        let frames = funding.deltas.iter().map(|delta| {
            message(&|out| {
                out.extend_from_slice(br#""funding":"#);
                delta.push_event(&funding, out);
            })
        });
        return Some(joined(frames.collect()));
    }
    let liquidation = LedgerUpdate::read(event)?.liquidation()?;
    Some(message(&|out| {
        out.extend_from_slice(br#""liquidation":"#);
        liquidation.push(entry.sequenced.seq, user, out);
    }))
}

/// Several frames as one piece of bytes, which goes out as it is.
fn joined(mut frames: Vec<Bytes>) -> Bytes {
    match frames.len() {
        1 => frames.remove(0),
        _ => frames.concat().into(),
    }
}

fn of_entry(entry: &LogEvent) -> &Event {
    &entry.sequenced.event
}

/// The fills of one crossing order in a block as one, told with the first of them.
fn aggregated(shown: Shown<'_>) -> Vec<Bytes> {
    let event = &shown.event().sequenced.event;
    let (before, behind) = beside(shown);
    official::aggregated_at(event, before.iter().map(of_entry), behind.iter().map(of_entry))
}

/// A trade is told with the first of its two fills.
fn trade(shown: Shown<'_>) -> Option<Bytes> {
    let event = &shown.event().sequenced.event;
    let fill = Fill::read(event)?;
    let of = fill.trade()?;
    let (before, behind) = beside(shown);
    let digits = of.to_string();
    let is_other = |entry: &&LogEvent| {
        let event = &entry.sequenced.event;
        // A search through the text is cheap, and a block may have thousands.
        memchr::memmem::find(&event.body, digits.as_bytes()).is_some()
            && Fill::read(event).is_some_and(|fill| fill.trade() == Some(of))
    };
    // The two stand side by side, as a rule, and are looked for there first.
    let other = match before.last().filter(is_other) {
        Some(_) => return None,
        None => behind.first().filter(is_other),
    };
    let other = other.or_else(|| {
        let is_first = !before.iter().any(|entry| is_other(&entry));
        is_first.then(|| behind.iter().find(is_other)).flatten()
    })?;
    let other = &other.sequenced.event;
    let trade = Trade::of(event, other).or_else(|| Trade::of(other, event))?;
    Some(frame::text(|out| {
        write!(out, r#"{{"channel":"{}","data":["#, Feed::Trades.channel()).expect(IN_MEMORY);
        trade.push(out);
        // Our own fields stand with the trade, as there is no other object.
        out.pop();
        place(shown.event(), out);
        out.extend_from_slice(b"}]}");
    }))
}

/// The other events of its block that have come with it: those before it, and those behind it.
fn beside(shown: Shown<'_>) -> (&[LogEvent], &[LogEvent]) {
    let block = block_around(shown.events, shown.at);
    (&shown.events[block.start..shown.at], &shown.events[shown.at + 1..block.end])
}

/// Where an event stands: what one needs to go on behind it.
fn place(entry: &LogEvent, out: &mut Vec<u8>) {
    let (id, seq, cursor) = (entry.sequenced.event.id, entry.sequenced.seq, entry.cursor());
    let (block, index) = (id.position, id.index);
    write!(out, r#","block":{block},"index":{index},"seq":{seq},"cursor":"{cursor}""#)
        .expect(IN_MEMORY);
}
