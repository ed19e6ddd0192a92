#!/usr/bin/env bash
# Runs packaging/nodecast.service under a live systemd: a machine of its own in namespaces of this
# kernel, with systemd as its first process, PostgreSQL over TLS, Redis, and a node that writes below
# the home of another user. Nothing of it is left behind. Not part of CI.
#
# NEEDS root, debootstrap and a Debian mirror, util-linux, some 600 MB below TMPDIR, and a kernel
# with cgroup2. It takes about three minutes, of which the making of the machine is one.
#
#   NODECAST_BINARY=target/release/nodecast   what is tested (default: the debug build)
#   NODECAST_MACHINE=DIR                      keeps the file system of the machine for the next time
#   NODECAST_SUITE=bookworm                   its Debian (default: the one that runs here)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n== %s\n' "$*"; }
ok() { printf 'ok  %s\n' "$*"; }

fail() {
    printf '\nFAILED: %s\n' "$*" >&2
    if [[ -n "${init:-}" ]]; then
        inside systemctl status --no-pager --full nodecast >&2 || true
        inside journalctl --no-pager --lines=30 >&2 || true
    fi
    exit 1
}

missing=()
[[ $(id -u) = 0 ]] || missing+=("root")
for program in debootstrap unshare nsenter; do
    command -v "$program" >/dev/null || missing+=("$program")
done
grep -qw cgroup2 /proc/filesystems || missing+=("a kernel with cgroup2")
if [[ ${#missing[@]} -gt 0 ]]; then
    printf 'NOT TESTED: the unit under a live systemd. It needs: %s\n' "${missing[*]}" >&2
    exit 1
fi

# All mounts are made in a namespace of ours: they go with the script, however it ends.
if [[ -z "${NODECAST_UNSHARED:-}" ]]; then
    binary=${NODECAST_BINARY:-target/debug/nodecast}
    [[ -n "${NODECAST_BINARY:-}" ]] || cargo build --locked --bin nodecast
    export NODECAST_UNSHARED=1 NODECAST_BINARY="$binary"
    exec unshare --mount --propagation private "${BASH_SOURCE[0]}" "$@"
fi

# --- the machine

work=$(mktemp -d)
group="nodecast-test-$$"
cleanup() {
    [[ -z "${init:-}" ]] || kill -KILL "$init" 2>/dev/null || true
    wait
    umount --recursive --lazy "$work/live" 2>/dev/null || true
    # A group goes only when everything below it is gone.
    [[ ! -d "$work/cgroup/$group" ]] ||
        find "$work/cgroup/$group" -depth -type d -exec rmdir {} + || true
    umount "$work/cgroup" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT

system=${NODECAST_MACHINE:-$work/system}
if [[ ! -e "$system/.complete" ]]; then
    say "making a Debian in $system"
    suite=${NODECAST_SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
    debootstrap --variant=minbase \
        --include=systemd,systemd-sysv,dbus,ca-certificates,procps,postgresql,redis-server,curl,openssl \
        "$suite" "$system" >"$work/debootstrap.log" || { tail -20 "$work/debootstrap.log"; exit 1; }
    touch "$system/.complete"
fi

say "starting systemd"
# What is written goes into memory: the system stays as it was made.
live=$work/live
machine=$live/root
mkdir "$live" "$work/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$live"
mkdir "$live/upper" "$live/work" "$machine"
mount -t overlay overlay -o "lowerdir=$system,upperdir=$live/upper,workdir=$live/work" "$machine"
mount -t tmpfs -o mode=755 tmpfs "$machine/dev"
for device in null zero full random urandom tty; do
    touch "$machine/dev/$device"
    mount --bind "/dev/$device" "$machine/dev/$device"
done
mkdir "$machine/dev/pts" "$machine/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$machine/dev/pts"
mount -t tmpfs tmpfs "$machine/dev/shm"
ln -s pts/ptmx "$machine/dev/ptmx"
ln -s /proc/self/fd "$machine/dev/fd"
install -m 755 "$NODECAST_BINARY" "$machine/usr/bin/nodecast"
install -D -m 644 packaging/sysusers/nodecast.conf "$machine/usr/lib/sysusers.d/nodecast.conf"
install -D -m 644 packaging/nodecast.service "$machine/usr/lib/systemd/system/nodecast.service"
"$NODECAST_BINARY" generate-docs "$work/package"
install -D -m 640 "$work/package/nodecast.toml" "$machine/etc/nodecast/nodecast.toml"

# systemd wants a group of its own, which it sees as the root of all.
mount -t cgroup2 cgroup2 "$work/cgroup"
mkdir "$work/cgroup/$group"
# /sys and the kernel's settings cannot be written: they are those of this machine. Mounts are
# shared, as after any boot: systemd mounts a credential from a namespace of its own.
# shellcheck disable=SC2016
boot='
    cd "$1"
    mount -t proc proc proc
    mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs run
    mkdir -p .before && pivot_root . .before
    exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /bin/sh -c "umount -l /.before && mount --make-rshared / && exec /lib/systemd/systemd"
'
(
    echo "$BASHPID" >"$work/cgroup/$group/cgroup.procs"
    exec unshare --mount --pid --cgroup --uts --ipc --net --fork --kill-child -- \
        /bin/bash -ec "hostname nodecast-test; $boot" -- "$machine" </dev/null >"$work/boot.log" 2>&1
) &
unshared=$!

# Runs a program in the machine.
inside() {
    nsenter --target "$init" --mount --pid --cgroup --uts --ipc --net --root --wd -- \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"
}

# Waits until a command succeeds, for a minute.
wait_for() {
    local what=$1 deadline=$((SECONDS + 60))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "$what"
        sleep 0.2
    done
    ok "$what"
}

# Sets `init` to the first process of the machine, as it is called here.
find_init() { init=$(pgrep --parent "$unshared" --exact systemd); }
wait_for "systemd is the first process" find_init
is_up() { [[ $(inside systemctl is-system-running) =~ running|degraded ]]; }
wait_for "the machine has started" is_up

# --- what is asked of nodecast

property() { inside systemctl show nodecast --value --property="$1"; }
is() { [[ "$(property "$1")" == "$2" ]]; }
has() { [[ "$(property "$1")" == *"$2"* ]]; }
get() { inside curl --silent --fail --max-time 5 "http://127.0.0.1:8080$1"; }
status_has() { get /v1/status | grep -qE "$1"; }
# A number of /v1/status, the first of this name.
figure() { get /v1/status | grep -oE "\"$1\":[0-9]+" | head -1 | cut -d: -f2; }
grows() { (($(figure "$1") > $2)); }
journal_has() { inside journalctl --unit=nodecast --output=cat "$@" | grep -q .; }
# Lines of one priority since the last start that contain a text.
journal() {
    inside journalctl --output=cat --priority="$1..$1" "_SYSTEMD_INVOCATION_ID=$(property InvocationID)" |
        grep -qF "$2"
}
drop_in() {
    inside mkdir -p /etc/systemd/system/nodecast.service.d
    cat >"/proc/$init/root/etc/systemd/system/nodecast.service.d/$1.conf"
    inside systemctl daemon-reload
}
config() { inside tee /etc/nodecast/nodecast.toml >/dev/null; }
start() { inside systemctl start nodecast || fail "the service starts"; }

inside systemd-sysusers nodecast.conf
inside chown root:nodecast /etc/nodecast/nodecast.toml
inside useradd --create-home --key HOME_MODE=0750 hl
inside install -d -o hl -g hl -m 750 /home/hl/hl
start_node() {
    inside systemd-run --quiet --collect --unit=node --property=User=hl --property=UMask=0027 \
        /usr/bin/nodecast generate --out /home/hl/hl/data --users 50
}

say "the shipped configuration names no node and no whitelist"
! inside systemctl start nodecast 2>/dev/null || fail "it starts without a node"
is ExecMainStatus 78 || fail "a faulty configuration gives exit code 78"
is SubState failed || fail "a faulty configuration is started again"
is NRestarts 0 || fail "a faulty configuration is started again"
ok "exit code 78, and no second start"
journal 3 "source.data_dirs" || fail "the journal says what is wrong, as an error"
ok "the journal says what is wrong, as an error"

say "SQLite, files below the home of another user"
start_node
config <<'TOML'
[source]
data_dirs = ["/home/hl/hl/data"]
from = "oldest"
[whitelist]
all = true
TOML
start
get /livez >/dev/null || fail "started means listening"
ok "started means listening"
wait_for "homes are hidden: status says so" status_has "not followed: .*No such file"
wait_for "the journal has it as a warning" journal 4 "cannot be followed"
journal 6 '"listening"' || fail "the journal has what is no warning as information"
ok "the journal has what is no warning as information"
drop_in node <<'UNIT'
[Service]
BindReadOnlyPaths=/home/hl/hl
UNIT
inside systemctl restart nodecast
wait_for "bound, but not allowed to read: status says so" status_has "Permission denied"
drop_in group <<'UNIT'
[Service]
SupplementaryGroups=hl
UNIT
inside systemctl restart nodecast
wait_for "with the group, events are stored" grows inserted 100
wait_for "state is ok" status_has '"state":"ok"'
wait_for "systemctl status shows the block" has StatusText "block 1"
[[ $(inside stat --format=%U:%a /var/lib/nodecast /var/lib/nodecast/nodecast.db | xargs) == \
    "nodecast:750 nodecast:640" ]] || fail "the state directory is the service's alone"
ok "the state directory is the service's alone"
refusal=$(inside nsenter --target "$(property MainPID)" --mount touch /home/hl/hl/data/x 2>&1) || true
[[ "$refusal" == *"Read-only file system"* ]] || fail "the node's files can be written: $refusal"
ok "not even root could write to the node's files from there"
[[ $(inside nsenter --target "$(property MainPID)" --mount ls /home/hl) == hl ]] ||
    fail "more of the home than what is bound can be seen"
ok "nothing else of the home can be seen"

say "stop"
before=$(date +%s)
inside systemctl stop nodecast
(($(date +%s) - before <= 10)) || fail "a stop takes at most 10 seconds"
if ! is ExecMainStatus 0 || ! is Result success; then fail "a stop is a success"; fi
ok "in order, with exit code 0, after $(($(date +%s) - before)) s"

say "watchdog"
drop_in watchdog <<'UNIT'
[Service]
WatchdogSec=4s
UNIT
start
fed=$(property WatchdogTimestampMonotonic)
fed_for() { (($(property WatchdogTimestampMonotonic) > fed + $1 * 1000000)); }
wait_for "it is fed for three periods" fed_for 12
pid=$(property MainPID)
restarts=$(property NRestarts)
inside kill -STOP "$pid"
restarted() { (($(property NRestarts) > restarts)) && is SubState running; }
wait_for "a process that hangs is ended and started again" restarted
journal_has --grep="Watchdog timeout" || fail "the watchdog was why"
ok "the watchdog was why"
wait_for "it goes on where it was" status_has '"state":"ok"'

say "reload"
pid=$(property MainPID)
echo "addresses = [\"0x1\"]" | inside tee --append /etc/nodecast/nodecast.toml >/dev/null
! inside systemctl reload nodecast 2>/dev/null || fail "a faulty configuration is accepted"
if ! is ActiveState active || ! is MainPID "$pid"; then fail "a faulty reload changes nothing"; fi
ok "a faulty configuration is refused and changes nothing"

say "PostgreSQL over TLS, the whitelist in Redis"
inside bash -e <<'SH'
cd /etc/nodecast
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=test authority" \
    -keyout /root/ca.key -out ca.pem 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout /root/server.key \
    -out /root/server.csr 2>/dev/null
openssl x509 -req -in /root/server.csr -CA ca.pem -CAkey /root/ca.key -CAcreateserial -days 2 \
    -extfile <(echo "subjectAltName=DNS:localhost") -out /root/server.pem 2>/dev/null
cd /
data=$(setpriv --reuid=postgres --regid=postgres --clear-groups psql -Atc "show data_directory")
install -o postgres -m 600 /root/server.key /root/server.pem "$data"
setpriv --reuid=postgres --regid=postgres --init-groups psql -q <<'SQL'
alter system set ssl = on;
alter system set ssl_cert_file = 'server.pem';
alter system set ssl_key_file = 'server.key';
create role nodecast login password 'secret';
create database nodecast owner nodecast;
SQL
systemctl restart postgresql
redis-cli sadd wallet_eoa_cache $(grep -oE '0x[0-9a-f]{40}' /home/hl/hl/data/users.txt) >/dev/null
SH
config <<'TOML'
[source]
data_dirs = ["/home/hl/hl/data"]
from = "oldest"
[whitelist]
redis_url = "redis://127.0.0.1:6379"
[store]
url = "postgres://nodecast:secret@localhost/nodecast?sslmode=verify-full&sslrootcert=/etc/nodecast/ca.pem"
TOML
inside systemctl restart nodecast
wait_for "events are stored" grows inserted 100
encrypted() {
    [[ $(inside setpriv --reuid=postgres --regid=postgres --clear-groups psql --no-psqlrc -At -d nodecast -c \
        "select count(*) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'nodecast' and ssl") -ge 1 ]]
}
wait_for "by TLS" encrypted
status_has '"addresses":50' || fail "the whitelist is that of Redis"
ok "the whitelist is that of Redis"
inside redis-cli sadd wallet_eoa_cache 0x00000000000000000000000000000000000000aa >/dev/null
wait_for "an address that is added holds without a reload" status_has '"addresses":51'
inside systemctl reload nodecast || fail "a sound configuration is refused"
wait_for "a reload reads the whitelist" journal 6 "whitelist reloaded"

say "a start while PostgreSQL hangs"
inside systemctl stop nodecast
inside systemctl kill --signal=STOP "postgresql@*"
inside systemctl start --no-block nodecast
# Its port is taken first of all.
bound() { inside grep -q ":1F90 00000000:0000 0A" /proc/net/tcp; }
wait_for "the port is bound" bound
is ActiveState activating || fail "it is ready before the store is open"
ok "that alone is not ready"
inside systemctl kill --signal=CONT "postgresql@*"
wait_for "it is ready when PostgreSQL is" is SubState running
get /livez >/dev/null || fail "ready means listening"
ok "ready means listening"

say "a hole of the node, then databases that are away, each for three periods of the watchdog"
pid=$(property MainPID)
inside systemctl kill --signal=STOP node
fed=$(property WatchdogTimestampMonotonic)
wait_for "a node that is silent" fed_for 12
inserted=$(figure inserted)
inside systemctl kill --signal=CONT node
wait_for "it writes again, and that is stored" grows inserted "$inserted"
inside systemctl stop postgresql redis-server
wait_for "systemctl status says that the store is away" has StatusText "store away since"
fed=$(property WatchdogTimestampMonotonic)
wait_for "PostgreSQL and Redis are away" fed_for 12
inserted=$(figure inserted)
inside systemctl start postgresql redis-server
wait_for "they are back, and what waited is stored" grows inserted "$inserted"
is MainPID "$pid" || fail "an outage ends the daemon"
ok "the same process lived through it all"

say "the database URL as a credential, and commands by hand"
by_hand() {
    inside setpriv --reuid=nodecast --regid=nodecast --init-groups \
        env HOME=/var/lib/nodecast /usr/bin/nodecast "$@"
}
inside cp --preserve /etc/nodecast/nodecast.toml /root/nodecast.toml
inside sed -n 's/^url = "\(postgres:.*\)"$/\1/p' /etc/nodecast/nodecast.toml |
    inside tee /etc/nodecast/store.url >/dev/null
inside chmod 600 /etc/nodecast/store.url
inside sed -i -e '/^url = /d' -e '1i state_dir = "/var/lib/nodecast"' /etc/nodecast/nodecast.toml
drop_in url <<'UNIT'
[Service]
LoadCredential=store.url:/etc/nodecast/store.url
UNIT
inside systemctl restart nodecast
wait_for "the service has it" status_has '"state":"ok"'
said=$(by_hand db status) || fail "a command has the credential: $said"
[[ "$said" == *"postgres:localhost:5432/nodecast"* && "$said" =~ writer\ +process ]] ||
    fail "a command sees the service's database: $said"
ok "a command sees the service's database, and who writes to it"
inside systemctl stop nodecast
code=0
said=$(by_hand db status 2>&1) || code=$?
[[ $code = 78 && "$said" == *"does not run: systemctl start nodecast"* ]] || fail "without the service: $said"
ok "without the service it says what is missing"
inside rm /etc/systemd/system/nodecast.service.d/url.conf /etc/nodecast/store.url
inside cp --preserve /root/nodecast.toml /etc/nodecast/nodecast.toml
inside systemctl daemon-reload

say "variants that the head of the unit describes"
inside systemctl stop nodecast
inside chown root:root /etc/nodecast/nodecast.toml
inside chmod 600 /etc/nodecast/nodecast.toml
drop_in credential <<'UNIT'
[Service]
LoadCredential=nodecast.toml:/etc/nodecast/nodecast.toml
ExecStart=
ExecStart=/usr/bin/nodecast run --config ${CREDENTIALS_DIRECTORY}/nodecast.toml
ExecReload=
ExecReload=/bin/kill -HUP $MAINPID
UNIT
start
ok "the whole configuration as a credential"
inside systemctl reload nodecast || fail "a reload with a credential"
wait_for "a reload with it" journal 6 "whitelist reloaded"
drop_in port <<'UNIT'
[Service]
Environment=NODECAST_HTTP__LISTEN=127.0.0.1:80
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
PrivateUsers=no
UNIT
inside systemctl restart nodecast
inside curl --silent --fail http://127.0.0.1/livez >/dev/null || fail "a port below 1024"
ok "a port below 1024"

say "sandbox"
inside systemd-analyze security --no-pager nodecast | tail -1
# A key that is not known, a step of the sandbox that failed (200 and above), a forbidden system call.
if inside journalctl --no-pager _PID=1 | grep nodecast | grep -E "ignoring|status=2[0-9]{2}/|SYS"; then
    fail "systemd complains"
fi
ok "systemd complains of nothing"
printf '\nThe unit works under %s.\n' "$(inside systemctl --version | head -1)"
