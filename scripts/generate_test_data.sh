#!/usr/bin/env bash
# Writes hour files as a node does, for trials without a node.
#
#   scripts/generate_test_data.sh [DIR] [OPTIONS OF `nodecast generate`]
#
# Without options: ten minutes of blocks at the real rate, the start of a UTC day in the middle,
# written at once to ./test-data. What is given here is added to `nodecast generate`, for example
#
#   scripts/generate_test_data.sh /tmp/node --blocks-per-second 14.5 --torn --crash --rewind
set -euo pipefail

out="$PWD/test-data"
if [[ $# -gt 0 && $1 != -* ]]; then
    out=$(realpath --canonicalize-missing -- "$1")
    shift
fi
options=("$@")
if [[ ${#options[@]} -eq 0 ]]; then
    # Yesterday evening: within the retention of a daemon that reads the files today.
    start=$(date --utc --date='yesterday 00:00' +%Y-%m-%d)T23:55:00
    options=(--max-speed --duration 10m --start "$start")
fi

# By its manifest and not by `cd`, so that relative paths stay those of the caller.
manifest=$(realpath -- "$(dirname -- "${BASH_SOURCE[0]}")/../Cargo.toml")
generate=(cargo run --release --quiet --manifest-path "$manifest" -- generate)
# An --out among the options wins over the default.
for option in "${options[@]}"; do
    [[ $option == --out || $option == --out=* ]] && exec "${generate[@]}" "${options[@]}"
done
exec "${generate[@]}" --out "$out" "${options[@]}"
