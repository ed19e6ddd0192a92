# Sourced by the other scripts: installs the Debian packages that building and testing need, when
# they are missing and this user may; otherwise says which they are. The embedded SQLite is C.

need_packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc)
    [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
    install_packages "${missing[@]}"
}

# The programs of the servers that the tests start for themselves. The package of PostgreSQL would
# start one, too, which nobody asked for.
need_servers() {
    local missing=()
    if [ -z "$(postgres_program initdb)" ]; then
        missing+=(postgresql)
        if [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common ]; then
            mkdir -p /etc/postgresql-common
            echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
        fi
    fi
    command -v redis-server >/dev/null || missing+=(redis-server)
    # Certificates for the tests of TLS.
    command -v openssl >/dev/null || missing+=(openssl)
    install_packages "${missing[@]}"
}

install_packages() {
    local missing=("$@")
    if [ ${#missing[@]} = 0 ]; then
        return
    fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    else
        echo "please install: ${missing[*]} (as root: apt-get install ${missing[*]})" >&2
        exit 1
    fi
}
