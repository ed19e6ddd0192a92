//! The fills of a block: both sides of each trade, and the dust conversions of a day's first block.

use std::ops::Range;

use super::{
    block::Elements,
    chain::{Moment, ZERO_HASH},
    text::{push_decimal, push_hex, push_u64},
};

/// A market, with the decimal places of its prices and sizes.
struct Market {
    coin: &'static str,
    /// Price in units of its last place.
    price: i64,
    price_places: u32,
    size_places: u32,
    fee_token: &'static str,
    kind: MarketKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MarketKind {
    Perp,
    /// Perpetuals deployed by others; their fills may carry a deployer's fee.
    Deployed,
    /// Spot and outcomes: bought and sold, no position.
    Spot,
}

use MarketKind::{Deployed, Perp, Spot};

#[rustfmt::skip]
const MARKETS: [Market; 14] = [
    market("BTC", 764_710, 1, 5, "USDC", Perp),
    market("ETH", 21_045, 1, 4, "USDC", Perp),
    market("SOL", 893_210, 4, 2, "USDC", Perp),
    market("HYPE", 36_114, 3, 2, "USDC", Perp),
    market("UNI", 39_457, 4, 1, "USDC", Perp),
    market("kPEPE", 3_421, 6, 0, "USDC", Perp),
    market("AZTEC", 23_368, 6, 1, "USDC", Perp),
    market("xyz:NVDA", 17_921, 2, 3, "USDC", Deployed),
    market("cash:TSLA", 38_917, 2, 3, "USDT0", Deployed),
    market("km:USTECH", 58_932, 2, 3, "USDH", Deployed),
    market("@142", 712_160, 1, 8, "USDC", Spot),
    market("@107", 36_120, 3, 2, "HYPE", Spot),
    market("PURR/USDC", 89_515, 6, 1, "PURR", Spot),
    market("#12", 4_215, 4, 0, "USDH", Spot),
];

const fn market(
    coin: &'static str,
    price: i64,
    price_places: u32,
    size_places: u32,
    fee_token: &'static str,
    kind: MarketKind,
) -> Market {
    Market { coin, price, price_places, size_places, fee_token, kind }
}

/// Spot coins whose crumbs are converted at the start of a day.
const DUST_COINS: [&str; 5] = ["@230", "@142", "@166", "@156", "PURR/USDC"];

/// Text that a careless store or parser spoils. No node was seen to write this field: it stands for
/// the next one that appears.
const NOTES: [&str; 5] = [
    r"trader's choice; DROP TABLE events;--",
    r#"she said \"buy\", then \\ left"#,
    r"caf\u00e9 \ud83d\ude80",
    r"na\u00efve \u2014 日本語 🚀 é",
    r#"]}],{\"local_time\":\"\n\t"#,
];

/// Appends the trades of a block: none in almost half of the blocks, 3.3 fills on average.
pub(super) fn push_trades(moment: &mut Moment, fills: &mut Elements) {
    if moment.rng.u32(..100) >= 55 {
        return;
    }
    let mut order = Order::draw(moment);
    push_trade(moment, fills, &order);
    for _ in 1..moment.rng.u32(1..=5) {
        // The rest of an order is filled by the next who offers.
        if !moment.one_in(4) {
            order = Order::draw(moment);
        }
        push_trade(moment, fills, &order);
    }
}

/// An order that crosses, which one resting order or several fill.
struct Order {
    market: &'static Market,
    number: u64,
    user: usize,
    buys: bool,
    dir: &'static str,
    /// Of its transaction.
    hash: Vec<u8>,
    twap: Option<u64>,
}

impl Order {
    fn draw(moment: &mut Moment) -> Self {
        let rng = &mut moment.rng;
        let market = &MARKETS[rng.usize(..MARKETS.len()).min(rng.usize(..MARKETS.len()))];
        let (user, buys) = (moment.users.draw(rng), rng.bool());
        let (number, dir) = (rng.u64(ORDERS), direction(market.kind, buys, rng.u32(..20)));
        let twap = moment.one_in(30).then(|| moment.rng.u64(1_700_000..1_800_000));
        // The slices of a TWAP order belong to no transaction.
        let hash = if twap.is_some() { ZERO_HASH.to_vec() } else { moment.hash() };
        Self { market, number, user, buys, dir, hash, twap }
    }
}

/// What both sides of a trade share.
struct Trade<'a> {
    order: &'a Order,
    price: i64,
    size: i64,
    tid: u64,
    liquidated: Option<usize>,
}

struct Side {
    user: usize,
    buys: bool,
    crossed: bool,
    dir: &'static str,
    order: u64,
}

fn push_trade(moment: &mut Moment, fills: &mut Elements, order: &Order) {
    let Order { market, user, buys, .. } = *order;
    let maker = moment.users.draw_other(&mut moment.rng, user);
    let trade = Trade {
        order,
        price: market.price + moment.rng.i64(-market.price / 50..=market.price / 50),
        size: moment.rng.i64(1..50_000),
        tid: moment.rng.u64(1..1 << 50),
        liquidated: (market.kind == Perp && moment.one_in(60)).then_some(user),
    };
    let dir = direction(market.kind, !buys, moment.rng.u32(..20));
    let resting = moment.rng.u64(ORDERS);
    let taker = Side { user, buys, crossed: true, dir: order.dir, order: order.number };
    let maker = Side { user: maker, buys: !buys, crossed: false, dir, order: resting };
    // The buyer stands first.
    let sides = if buys { [taker, maker] } else { [maker, taker] };
    for side in sides {
        push_fill(moment, fills, &trade, &side);
    }
}

/// Numbers of orders.
const ORDERS: Range<u64> = 349_000_000_000..350_000_000_000;

/// Length of `["0x..",` before the body of a fill.
const BEFORE_BODY: usize = 46;

fn push_fill(moment: &mut Moment, fills: &mut Elements, trade: &Trade, side: &Side) {
    let (market, rng) = (trade.order.market, &mut moment.rng);
    let out = fills.begin();
    out.extend_from_slice(b"[\"");
    out.extend_from_slice(moment.users.text(side.user));
    out.extend_from_slice(br#"",{"coin":""#);
    out.extend_from_slice(market.coin.as_bytes());
    out.extend_from_slice(br#"","px":""#);
    push_decimal(out, trade.price, market.price_places);
    out.extend_from_slice(br#"","sz":""#);
    push_decimal(out, trade.size, market.size_places);
    out.extend_from_slice(if side.buys {
        br#"","side":"B","time":"#
    } else {
        br#"","side":"A","time":"#
    });
    push_u64(out, (moment.time_ns / 1_000_000) as u64);
    out.extend_from_slice(br#","startPosition":""#);
    push_decimal(out, rng.i64(-9_000_000..9_000_000), market.size_places);
    out.extend_from_slice(br#"","dir":""#);
    out.extend_from_slice(side.dir.as_bytes());
    out.extend_from_slice(br#"","closedPnl":""#);
    let closes = side.dir.starts_with("Close");
    push_decimal(out, if closes { rng.i64(-90_000_000..90_000_000) } else { 0 }, 6);
    out.extend_from_slice(br#"","hash":""#);
    out.extend_from_slice(&trade.order.hash);
    out.extend_from_slice(br#"","oid":"#);
    push_u64(out, side.order);
    out.extend_from_slice(if side.crossed { b",\"crossed\":true" } else { b",\"crossed\":false" });
    out.extend_from_slice(br#","fee":""#);
    // Makers are paid.
    push_decimal(out, if side.crossed { rng.i64(0..900_000) } else { -rng.i64(0..9_000) }, 6);
    out.push(b'"');
    let built = side.crossed && rng.u32(..12) == 0;
    if built && rng.bool() {
        out.extend_from_slice(br#","builderFee":""#);
        push_decimal(out, rng.i64(1..50_000), 6);
        out.push(b'"');
    }
    if market.kind == Deployed && rng.u32(..8) == 0 {
        out.extend_from_slice(br#","deployerFee":""#);
        push_decimal(out, rng.i64(1..50_000), 6);
        out.push(b'"');
    }
    out.extend_from_slice(br#","tid":"#);
    push_u64(out, trade.tid);
    if rng.u32(..5) > 0 {
        out.extend_from_slice(br#","cloid":""#);
        push_hex(out, &rng.u128(..).to_be_bytes());
        out.push(b'"');
    }
    if let Some(liquidated) = trade.liquidated {
        out.extend_from_slice(br#","liquidation":{"liquidatedUser":""#);
        out.extend_from_slice(moment.users.text(liquidated));
        out.extend_from_slice(br#"","markPx":""#);
        push_decimal(out, trade.price + 1, market.price_places);
        out.extend_from_slice(br#"","method":"market"}"#);
    }
    if rng.u32(..150) == 0 {
        out.extend_from_slice(br#","note":""#);
        out.extend_from_slice(NOTES[rng.usize(..NOTES.len())].as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(br#","feeToken":""#);
    out.extend_from_slice(market.fee_token.as_bytes());
    out.push(b'"');
    if built {
        out.extend_from_slice(br#","builder":""#);
        // A builder is often a user too, who is none of this fill's.
        out.extend_from_slice(moment.users.text(rng.usize(..moment.users.len())));
        out.push(b'"');
    }
    push_twap(out, trade.order.twap.filter(|_| side.crossed));
    fills.end();
    fills.give_inner(moment.users.address(side.user), BEFORE_BODY, 1);
}

/// Ends a fill.
fn push_twap(out: &mut Vec<u8>, twap: Option<u64>) {
    out.extend_from_slice(br#","twapId":"#);
    match twap {
        Some(id) => push_u64(out, id),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b"}]");
}

fn direction(kind: MarketKind, buys: bool, chance: u32) -> &'static str {
    match (kind, buys, chance) {
        (Spot, true, _) => "Buy",
        (Spot, false, _) => "Sell",
        (_, true, 0) => "Short > Long",
        (_, false, 0) => "Long > Short",
        (_, true, 1..=10) => "Open Long",
        (_, true, _) => "Close Short",
        (_, false, 1..=10) => "Open Short",
        (_, false, _) => "Close Long",
    }
}

/// Appends the dust conversions of a day's start: more than 1,300 fills that share tid 0 and a
/// zero hash.
pub(super) fn push_dust(moment: &mut Moment, fills: &mut Elements) {
    for _ in 0..moment.rng.u32(1_300..1_360) {
        let user = moment.rng.usize(..moment.users.len());
        let size = moment.rng.i64(1..9_999);
        let out = fills.begin();
        out.extend_from_slice(b"[\"");
        out.extend_from_slice(moment.users.text(user));
        out.extend_from_slice(br#"",{"coin":""#);
        out.extend_from_slice(DUST_COINS[moment.rng.usize(..DUST_COINS.len())].as_bytes());
        out.extend_from_slice(br#"","px":"71216.0","sz":""#);
        push_decimal(out, size, 10);
        out.extend_from_slice(br#"","side":"A","time":"#);
        push_u64(out, (moment.time_ns / 1_000_000) as u64);
        out.extend_from_slice(br#","startPosition":""#);
        push_decimal(out, size, 10);
        out.extend_from_slice(br#"","dir":"Spot Dust Conversion","closedPnl":"0.0","hash":""#);
        out.extend_from_slice(ZERO_HASH);
        out.extend_from_slice(br#"","oid":"#);
        push_u64(out, moment.rng.u64(349_000_000_000..350_000_000_000));
        out.extend_from_slice(br#","crossed":true,"fee":"0.0","tid":0,"feeToken":"USDC""#);
        push_twap(out, None);
        fills.end();
        fills.give_inner(moment.users.address(user), BEFORE_BODY, 1);
    }
}
