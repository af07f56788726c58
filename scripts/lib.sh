# Shared by the scripts: where we are, and what has to be installed. Sourced, never run.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT
cd "$ROOT" || exit 1
# Where Debian keeps ip and nft, which a user that is not root does not search.
PATH=$PATH:/usr/sbin:/sbin

# Without this, bash goes on after a SIGINT that came while a program in the foreground did not heed it.
trap 'exit 130' INT TERM HUP

say() { printf '\n== %s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# attended COMMAND...: runs it in a process group of its own, which ends when this script is told to.
attended() {
    local status=0
    set -m
    "$@" </dev/null &
    attended=$!
    set +m
    trap 'kill -TERM -- "-$attended" 2>/dev/null; wait "$attended" || true; exit 130' INT TERM HUP
    wait "$attended" || status=$?
    trap 'exit 130' INT TERM HUP
    return "$status"
}

# need PROGRAM=PACKAGE...: installs the Debian packages of the programs that are missing, as root; else says
# which. What every script needs, Rust and a C compiler, is looked at first.
need() {
    local pair missing=()
    need_rust
    echo '#include <stdio.h>' | cc -x c -fsyntax-only - 2>/dev/null || missing+=(gcc libc6-dev)
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    ((${#missing[@]} == 0)) && return
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        die "these packages are missing: ${missing[*]} (as root on Debian they are installed by themselves)"
    fi
    say "installing ${missing[*]}"
    apt-get update -qq || die "apt-get could not read the lists of packages: is there a network?"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install: ${missing[*]}"
    # These packages start a server of their own, which nobody asked for.
    for pair in v2ray=v2ray nginx-light=nginx; do
        if [[ " ${missing[*]} " == *" ${pair%%=*} "* && -d /run/systemd/system ]]; then
            systemctl --quiet disable --now "${pair#*=}.service" || true
        fi
    done
}

# Rust of at least the version that Cargo.toml asks for.
need_rust() {
    local least have
    least=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! command -v cargo >/dev/null || ! have=$(rustc --version 2>/dev/null); then
        die "Rust is missing: install $least or newer (https://rustup.rs)"
    fi
    have=$(cut -d ' ' -f 2 <<<"$have")
    printf '%s\n' "$least" "$have" | sort -CV || die "Rust $have is too old: install $least or newer (rustup update)"
}

# A tun device that can be opened.
need_tun() {
    local problem
    [[ -c /dev/net/tun ]] || die "/dev/net/tun is missing: this kernel or container has no tun devices"
    problem=$( (: <>/dev/net/tun) 2>&1) && return
    problem=${problem##*: }
    case $problem in
    "Permission denied") die "/dev/net/tun: $problem: run as root, or let root run 'chmod 666 /dev/net/tun'" ;;
    *) die "/dev/net/tun: $problem: this container or kernel gives no tun devices" ;;
    esac
}
