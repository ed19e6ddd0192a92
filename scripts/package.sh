#!/usr/bin/env bash
# Makes the Debian package of a program that is built, and proves it: installs it into a directory
# that is not this system, looks at every file, its mode and the maintainer scripts' work, and takes
# it away again. Prints the path of the package.
#
#   scripts/package.sh             packs target/release/nodecast, which it builds
#   scripts/package.sh debug       packs target/debug/nodecast as it is: for a test of the package
#
# With cargo-deb (`cargo install --locked cargo-deb`) that makes the package, else dpkg-deb does from
# the same list in Cargo.toml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile="${1:-release}"
target="${CARGO_TARGET_DIR:-target}"
program="$target/$profile/nodecast"
not_checked=""

note() {
  printf '\n!! NOT CHECKED: %s\n' "$*" >&2
  not_checked=1
}

fail() {
  printf 'package: %s\n' "$*" >&2
  exit 1
}

build() {
  if [[ "$profile" = release ]]; then
    cargo build --locked --release
  fi
  [[ -x "$program" ]] || fail "$program is not built"
  rm -rf target/package
  "$program" generate-docs target/package
  debian_changelog >target/package/changelog.Debian
  # Both are about the same commands, or something was forgotten.
  [[ -s target/package/man/nodecast-run.1 && -s target/package/completions/_nodecast ]] ||
    fail "no man pages or completions were made"
}

# One `key = "value"` of the package's metadata, wherever it stands.
metadata() {
  sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" Cargo.toml | head -1
}

# The lines of `assets`: source, destination, mode.
assets() {
  sed -n '/^assets = \[/,/^\]/s/^ *\["\([^"]*\)", "\([^"]*\)", "\([0-7]*\)"\],\{0,1\}$/\1 \2 \3/p' Cargo.toml
}

# As the form wants it: each line behind a space.
extended_description() {
  sed -n '/^extended-description = /,/"""$/{s/^extended-description = .*//;s/"""$//;/./s/^/ /p}' Cargo.toml
}

# What Debian wants to know of this package, and not of the program.
debian_changelog() {
  local seconds="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
  cat <<CHANGELOG
nodecast ($(metadata version)-1) unstable; urgency=medium

  * The changes are those of the program: changelog.gz.

 -- $(metadata maintainer)  $(LC_ALL=C date --utc --rfc-email --date="@$seconds")
CHANGELOG
}

# Fills a directory as the package has it.
lay_out() {
  local root="$1" source destination mode file name
  while read -r source destination mode; do
    source="${source/#target\/release\//$target/$profile/}"
    for file in $source; do
      [[ -e "$file" ]] || fail "$file, which Cargo.toml lists, is missing"
      name="$root/$destination"
      if [[ "$destination" = */ ]]; then name="$name$(basename "$file")"; fi
      install -D -m "$mode" "$file" "$name"
    done
  done < <(assets)
  install -D -m 644 packaging/nodecast.service "$root/usr/lib/systemd/system/nodecast.service"
  install -D -m 644 target/package/changelog.Debian "$root/usr/share/doc/nodecast/changelog.Debian"
  gzip -9n "$root"/usr/share/man/man1/*.1 "$root"/usr/share/doc/nodecast/changelog*
}

# What cargo-deb does, by dpkg-deb. Its scripts do not enable the unit either.
pack_by_dpkg() {
  local root="$1" package="$2" script
  mkdir -m 755 "$root" "$root/DEBIAN"
  lay_out "$root"
  for script in postinst postrm; do
    sed 's|^#DEBHELPER#$|if [ -z "${DPKG_ROOT:-}" ] \&\& [ -d /run/systemd/system ]; then systemctl --system daemon-reload \|\| true; fi|' \
      "packaging/debian/$script" >"$root/DEBIAN/$script"
    chmod 755 "$root/DEBIAN/$script"
  done
  echo /etc/nodecast/nodecast.toml >"$root/DEBIAN/conffiles"
  cat >"$root/DEBIAN/control" <<CONTROL
Package: nodecast
Version: $(metadata version)-1
Architecture: $(dpkg --print-architecture)
Maintainer: $(metadata maintainer)
Section: $(metadata section)
Priority: $(metadata priority)
Installed-Size: $(du -sk "$root" | cut -f1)
Depends: libc6, libgcc-s1, systemd | systemd-sysusers
Suggests: $(metadata suggests)
Description: $(metadata description)
$(extended_description)
CONTROL
  # A debug build is large, and packed for this moment only.
  local compression=(-Zxz)
  if [[ "$profile" = debug ]]; then compression=(-Zgzip -z1); fi
  dpkg-deb --root-owner-group "${compression[@]}" --build "$root" "$package" >/dev/null
}

pack() {
  local package="$1"
  if cargo deb --version >/dev/null 2>&1; then
    local flags=(--no-build --no-strip --output "$package")
    if [[ "$profile" = debug ]]; then flags+=(--profile dev --fast); fi
    cargo deb "${flags[@]}" >/dev/null
  else
    echo "cargo-deb is not installed: dpkg-deb makes the package" >&2
    pack_by_dpkg "$work/layout" "$package"
  fi
}

# A line of `mode path` for each file that matters, as it has to be.
expected() {
  cat <<FILES
755 usr/bin/nodecast
640 etc/nodecast/nodecast.toml
644 usr/lib/systemd/system/nodecast.service
644 usr/lib/sysusers.d/nodecast.conf
644 usr/share/bash-completion/completions/nodecast
644 usr/share/zsh/vendor-completions/_nodecast
644 usr/share/fish/vendor_completions.d/nodecast.fish
644 usr/share/doc/nodecast/copyright
644 usr/share/doc/nodecast/changelog.gz
644 usr/share/doc/nodecast/changelog.Debian.gz
644 usr/share/doc/nodecast/docs/protocol.md
644 usr/share/man/man1/nodecast.1.gz
644 usr/share/man/man1/nodecast-run.1.gz
644 usr/share/man/man1/nodecast-doctor.1.gz
644 usr/share/man/man1/nodecast-db-backup.1.gz
FILES
}

check_files() {
  local root="$1" mode path found unit
  while read -r mode path; do
    # Debian's merged directories: the unit may be said to lie in /lib.
    [[ -e "$root/$path" || ! -e "$root/${path#usr/}" ]] || path="${path#usr/}"
    found="$(stat -c %a "$root/$path" 2>/dev/null || echo missing)"
    [[ "$found" = "$mode" ]] || fail "/$path is $found, not $mode"
  done < <(expected)
  "$root/usr/bin/nodecast" --version | grep -q '^nodecast ' || fail "the program does not run"
  "$root/usr/bin/nodecast" config check --config "$root/etc/nodecast/nodecast.toml" \
    --state-dir "$work/state" >/dev/null || fail "the packed configuration is faulty"
  # Commands by hand have no $STATE_DIRECTORY, and have to find what the unit's process does.
  found="$(sed -n 's/^StateDirectory=/\/var\/lib\//p' packaging/nodecast.service)"
  "$root/usr/bin/nodecast" config show --config "$root/etc/nodecast/nodecast.toml" |
    grep -qx "state_dir = \"$found\"" || fail "the packed configuration does not name the unit's state directory"
  gzip -dc "$root/usr/share/man/man1/nodecast-run.1.gz" | grep -q 'data\\-dir' || fail "a man page is empty"
  bash -n "$root/usr/share/bash-completion/completions/nodecast"
  bash -c '. "$1"; complete -p nodecast' _ "$root/usr/share/bash-completion/completions/nodecast" >/dev/null ||
    fail "bash completes nothing"
  if grep -rIl 'hl-node' "$root/usr/lib/systemd" "$root/DEBIAN" 2>/dev/null; then
    fail "a node panics when it sees its own program's name in another process"
  fi
  if command -v systemd-analyze >/dev/null; then
    unit="$(find "$root" -name nodecast.service)"
    # Installed elsewhere: the program is looked for where it lies now.
    sed "s|/usr/bin/nodecast|$root/usr/bin/nodecast|" "$unit" >"$work/nodecast.service"
    found="$(systemd-analyze verify --man=no "$work/nodecast.service" 2>&1 | grep nodecast || true)"
    [[ -z "$found" ]] || fail "the unit: $found"
  else
    note "the unit, there is no systemd-analyze here"
  fi
}

# Installs the package below a directory, with its scripts, and takes it away again.
install_and_remove() {
  local root="$1" package="$2" group
  if [[ "$(id -u)" != 0 ]]; then
    note "the maintainer scripts, only root can run them; the files are unpacked instead"
    dpkg-deb --extract "$package" "$root"
    check_files "$root"
    return
  fi
  mkdir -p "$root"/var/lib/dpkg/{info,updates,triggers} "$root/etc"
  touch "$root/var/lib/dpkg/status" "$root/etc/passwd" "$root/etc/group"
  # Nothing it depends on is below that directory, a shell neither: the scripts run in this system and
  # work there by DPKG_ROOT.
  local dpkg=(dpkg --root="$root" --force-depends --force-script-chrootless --no-triggers)
  "${dpkg[@]}" --install "$package" >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log" >&2; fail "it does not install"; }
  check_files "$root"
  grep -q '^nodecast:.*:/usr/sbin/nologin$' "$root/etc/passwd" || fail "the user nodecast was not made"
  group="$(sed -n 's/^nodecast:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/group")"
  [[ "$(stat -c '%u:%g' "$root/etc/nodecast/nodecast.toml")" = "0:$group" ]] ||
    fail "the configuration is not root's and the group's"
  # An upgrade leaves what the operator wrote.
  echo "# mine" >>"$root/etc/nodecast/nodecast.toml"
  chgrp 0 "$root/etc/nodecast/nodecast.toml"
  "${dpkg[@]}" --install "$package" >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log" >&2; fail "it does not upgrade"; }
  tail -1 "$root/etc/nodecast/nodecast.toml" | grep -q '^# mine$' || fail "an upgrade overwrote the configuration"
  [[ "$(stat -c %g "$root/etc/nodecast/nodecast.toml")" = 0 ]] || fail "an upgrade changed the group again"
  mkdir -p "$root/var/lib/nodecast"
  "${dpkg[@]}" --purge nodecast >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log" >&2; fail "it does not go"; }
  for group in usr/bin/nodecast etc/nodecast/nodecast.toml var/lib/nodecast; do
    [[ ! -e "$root/$group" ]] || fail "a purge left /$group"
  done
}

command -v dpkg-deb >/dev/null || { note "the package, there is no dpkg-deb here"; exit 0; }
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
build
package="target/package/nodecast_$(metadata version)-1_$(dpkg --print-architecture).deb"
pack "$package"
install_and_remove "$work/root" "$package"
if command -v lintian >/dev/null; then
  # The program keeps the lines of its source, for the traces of a panic. A debug build has more.
  lintian --fail-on error,warning --suppress-tags unstripped-binary-or-object,initial-upload-closes-no-bugs "$package"
else
  note "what lintian says, it is not installed"
fi
ls -l "$package"
