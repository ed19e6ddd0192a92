#!/usr/bin/env bash
# Everything that must hold before a push, except the daemon's tests (scripts/test.sh): format, lints,
# documentation, the load driver, dependencies, migrations, the systemd unit, the compose file, the package. All warnings are
# errors. Works from any directory.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() {
  printf '\n== %s\n' "$*"
  "$@"
}

# A minimal installation of Rust comes without the two.
need_components() {
  if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then
    return
  fi
  if ! rustup component add rustfmt clippy; then
    echo "please install the components rustfmt and clippy of Rust" >&2
    exit 1
  fi
}

# Installs cargo-deny when it is missing, or says how.
need_cargo_deny() {
  if cargo deny --version >/dev/null 2>&1; then
    return
  fi
  printf '\n== cargo-deny is missing: installing it, which takes some minutes\n'
  if ! cargo install --locked cargo-deny; then
    echo "cargo-deny could not be installed. With a network: cargo install --locked cargo-deny" >&2
    exit 1
  fi
}

# The advisories come from a database on the network. Where that is out of reach, a report of
# "no advisories" would be a lie: say so instead. NODECAST_REQUIRE_ADVISORIES=1 makes it a failure.
except=""
check_advisories() {
  local database=https://github.com/RustSec/advisory-db
  if timeout 20 git ls-remote --exit-code "$database" HEAD >/dev/null 2>&1; then
    step cargo deny --all-features check advisories
    return
  fi
  cat >&2 <<NOTE

!! NOT CHECKED: security advisories. The database ($database)
!! cannot be reached from here. Run with a network: cargo deny check advisories
NOTE
  if [[ -n "${NODECAST_REQUIRE_ADVISORIES:-}" ]]; then
    exit 1
  fi
  except=", except that security advisories were NOT checked"
}

# Runs the migrations up, down and up again, by a test: it uses the SQLite that the program has
# compiled in. A filter that finds no test would pass silently, so the count is looked at.
check_migrations() {
  local output
  printf '\n== cargo test --lib --features failpoints,echo migrations_work_up_down_and_up\n'
  output="$(cargo test --locked --lib --features failpoints,echo migrations_work_up_down_and_up 2>&1)" || {
    printf '%s\n' "$output" >&2
    return 1
  }
  if ! grep -q '^test result: ok. [1-9]' <<<"$output"; then
    echo "no test runs the migrations up, down and up" >&2
    return 1
  fi
}

# Exposure that the unit may have at most: 2.0, in the tenths that --threshold takes.
max_exposure=20

# The program is not installed here, so the unit is verified with one that is. A "verify" may
# complain of units of this machine: only what it says of ours counts.
check_unit() {
  local unit=packaging/nodecast.service
  if grep -nE 'hl-node' "$unit" packaging/debian/* docker/*; then
    echo "a node panics when it sees its own program's name in another process" >&2
    return 1
  fi
  if ! command -v systemd-analyze >/dev/null; then
    printf '\n!! NOT CHECKED: %s. There is no systemd-analyze here.\n' "$unit" >&2
    except="$except, except that the systemd unit was NOT checked"
    return
  fi
  local directory complaints
  directory="$(mktemp -d)"
  sed "s|/usr/bin/nodecast|$(command -v true)|" "$unit" >"$directory/nodecast.service"
  printf '\n== systemd-analyze verify %s\n' "$unit"
  complaints="$(systemd-analyze verify --man=no "$directory/nodecast.service" 2>&1 | grep nodecast || true)"
  rm -r "$directory"
  if [[ -n "$complaints" ]]; then
    printf '%s\n' "$complaints" >&2
    return 1
  fi
  step systemd-analyze security --offline=true --threshold="$max_exposure" --no-pager "$unit"
}

# As `docker compose` reads it. The version 1 of Compose, which is a program of its own, reads other files.
check_compose() {
  local file=docker/compose.yml
  if ! docker compose version >/dev/null 2>&1; then
    printf '\n!! NOT CHECKED: %s. There is no docker compose here.\n' "$file" >&2
    except="$except, except that $file was NOT checked"
    return
  fi
  step docker compose -f "$file" --profile generator config --quiet
}

. scripts/packages.sh
need_packages
need_components
step cargo fmt --all --check
step cargo clippy --locked --all-targets -- -D warnings
step cargo clippy --locked --all-targets --features failpoints,echo -- -D warnings
# The load driver is no default member of the workspace, and its tests take a second.
step cargo clippy --locked --package nodecast-load --all-targets -- -D warnings
step cargo test --locked --package nodecast-load --quiet
# Private items are in the pages, so links to them are sound.
step env RUSTDOCFLAGS="-Dwarnings -Arustdoc::private-intra-doc-links" \
  cargo doc --locked --no-deps --document-private-items
need_cargo_deny
step cargo deny --all-features check bans licenses sources
check_advisories
if [[ -d migrations ]]; then
  check_migrations
fi
check_unit
check_compose
# Of the program that the tests need anyhow: the package is what is tried here. scripts/package.sh
# without a word makes the one for others.
step cargo build --locked --features failpoints,echo
step scripts/package.sh debug
printf '\nAll checks passed%s.\n' "$except"
