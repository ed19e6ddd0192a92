//! The tables of `migrations/postgres`, as diesel knows them.

diesel::table! {
    nodecast.topics (id) {
        id -> SmallInt,
        name -> Text,
    }
}

diesel::table! {
    nodecast.events (topic_id, position, idx, part, time) {
        seq -> BigInt,
        position -> BigInt,
        /// Microseconds since 1970.
        time -> BigInt,
        idx -> Integer,
        part -> Integer,
        topic_id -> SmallInt,
        late -> Bool,
        user_address -> Nullable<Binary>,
        body -> Text,
        /// Empty: it has none.
        kind -> Text,
    }
}

diesel::table! {
    nodecast.store_state (id) {
        id -> BigInt,
        epoch -> BigInt,
        run -> BigInt,
        commit_number -> BigInt,
        last_seq -> BigInt,
        newest_time -> Nullable<BigInt>,
        deleted_seq -> Nullable<BigInt>,
        shortened_to -> Nullable<BigInt>,
        holder_host -> Text,
        holder_process -> BigInt,
        leased_until -> Timestamptz,
    }
}

diesel::table! {
    nodecast.streams (name) {
        name -> Text,
        state -> Text,
    }
}

diesel::table! {
    nodecast.checkpoints (stream, file) {
        stream -> Text,
        file -> Text,
        file_offset -> BigInt,
        digest -> BigInt,
    }
}

diesel::table! {
    nodecast.blocks (topic, first) {
        topic -> Text,
        first -> BigInt,
        last -> BigInt,
        next_index -> Nullable<BigInt>,
        digests -> Binary,
    }
}

diesel::table! {
    nodecast.gaps (topic, first, last, opened) {
        topic -> Text,
        first -> BigInt,
        last -> BigInt,
        opened -> BigInt,
        closed -> Nullable<BigInt>,
    }
}

diesel::table! {
    nodecast.backfill_jobs (name) {
        name -> Text,
        users -> Nullable<Binary>,
    }
}

diesel::table! {
    nodecast.known_list (id) {
        id -> BigInt,
        digest -> BigInt,
        size -> Nullable<BigInt>,
    }
}

diesel::table! {
    nodecast.runs (id) {
        id -> BigInt,
        last_seq -> BigInt,
    }
}
