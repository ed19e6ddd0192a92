#!/usr/bin/env bash
# Runs every test. Needs Rust, a C compiler (for the embedded SQLite) and the programs of PostgreSQL
# and Redis, of which it starts servers of its own; on Debian it installs what is missing when it may, else it
# says what to install.
#
#   scripts/test.sh                 everything that CI runs
#   scripts/test.sh --test gaps     one file of tests: all arguments go to `cargo test`
#
#   NODECAST_KILLS=2000             kills of each exactly-once test (default 30; there are three)
#   NODECAST_MODEL_CASES=5000       scripts of the tail's model test (default 500)
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/packages.sh
. scripts/servers.sh
need_packages
need_servers
trap stop_servers EXIT
start_postgres
start_redis

# Features: the points at which tests kill, panic or fail the daemon, and a door that says what it hears.
cargo test --locked --features failpoints,echo "$@"
