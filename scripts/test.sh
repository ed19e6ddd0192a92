#!/usr/bin/env bash
# Runs every test. Needs Rust and a C compiler (for the embedded SQLite); on Debian it installs
# what is missing when it may, else it says what to install.
#
#   scripts/test.sh                 everything that CI runs
#   scripts/test.sh --test gaps     one file of tests: all arguments go to `cargo test`
#
#   NODECAST_KILLS=2000             kills of the exactly-once test (default 60)
#   NODECAST_MODEL_CASES=5000       scripts of the tail's model test (default 500)
set -euo pipefail
cd "$(dirname "$0")/.."

# package:command pairs
missing=()
for need in gcc:cc libc6-dev:; do
    package=${need%%:*} command=${need#*:}
    if [ -n "$command" ]; then
        command -v "$command" >/dev/null || missing+=("$package")
    elif [ ! -e /usr/include/stdio.h ]; then
        missing+=("$package")
    fi
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "test.sh: installing ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    else
        echo "test.sh: please install: ${missing[*]} (as root: apt-get install ${missing[*]})" >&2
        exit 1
    fi
fi

# The feature arms the points at which tests kill, panic or fail the daemon.
cargo test --locked --features failpoints "$@"
