use super::*;

const FILLS: Topic = Topic::new("fills");

fn addresses(numbers: std::ops::Range<u64>) -> BTreeSet<Address> {
    numbers.map(|number| format!("0x{number:040x}").parse().unwrap()).collect()
}

fn listed(numbers: std::ops::Range<u64>) -> Users {
    Users::Listed(addresses(numbers))
}

#[test]
fn the_cap_on_users_holds_over_all_subscriptions_of_a_session() {
    let limits = SessionConfig { max_users: 5, ..SessionConfig::default() };
    let full = SubscribeError::TooManyUsers(5);
    let mut all = Subscriptions::default();
    all.subscribe("a", FILLS, listed(0..3), None, &limits).unwrap();

    assert_eq!(all.subscribe("b", FILLS, listed(0..3), None, &limits), Err(full.clone()));
    assert_eq!(all.len(), 1, "nothing has changed");
    all.subscribe("b", FILLS, listed(0..2), None, &limits).unwrap();
    all.subscribe("everybody", FILLS, Users::All, None, &limits).unwrap();
    assert_eq!(all.add_users("a", FILLS, addresses(2..4), &limits), Err(full.clone()));
    all.add_users("a", FILLS, addresses(0..3), &limits).unwrap();

    // What is taken back is free again, one by one or with its subscription.
    all.remove_users("a", &addresses(2..9)).unwrap();
    all.add_users("a", FILLS, addresses(7..8), &limits).unwrap();
    assert_eq!(all.add_users("new", FILLS, addresses(0..1), &limits), Err(full.clone()));
    all.unsubscribe("b").unwrap();
    all.unsubscribe("everybody").unwrap();
    all.add_users("new", FILLS, addresses(0..2), &limits).unwrap();
    all.remove_users("new", &addresses(0..2)).unwrap();
    all.subscribe("c", FILLS, listed(0..2), None, &limits).unwrap();
    assert_eq!(all.add_users("c", FILLS, addresses(2..3), &limits), Err(full));
}

#[test]
fn one_subscription_names_only_so_many_users_however_they_come_to_it() {
    let limits =
        SessionConfig { max_users_per_subscription: 3, max_users: 5, ..Default::default() };
    let full = SubscribeError::TooManyUsersOfOne(3);
    let mut all = Subscriptions::default();

    assert_eq!(all.subscribe("a", FILLS, listed(0..4), None, &limits), Err(full.clone()));
    assert_eq!(all.add_users("a", FILLS, addresses(0..4), &limits), Err(full.clone()));
    assert!(all.is_empty());
    all.add_users("a", FILLS, addresses(0..2), &limits).unwrap();
    assert_eq!(all.add_users("a", FILLS, addresses(1..4), &limits), Err(full));
    all.add_users("a", FILLS, addresses(1..3), &limits).unwrap();
    all.subscribe("b", FILLS, listed(0..2), None, &limits).unwrap();
    assert_eq!(all.users(), 5);
}

#[test]
fn the_cap_on_values_holds_of_each_subscription_and_over_all_of_a_session() {
    let limits = SessionConfig::default();
    let values = |count: usize, ordinal: usize| {
        let coins = (0..count).map(|coin| format!("{ordinal}:{coin}"));
        Conditions::new([("coin", coins.chain(["0:0".to_owned()]).collect())]).shared()
    };
    let mut all = Subscriptions::default();
    let mut subscribe = |id: usize, conditions| {
        all.subscribe(&id.to_string(), FILLS, Users::All, conditions, &limits).map(drop)
    };

    assert_eq!(subscribe(0, values(1_001, 0)), Err(SubscribeError::TooManyValuesOfOne(1_000)));
    assert_eq!(subscribe(0, values(1_000, 0)), Ok(()), "the same one twice is one");
    for id in 1..100 {
        assert_eq!(subscribe(id, values(999, id)), Ok(()));
    }
    let full = Err(SubscribeError::TooManyValues(100_000));
    assert_eq!(subscribe(100, values(1, 0)), full.clone());
    assert_eq!(subscribe(100, None), Ok(()));

    all.unsubscribe("7").unwrap();
    let again = ["7", "another"]
        .map(|id| all.subscribe(id, FILLS, Users::All, values(999, 7), &limits).map(drop));
    assert_eq!(again, [Ok(()), full], "what is taken back is free again");
}
