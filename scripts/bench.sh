#!/usr/bin/env bash
# Measures what docs/performance.md quotes. Takes about six minutes after the build; everything
# it writes goes to a temporary folder that is removed.
#
#   scripts/bench.sh              everything
#   scripts/bench.sh latency      one of: generate parse store idle ingest latency outage whitelist
#
# The disk below TMPDIR (default /tmp) is part of the figures of store and ingest. The last part needs the
# programs of PostgreSQL and starts a server of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=${1:-all}
case $wanted in
    all | generate | parse | store | idle | ingest | latency | outage | whitelist) ;;
    *)
        sed -n '2,9p' "$0" >&2
        exit 64
        ;;
esac
wants() { [ "$wanted" = all ] || [ "$wanted" = "$1" ]; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch

cargo bench --locked --no-run --quiet

# A benchmark that hangs must not hang the caller.
bench() { timeout 300 cargo bench --locked --quiet "$@"; }

model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
echo "machine: ${model:-unknown processor}, $(nproc) cores, Linux $(uname -r), $(rustc --version)"
echo "load at the start: $(cut -d' ' -f1-3 /proc/loadavg)"
echo

if wants generate; then
    echo "generator"
    for manifest in "" --no-manifest; do
        # The daemon's program is built by the benchmarks.
        target/release/nodecast generate --max-speed --blocks 100000 --out "$scratch/node" \
            ${manifest:+"$manifest"} | sed "s/; users in .*//; s/^/  ${manifest:-with manifest}: /"
        rm -rf "$scratch/node"
    done
fi
if wants parse; then bench --bench parse; fi
if wants store; then
    echo "store"
    bench --bench store -- --noplot 2>/dev/null | grep -E '^store|time:|thrpt:' | sed 's/^/  /'
fi
for part in idle ingest latency outage whitelist; do
    if wants $part; then bench --bench daemon -- $part; fi
done
echo
echo "load at the end: $(cut -d' ' -f1-3 /proc/loadavg)"
