#!/usr/bin/env bash
# Measures what docs/performance.md quotes. Takes about seven minutes after the build; everything
# it writes goes to temporary folders that are removed. It starts a PostgreSQL server of its own.
#
#   scripts/bench.sh                   everything
#   scripts/bench.sh latency           some of: generate parse index store depth idle ingest latency
#                                      outage whitelist
#   scripts/bench.sh store depth ingest
#
# The disk below TMPDIR (default /tmp) is part of the figures of store, depth and ingest.
set -euo pipefail
cd "$(dirname "$0")/.."

for part in "$@"; do
    case $part in
        generate | parse | index | store | depth | idle | ingest | latency | outage | whitelist) ;;
        *)
            sed -n '2,11p' "$0" >&2
            exit 64
            ;;
    esac
done
wanted=" ${*:-generate parse index store depth idle ingest latency outage whitelist} "
wants() { [[ $wanted == *" $1 "* ]]; }

. scripts/packages.sh
. scripts/servers.sh
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"; stop_servers' EXIT
export TMPDIR=$scratch

cargo bench --locked --no-run --quiet

# A benchmark that hangs must not hang the caller.
bench() { timeout 600 cargo bench --locked --quiet "$@"; }

model=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
echo "machine: ${model:-unknown processor}, $(nproc) cores, Linux $(uname -r), $(rustc --version)"
echo "load at the start: $(cut -d' ' -f1-3 /proc/loadavg)"
echo

if wants store || wants depth || wants ingest; then
    need_servers
    start_postgres
    echo "PostgreSQL: $("$(postgres_program postgres)" --version), as it comes"
fi
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
if wants index; then
    bench --bench index -- --noplot 2>/dev/null | grep -E '^index|time:' | sed 's/^/  /'
fi
if wants store; then
    echo "store"
    bench --bench store -- --noplot 2>/dev/null | grep -E '^sqlite|^postgres|time:|thrpt:' | sed 's/^/  /'
fi
if wants depth; then bench --bench depth; fi
for part in idle ingest latency outage whitelist; do
    if wants $part; then bench --bench daemon -- $part; fi
done
echo
echo "load at the end: $(cut -d' ' -f1-3 /proc/loadavg)"
