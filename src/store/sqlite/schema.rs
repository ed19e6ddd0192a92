//! The tables of `migrations/sqlite`, as diesel knows them.

diesel::table! {
    events (seq) {
        seq -> BigInt,
        topic -> Text,
        position -> BigInt,
        idx -> BigInt,
        part -> BigInt,
        /// Microseconds since 1970.
        time -> BigInt,
        user -> Nullable<Binary>,
        late -> Bool,
        body -> Text,
        kind -> Nullable<Text>,
    }
}

diesel::table! {
    store_state (id) {
        id -> BigInt,
        epoch -> BigInt,
        run -> BigInt,
        commit_number -> BigInt,
        last_seq -> BigInt,
        newest_time -> Nullable<BigInt>,
        deleted_seq -> Nullable<BigInt>,
        shortened_to -> Nullable<BigInt>,
    }
}

diesel::table! {
    streams (name) {
        name -> Text,
        state -> Text,
    }
}

diesel::table! {
    checkpoints (stream, file) {
        stream -> Text,
        file -> Text,
        file_offset -> BigInt,
        digest -> BigInt,
    }
}

diesel::table! {
    blocks (topic, first) {
        topic -> Text,
        first -> BigInt,
        last -> BigInt,
        next_index -> Nullable<BigInt>,
        digests -> Binary,
    }
}

diesel::table! {
    gaps (topic, first, last, opened) {
        topic -> Text,
        first -> BigInt,
        last -> BigInt,
        opened -> BigInt,
        closed -> Nullable<BigInt>,
    }
}

diesel::table! {
    backfill_jobs (name) {
        name -> Text,
        users -> Nullable<Binary>,
    }
}

diesel::table! {
    known_list (id) {
        id -> BigInt,
        digest -> BigInt,
        size -> Nullable<BigInt>,
    }
}

diesel::table! {
    runs (id) {
        id -> BigInt,
        last_seq -> BigInt,
    }
}
