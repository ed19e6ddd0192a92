# Sourced by test.sh: the clients of the official protocol that tests/official_sdks.rs runs, each of the version
# that its lock file says, from the registries that this machine is set to. What is installed is named by a digest
# of the lock file and lies in the user's cache (or in NODECAST_SDK_DIR), so that neither a second run nor another
# clone installs anything.

sdk_dir=${NODECAST_SDK_DIR:-${XDG_CACHE_HOME:-${HOME:-$PWD/target}/.cache}/nodecast-sdk}

need_sdk_packages() {
    local missing=()
    # Debian keeps a part of Python that makes environments in a package of its own.
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    command -v node >/dev/null || missing+=(nodejs)
    command -v npm >/dev/null || missing+=(npm)
    install_packages "${missing[@]}"
}

# Sets NODECAST_SDK_PYTHON and NODECAST_SDK_NODE_MODULES.
need_sdks() {
    need_sdk_packages
    mkdir -p "$sdk_dir"
    local lock directory version
    # An environment belongs to the Python that made it, and its packages are compiled for that.
    lock=tests/sdk/python/requirements.txt
    version=$(python3 -c 'import sys, sysconfig; print(sys.base_prefix, sysconfig.get_python_version())')
    directory="$sdk_dir/python-$(digest_of "$lock" "$version")"
    install_once "the Python SDK" "$directory" install_python_sdk "$lock"
    NODECAST_SDK_PYTHON=$(realpath -s "$directory")/bin/python
    lock=tests/sdk/typescript/package-lock.json
    directory="$sdk_dir/typescript-$(digest_of "$lock")"
    install_once "the TypeScript SDK" "$directory" install_typescript_sdk "${lock%/*}"
    NODECAST_SDK_NODE_MODULES=$(realpath "$directory")/node_modules
    export NODECAST_SDK_PYTHON NODECAST_SDK_NODE_MODULES
}

# Sets NODECAST_SDK_RUST. The SDK knows one local address: port 3001 of localhost has to be free.
need_rust_sdk() {
    if (exec 3<>/dev/tcp/127.0.0.1/3001) 2>/dev/null; then
        echo "port 3001 of 127.0.0.1 is taken: the Rust SDK knows no other, so its tests cannot run" >&2
        exit 1
    fi
    local missing=()
    # Its TLS is OpenSSL's.
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    [ -e /usr/include/openssl/ssl.h ] || missing+=(libssl-dev)
    install_packages "${missing[@]}"
    local target="${CARGO_TARGET_DIR:-target}/sdk"
    cargo build --locked --manifest-path tests/sdk/rust/Cargo.toml --target-dir "$target"
    NODECAST_SDK_RUST=$(realpath "$target/debug/nodecast-rust-sdk-client")
    export NODECAST_SDK_RUST
}

# A short digest of a file and of more words.
digest_of() {
    local file=$1
    shift
    { cat "$file" && echo "$@"; } | sha256sum | cut -c1-16
}

# Runs a command that installs into a directory, unless it has done so; half of it counts for nothing.
install_once() {
    local what=$1 directory=$2
    shift 2
    if [ -e "$directory/.complete" ]; then
        return
    fi
    echo "installing $what into $directory"
    rm -rf "$directory"
    if ! "$@" "$directory"; then
        rm -rf "$directory"
        echo "$what could not be installed, see above: this needs a network, once, and Python 3.10 or Node.js 18 at least" >&2
        exit 1
    fi
    touch "$directory/.complete"
}

install_python_sdk() {
    python3 -m venv "$2" &&
        "$2/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$1"
}

install_typescript_sdk() {
    mkdir -p "$2" && cp "$1"/package.json "$1"/package-lock.json "$1"/.npmrc "$2" &&
        npm ci --prefix "$2" --ignore-scripts --no-audit --no-fund --loglevel=error
}
