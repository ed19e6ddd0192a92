//! Answers of history: their order, their ends, and what paging finds.

use proptest::prelude::*;

use super::*;

#[actix_rt::test]
async fn both_ends_are_inclusive_and_the_order_is_as_asked_for() {
    let mut scene = Scene::of_rows(100).await;
    scene.store((1..=5).map(|block| fill(block, 0, block))).await;
    let (two, four) = (block_ms(2), block_ms(4));
    let by_time = |fields: String| request("userFillsByTime", &fields);

    let both = format!(r#","startTime":{two},"endTime":{four}"#);
    assert_eq!(scene.tids(&by_time(both.clone())).await, [2, 3, 4]);
    assert_eq!(scene.tids(&by_time(format!(r#"{both},"reversed":true"#))).await, [4, 3, 2]);
    assert_eq!(scene.tids(&by_time(format!(r#","startTime":{four}"#))).await, [4, 5]);
    let open = format!(r#","startTime":{four},"endTime":null"#);
    assert_eq!(scene.tids(&by_time(open)).await, [4, 5]);
    let inside = format!(r#","startTime":{},"endTime":{}"#, two + 1, four - 1);
    assert_eq!(scene.tids(&by_time(inside)).await, [3]);
    let inverted = format!(r#","startTime":{four},"endTime":{two}"#);
    assert_eq!(scene.ask(&by_time(inverted)).await.unwrap(), "[]");
    assert_eq!(scene.tids(&request("userFills", "")).await, [5, 4, 3, 2, 1]);
    let other = request("userFills", "").replace(&user(7).to_string(), &user(8).to_string());
    assert_eq!(scene.ask(&other).await.unwrap(), "[]");
}

#[actix_rt::test]
async fn a_fill_has_the_bytes_of_the_node() {
    let mut scene = Scene::of_rows(100).await;
    let odd = r#"{"coin":"é\u00e9" , "px":"1.50","new":[1.0, 2e5],"tid":1}"#;
    scene.store([event(FILLS, 1, 0, 7, odd), fill(2, 0, 2)]).await;

    let rows = scene.rows(&request("userFillsByTime", r#","startTime":0"#)).await;

    assert_eq!(rows[0], odd);
    assert_eq!(rows[1].as_bytes(), fill(2, 0, 2).body);
}

#[actix_rt::test]
async fn late_and_back_filled_events_stand_where_they_belong() {
    let mut scene = Scene::of_rows(100).await;
    scene.store([fill(1, 1, 11), fill(3, 0, 30), fill(1, 0, 10), fill(2, 0, 20)]).await;
    scene.writer.backfill(&[fill(1, 2, 12), fill(0, 0, 1)], None).await.unwrap();

    let forward = scene.tids(&request("userFillsByTime", r#","startTime":0"#)).await;
    let newest = scene.tids(&request("userFills", "")).await;

    assert_eq!(forward, [1, 10, 11, 12, 20, 30]);
    assert_eq!(newest, [30, 20, 10, 11, 12, 1], "newest block first, a block in its own order");
}

#[actix_rt::test]
async fn a_page_is_as_long_as_is_set_and_the_next_one_begins_at_its_last_time() {
    let mut scene = Scene::of_rows(3).await;
    scene
        .store((1..=2).map(|n| fill(n, 0, n)).chain((0..3).map(|n| fill(3, n, 30 + u64::from(n)))))
        .await;

    let first = scene.tids(&request("userFillsByTime", r#","startTime":0"#)).await;
    let from = format!(r#","startTime":{}"#, block_ms(3));
    let second = scene.tids(&request("userFillsByTime", &from)).await;
    let newest = scene.tids(&request("userFills", "")).await;

    assert_eq!(first, [1, 2, 30]);
    assert_eq!(second, [30, 31, 32]);
    assert_eq!(newest, [30, 31, 32]);
}

#[actix_rt::test]
async fn a_page_never_ends_in_the_millisecond_in_which_it_begins() {
    // Who goes on at the last time would get the same page for ever.
    let mut scene = Scene::of_rows(2).await;
    let many = (0..5).map(|n| fill(3, n, 30 + u64::from(n)));
    scene.store(many.chain([fill(4, 0, 40), fill(5, 0, 50)])).await;

    let forward = scene.tids(&request("userFillsByTime", r#","startTime":0"#)).await;
    let until = format!(r#","startTime":0,"reversed":true,"endTime":{}"#, block_ms(3));
    let backward = scene.tids(&request("userFillsByTime", &until)).await;
    let newest = scene.tids(&request("userFills", "")).await;

    assert_eq!(forward, [30, 31, 32, 33, 34, 40]);
    assert_eq!(backward, [30, 31, 32, 33, 34]);
    assert_eq!(newest, [50, 40], "nobody goes on behind these");
}

#[actix_rt::test]
async fn partial_fills_of_an_order_are_told_as_one_and_never_cut() {
    let mut scene = Scene::of_rows(2).await;
    // Blocks of 40 partial fills: the first read of the store ends within one.
    let blocks = (1..=4).flat_map(|block| (0..40).map(move |n| partial(block, n, u64::from(n))));
    scene.store(blocks).await;

    let aggregated = r#","startTime":0,"aggregateByTime":true"#;
    let rows = scene.rows(&request("userFillsByTime", aggregated)).await;
    let newest = scene.rows(&request("userFills", r#","aggregateByTime":true"#)).await;

    assert_eq!((rows.len(), newest.len()), (2, 2));
    for (row, block) in rows.iter().zip(1..).chain(newest.iter().zip([4, 3])) {
        let fill: Value = serde_json::from_str(row).unwrap();
        assert_eq!(fill["sz"], "156.0", "40 times 3.9");
        assert_eq!(fill["time"], block_ms(block));
    }
}

#[actix_rt::test]
async fn fundings_ledger_updates_and_twap_slices_are_found_by_their_kind() {
    let mut scene = Scene::of_rows(100).await;
    let other = FUNDING.replace("Funding", "CDeposit");
    scene.store([funding(1), update(1, r#"{"type":"deposit", "usdc":"1.50"}"#)]).await;
    scene
        .store([event(MISC, 2, 0, 7, &other), slice(2, 0, 5), fill(3, 0, 6), slice(4, 0, 7)])
        .await;
    scene.store([update(5, r#"{"type":"fromTomorrow"}"#), funding(6)]).await;
    let from = |block| format!(r#","startTime":{}"#, block_ms(block));

    let fundings = scene.rows(&request("userFunding", &from(0))).await;
    let updates = scene.rows(&request("userNonFundingLedgerUpdates", &from(0))).await;
    let later = scene.rows(&request("userNonFundingLedgerUpdates", &from(2))).await;
    let slices = scene.rows(&request("userTwapSliceFills", "")).await;
    let by_time = scene.rows(&request("userTwapSliceFillsByTime", &from(3))).await;

    assert_eq!(fundings.len(), 4, "two deltas of the user in each");
    assert_eq!(
        fundings[3],
        format!(
            concat!(
                r#"{{"time":{},"hash":"0x0000000000000000000000000000000000000000000000000000000000000000","#,
                r#""delta":{{"type":"funding","coin":"BTC","usdc":"-1.10","szi":"2.0","#,
                r#""fundingRate":"0.0000125","nSamples":null}}}}"#
            ),
            block_ms(6)
        )
    );
    let deposit = r#"{"type":"deposit", "usdc":"1.50"}"#;
    let first = format!(r#"{{"time":{},"hash":"0x5a44","delta":{deposit}}}"#, block_ms(1));
    assert_eq!(updates[0], first);
    assert_eq!((updates.len(), later.as_slice()), (2, &updates[1..]));
    let slice_of = |block, tid| {
        let body = String::from_utf8(slice(block, 0, tid).body.to_vec()).unwrap();
        format!(r#"{{"fill":{body},"twapId":1671203}}"#)
    };
    assert_eq!(slices, [slice_of(4, 7), slice_of(2, 5)]);
    assert_eq!(by_time, [slice_of(4, 7)]);
}

#[actix_rt::test]
async fn an_answer_ends_at_the_room_that_it_has() {
    let mut scene = Scene::of_rows(10).await;
    // Ten rows have a mebibyte; these are of 300 KiB each.
    let long = |block: u64| {
        let pad = "x".repeat(300 << 10);
        event(FILLS, block, 0, 7, &format!(r#"{{"tid":{block},"pad":"{pad}"}}"#))
    };
    scene.store((1..=6).map(long)).await;

    let first = scene.tids(&request("userFillsByTime", r#","startTime":0"#)).await;
    let from = format!(r#","startTime":{}"#, block_ms(4));
    let second = scene.tids(&request("userFillsByTime", &from)).await;

    assert_eq!((first, second), (vec![1, 2, 3, 4], vec![4, 5, 6]));
    assert_eq!(scene.stats.official.answer_bytes.get(), 0, "the room is free again");
}

/// What a client that pages forward collects: each page begins at the last time of the one before it.
async fn page_forward(scene: &Scene, fields: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut from = 0;
    loop {
        let fields = format!(r#","startTime":{from}{fields}"#);
        let page = scene.rows(&request("userFillsByTime", &fields)).await;
        let before = found.len();
        for row in page {
            let fill: Value = serde_json::from_str(&row).unwrap();
            from = fill["time"].as_i64().unwrap();
            if !found.contains(&row) {
                found.push(row);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// The same from the newest on.
async fn page_backward(scene: &Scene) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut until = i64::from(u32::MAX) * 1_000;
    loop {
        let fields = format!(r#","startTime":0,"endTime":{until},"reversed":true"#);
        let page = scene.rows(&request("userFillsByTime", &fields)).await;
        let before = found.len();
        for row in page {
            let fill: Value = serde_json::from_str(&row).unwrap();
            until = fill["time"].as_i64().unwrap();
            if !found.contains(&row) {
                found.push(row);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn paging_from_the_last_time_finds_every_fill_once_and_in_order(
        // Fills of each block; some are in one order, some come late, some are back-filled.
        blocks in prop::collection::vec(prop::collection::vec((any::<bool>(), 0u8..4), 0..9), 1..12),
        max_rows in 1usize..8,
    ) {
        let mut tid = 0;
        let (mut in_time, mut late, mut back_filled) = (Vec::new(), Vec::new(), Vec::new());
        for (block, fills) in (1..).zip(&blocks) {
            for (index, (is_partial, way)) in (0..).zip(fills) {
                tid += 1;
                let event = if *is_partial { partial(block, index, tid) } else { fill(block, index, tid) };
                match way {
                    0 => back_filled.push(event),
                    1 => late.push(event),
                    _ => in_time.push(event),
                }
            }
        }
        let all = sorted(in_time.iter().chain(&late).chain(&back_filled).cloned().collect());
        late.reverse();
        actix_rt::System::new().block_on(async {
            let mut scene = Scene::of_rows(max_rows).await;
            scene.store(in_time).await;
            scene.store(late).await;
            scene.writer.backfill(&back_filled, None).await.unwrap();

            let forward = page_forward(&scene, "").await;
            let aggregated = page_forward(&scene, r#","aggregateByTime":true"#).await;
            let backward = page_backward(&scene).await;

            let text = |body: &bytes::Bytes| String::from_utf8(body.to_vec()).unwrap();
            let expected: Vec<_> = all.iter().map(|event| text(&event.body)).collect();
            prop_assert_eq!(&forward, &expected);
            let combined: Vec<_> = crate::official::aggregate(&all).iter().map(text).collect();
            prop_assert_eq!(aggregated, combined);
            let mut blocks: Vec<Vec<Event>> =
                all.chunk_by(|a, b| a.id.position == b.id.position).map(<[_]>::to_vec).collect();
            blocks.reverse();
            let expected: Vec<_> = blocks.iter().flatten().map(|event| text(&event.body)).collect();
            prop_assert_eq!(backward, expected);
            Ok(())
        })?;
    }
}
