//! Ledger updates: the many types of `delta`, which make up most of the misc events.

use super::{chain::Moment, text::decimal};

pub(super) struct LedgerUpdate {
    /// The update's `users`, by number; one may stand twice.
    pub users: Vec<usize>,
    /// The JSON of its `delta`.
    pub delta: String,
}

/// Draws a ledger update of one to three users.
pub(super) fn draw(moment: &mut Moment) -> LedgerUpdate {
    let user = moment.users.draw(&mut moment.rng);
    let other = moment.users.draw_other(&mut moment.rng, user);
    let third = moment.users.draw(&mut moment.rng);
    let usdc = decimal(moment.rng.i64(1..900_000_000_000), 6);
    let more = decimal(moment.rng.i64(0..90_000_000), 6);
    let flag = moment.rng.bool();
    let nonce = moment.time_ns / 1_000_000;
    let (me, you) = (moment.users.name(user), moment.users.name(other));
    let (users, delta) = match moment.rng.u32(..20) {
        0 | 1 => (vec![user], format!(r#"{{"type":"deposit","usdc":"{usdc}"}}"#)),
        2 => (
            vec![user],
            format!(r#"{{"type":"withdraw","usdc":"{usdc}","nonce":{nonce},"fee":"1.0"}}"#),
        ),
        3 | 4 => (
            vec![user],
            format!(r#"{{"type":"accountClassTransfer","usdc":"{usdc}","toPerp":{flag}}}"#),
        ),
        5 => (
            vec![user, other],
            format!(
                r#"{{"type":"internalTransfer","usdc":"{usdc}","user":"{me}","destination":"{you}","fee":"1.0"}}"#
            ),
        ),
        6 => (
            vec![user, other],
            format!(
                r#"{{"type":"subAccountTransfer","usdc":"{usdc}","user":"{me}","destination":"{you}"}}"#
            ),
        ),
        7 => (
            vec![user, other],
            format!(
                r#"{{"type":"spotTransfer","token":"PURR","amount":"{usdc}","usdcValue":"{more}","user":"{me}","destination":"{you}","fee":"0.0","nativeTokenFee":"0.0","nonce":null,"feeToken":""}}"#
            ),
        ),
        8 | 9 => (
            vec![user, other],
            format!(
                r#"{{"type":"send","user":"{me}","destination":"{you}","sourceDex":"spot","destinationDex":"xyz","token":"USDC","amount":"{usdc}","usdcValue":"{usdc}","fee":"0.0","nativeTokenFee":"0.00002","nonce":{nonce},"feeToken":""}}"#
            ),
        ),
        // From one pocket of a user to another: the user stands twice and gets one event.
        10 => (
            vec![user, user],
            format!(
                r#"{{"type":"send","user":"{me}","destination":"{me}","sourceDex":"","destinationDex":"spot","token":"USDC","amount":"{usdc}","usdcValue":"{usdc}","fee":"0.0","nativeTokenFee":"0.0","nonce":{nonce},"feeToken":""}}"#
            ),
        ),
        11 => (
            vec![user],
            format!(
                r#"{{"type":"liquidation","liquidatedNtlPos":"{usdc}","accountValue":"{more}","leverageType":"Cross","liquidatedPositions":[{{"coin":"BTC","szi":"0.5"}},{{"coin":"xyz:NVDA","szi":"-3.0"}}]}}"#
            ),
        ),
        12 => {
            (vec![user], format!(r#"{{"type":"rewardsClaim","amount":"{more}","token":"HYPE"}}"#))
        }
        13 => (
            vec![user, other],
            format!(
                r#"{{"type":"vaultCreate","vault":"{you}","usdc":"{usdc}","fee":"100.0","name":"O'Brien \"The Whale\" \u00e9l\u00e8ve 🐳"}}"#
            ),
        ),
        14 => (
            vec![user, other],
            format!(r#"{{"type":"vaultDeposit","vault":"{you}","user":"{me}","usdc":"{usdc}"}}"#),
        ),
        15 => (
            vec![user, other],
            format!(
                r#"{{"type":"vaultWithdraw","vault":"{you}","user":"{me}","requestedUsd":"{usdc}","commission":"0.0","closingCost":"0.0","basis":"{more}","netWithdrawnUsd":"{usdc}"}}"#
            ),
        ),
        // Leader, vault and the one who is paid.
        16 => (
            vec![user, other, third],
            format!(
                r#"{{"type":"vaultLeaderCommission","vault":"{you}","user":"{me}","usdc":"{more}"}}"#
            ),
        ),
        17 => (
            vec![user],
            format!(
                r#"{{"type":"cStakingTransfer","token":"HYPE","amount":"{more}","isDeposit":{flag}}}"#
            ),
        ),
        18 => (
            vec![user],
            format!(
                r#"{{"type":"borrowLend","token":"USDC","operation":"supply","amount":"{usdc}","interestAmount":"{more}"}}"#
            ),
        ),
        _ => (
            vec![user],
            format!(r#"{{"type":"accountActivationGas","amount":"{more}","token":"USDC"}}"#),
        ),
    };
    LedgerUpdate { users, delta }
}
