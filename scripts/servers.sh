# Starts the servers that the tests need, for whoever reads this file in: on free ports, in a
# temporary directory that goes at the end. Servers that run already are not touched.

# A program of PostgreSQL, which Debian keeps out of the path.
postgres_program() {
    command -v "$1" || find /usr/lib/postgresql -path "*/bin/$1" 2>/dev/null | sort -V | tail -1
}

# PostgreSQL refuses to run as root: there it runs as the user of its package.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"
    else
        "$@"
    fi
}

# Sets NODECAST_TEST_POSTGRES to the URL of a server that is ours alone.
start_postgres() {
    make_postgres_dir
    as_postgres "$(postgres_program initdb)" -D "$postgres_dir/data" -U nodecast -A trust \
        -E UTF8 --locale=C ${postgres_initdb_options:-} >"$postgres_dir/initdb.log"
    start_postgres_on_a_free_port
}

# The same for a hot standby of the server on a port of this machine.
start_postgres_replica() {
    make_postgres_dir
    as_postgres "$(postgres_program pg_basebackup)" -h 127.0.0.1 -p "$1" -U nodecast \
        -D "$postgres_dir/data" -R -X stream -c fast >"$postgres_dir/basebackup.log" 2>&1
    start_postgres_on_a_free_port
}

# The same, with a directory `small` on a file system of so many bytes that only the server sees: the
# test reaches it by the server's process. Fails where nobody may mount one.
start_postgres_with_a_small_disk() {
    make_postgres_dir
    mkdir -m 777 "$postgres_dir/small"
    as_postgres "$(postgres_program initdb)" -D "$postgres_dir/data" -U nodecast -A trust \
        -E UTF8 --locale=C >"$postgres_dir/initdb.log"
    export postgres_dir
    NODECAST_TEST_POSTGRES=$(unshare -m bash -c '. "$0"
        mount -t tmpfs -o "size=$1,mode=777" none "$postgres_dir/small"
        as_postgres mkdir "$postgres_dir/small/space"
        start_postgres_on_a_free_port && echo "$NODECAST_TEST_POSTGRES"' "${BASH_SOURCE[0]}" "$1")
}

make_postgres_dir() {
    # The user of the package has to get there, whatever TMPDIR says.
    postgres_dir=$(mktemp -d /tmp/nodecast-postgres.XXXXXX)
    if [ "$(id -u)" = 0 ]; then chown postgres: "$postgres_dir"; fi
}

start_postgres_on_a_free_port() {
    local postgres_ctl port options
    postgres_ctl=$(postgres_program pg_ctl)
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        # Somebody else's port makes the start fail, and another one is tried.
        port=$((RANDOM % 20000 + 20000))
        options="-p $port -k $postgres_dir -c listen_addresses=127.0.0.1 -c max_connections=300"
        echo "$options" >"$postgres_dir/options"
        if as_postgres "$postgres_ctl" -D "$postgres_dir/data" -w -t 60 -l "$postgres_dir/log" \
            -o "$options" start >/dev/null 2>&1; then
            export NODECAST_TEST_POSTGRES="postgres://nodecast@127.0.0.1:$port/postgres"
            return
        fi
    done
    cat "$postgres_dir/log" >&2
    echo "PostgreSQL does not start" >&2
    return 1
}

# Sets NODECAST_TEST_REDIS to the URL of a server that is ours alone and keeps nothing on disk.
start_redis() {
    redis_dir=$(mktemp -d)
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        # Somebody else's port makes the server end at once, and another one is tried.
        port=$((RANDOM % 20000 + 20000))
        : >"$redis_dir/log"
        redis-server --bind 127.0.0.1 --port "$port" --dir "$redis_dir" --save '' \
            --appendonly no >"$redis_dir/log" 2>&1 &
        redis_pid=$!
        while kill -0 "$redis_pid" 2>/dev/null; do
            if grep -q "Ready to accept connections" "$redis_dir/log"; then
                export NODECAST_TEST_REDIS="redis://127.0.0.1:$port"
                return
            fi
            sleep 0.05
        done
    done
    cat "$redis_dir/log" >&2
    echo "Redis does not start" >&2
    return 1
}

stop_servers() {
    if [ -n "${redis_dir:-}" ]; then
        kill "$redis_pid" 2>/dev/null && wait "$redis_pid" 2>/dev/null || true
        rm -rf "$redis_dir"
    fi
    if [ -n "${postgres_dir:-}" ]; then
        as_postgres "$(postgres_program pg_ctl)" -D "$postgres_dir/data" -m immediate stop \
            >/dev/null 2>&1 || true
        rm -rf "$postgres_dir"
    fi
}
