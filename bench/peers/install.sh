#!/usr/bin/env bash
# install.sh: builds and installs what the benchmarks compare with.
# Purpose: afterwards target/peers/release/peer runs, and target/peers/workerd/workerd where it can.
# Needs:   Rust, the crate registry. For workerd npm and its registry; apt-get with root or sudo if
#          npm is missing. Without them workerd is left out, with a note on stderr.
# Effects: writes to target/peers/ alone; installs npm with apt-get where it is missing.
# Usage:   bench/peers/install.sh

set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/tools.sh

install_workerd() {
    local directory=target/peers/workerd binaries
    if [ -x $directory/workerd ] && cmp -s bench/peers/workerd/package.json $directory/package.json
    then
        return
    fi
    # In a subshell: without npm the other peers are worth having.
    if ! command -v npm >/dev/null && ! (require_tools npm); then
        echo "workerd left out: npm is missing and could not be installed" >&2
        return
    fi
    mkdir -p $directory
    rm -f $directory/workerd
    cp bench/peers/workerd/package.json $directory
    # Its install script only replaces a launcher of JavaScript; the binary is a package of its own.
    if ! npm install --prefix $directory --ignore-scripts --no-package-lock --no-audit --no-fund \
        --loglevel error >&2
    then
        echo "workerd left out: npm could not install it" >&2
        return
    fi
    binaries=("$directory"/node_modules/@cloudflare/workerd-*/bin/workerd)
    if [ ! -x "${binaries[0]}" ]; then
        echo "workerd left out: there is none for this system" >&2
        return
    fi
    ln -s "${binaries[0]#"$directory/"}" $directory/workerd
}

require_rust
CARGO_TARGET_DIR=target/peers cargo build --release --locked --manifest-path bench/peers/Cargo.toml
install_workerd
