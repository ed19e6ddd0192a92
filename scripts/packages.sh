# Sourced by the other scripts: installs the Debian packages that building needs, when they are
# missing and this user may; otherwise says which they are. The embedded SQLite is C.

need_packages() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc)
    [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
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
