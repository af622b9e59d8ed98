# shellcheck shell=bash
# tools.sh: programs that a script needs and the machine lacks, and a free port.
# Purpose: `require_tools wrk cc` leaves both in PATH or ends the script with one clear line;
#          `free_port` prints one.
# Needs:   sourced by bash. To install: a Debian-like system, root or sudo, its package mirror.
# Effects: runs apt-get only when a program is missing; otherwise none.

# The packages that bring a program.
packages_of() {
    case "$1" in
        cc) echo gcc libc6-dev ;;
        c++) echo g++ ;;
        h2load) echo nghttp2-client ;;
        curl) echo curl ca-certificates ;;
        ip) echo iproute2 ;;
        *) echo "$1" ;;
    esac
}

require_tools() {
    local tool missing=() packages=() as_root=()
    for tool in "$@"; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    for tool in "${missing[@]}"; do
        read -ra found <<<"$(packages_of "$tool")"
        packages+=("${found[@]}")
    done
    if ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]}; install them and run this again" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "missing: ${missing[*]}; as root run: apt-get install ${packages[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "installing ${packages[*]}"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
    for tool in "${missing[@]}"; do
        command -v "$tool" >/dev/null || { echo "still missing: $tool" >&2; exit 1; }
    done
}

require_rust() {
    command -v cargo >/dev/null || { echo "missing: cargo; see https://rustup.rs" >&2; exit 1; }
}

# A port of 127.0.0.1 for a server to listen on.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 10000))
        # Nobody accepts there: it is free, as far as one can tell without taking it.
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    echo "no free port found" >&2
    return 1
}
