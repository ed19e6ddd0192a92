#!/usr/bin/env bash
# Runs every test. Needs Rust, a C compiler (for the embedded SQLite), the programs of PostgreSQL and Redis,
# of which it starts servers of its own, and Python and Node.js for clients of the official protocol, which it
# installs into the user's cache once; on Debian it installs what is missing when it may, else it says what to install.
#
#   scripts/test.sh                 everything that CI runs
#   scripts/test.sh --test gaps     one file of tests: all arguments go to `cargo test`
#   scripts/test.sh --all           with the Rust SDK, which takes minutes to build and has to have port 3001;
#                                   only as the first argument, others may follow it
#
#   NODECAST_KILLS=2000             kills of each exactly-once test (default 30; there are three)
#   NODECAST_MODEL_CASES=5000       scripts of the tail's model test (default 500)
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/packages.sh
. scripts/servers.sh
. scripts/sdks.sh
need_packages
need_servers
need_sdks
if [ "${1:-}" = --all ]; then
    shift
    need_rust_sdk
fi
trap stop_servers EXIT
start_postgres
start_redis

# Features: the points at which tests kill, panic or fail the daemon, and a door that says what it hears.
cargo test --locked --features failpoints,echo "$@"
