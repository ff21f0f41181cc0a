#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# tools/setup.sh build|test|fuzz - what the build, the tests or the fuzzers need from Debian, installed
# if missing.
#
# As root, or where sudo is there, it installs; otherwise it prints the one line to run and stops.
# Where nothing is missing it takes milliseconds and changes nothing. `test` also makes .venv with the
# Python test tools of tests/requirements.txt, and puts Debian's etcd there.
set -eu
cd "$(dirname "$0")/.."

build_packages='gcc cmake ninja-build pkg-config libc6-dev libssl-dev libjansson-dev libmsgpack-dev
libhttp-parser-dev libpcre2-dev libxxhash-dev liburing-dev libzstd-dev python3 python3-pip'
test_packages='libcmocka-dev libfabric-dev libfabric1 python3-venv clang libclang-rt-14-dev clang-format lld redis-tools
curl'
fuzz_packages='clang libclang-rt-14-dev'

missing() {
    for name in $1; do
        case "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" in
        installed) ;;
        *) printf ' %s' "$name" ;;
        esac
    done
}

update() {
    if [ "$(id -u)" = 0 ]; then apt-get update -q; else sudo apt-get update -q; fi
}

install() {
    names=$1
    set -- apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends $names
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            echo "yolk needs these Debian packages, and installing them takes root. Run:" >&2
            echo "  su -c 'apt-get update && $*'" >&2
            exit 1
        fi
        set -- sudo env DEBIAN_FRONTEND=noninteractive "$@"
    else
        export DEBIAN_FRONTEND=noninteractive
    fi
    echo "Installing Debian packages:$names"
    ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || update
    "$@" || { update && "$@"; } # the package lists may be old
}

# Tests start etcd themselves. The installed package would start it too, now and at every boot, so only
# the program is taken out of it. (Redis needs none of that: redis-tools has the program and no service.)
fetch_etcd() {
    [ ! -x /usr/bin/etcd ] && [ ! -x .venv/servers/usr/bin/etcd ] || return 0
    echo "Fetching Debian's etcd-server into .venv, without installing it"
    place=$(mktemp -d)
    download="apt-get download -qq etcd-server"
    (cd "$place" && chmod 755 . && { $download 2>/dev/null || { update && $download; }; })
    mkdir -p .venv/servers
    dpkg-deb -x "$place"/etcd-server_*.deb .venv/servers
    rm -rf "$place"
}

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "setup: no dpkg here; on Debian 12 the needs are: $build_packages" >&2
    exit 0
fi

need=$(missing "$build_packages")
[ "$1" = test ] && need="$need$(missing "$test_packages")"
[ "$1" = fuzz ] && need="$need$(missing "$fuzz_packages")"
[ -z "$need" ] || install "$need"

if [ "$1" = test ]; then
    stamp=.venv/installed-$(cksum <tests/requirements.txt | cut -d' ' -f1)
    if [ ! -e "$stamp" ]; then
        echo "Preparing .venv for the tests"
        python3 -m venv .venv
        .venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
        touch "$stamp"
    fi
    fetch_etcd
fi
