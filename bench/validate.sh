#!/usr/bin/env bash
# validate.sh: the load generator against wrk, on one nginx that answers by itself.
# Purpose: one round measures each figure with both tools, one after the other.
# Needs:   two cores, curl, nginx, wrk, and target/release/nightcore-bench: run `scripts/bench validate`.
# Effects: one nginx on a free port of 127.0.0.1 for the whole run; writes raw data, environment and a
#          summary to bench/results/<date>-<host>-validate/; leaves nothing running.
# Usage:   scripts/bench validate [--rounds N] [--seconds N] [--out DIR]
#              N rounds (5), each load N seconds long (5), results into DIR instead.

set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/tools.sh
. bench/harness.sh

readonly load_generator=target/release/nightcore-bench
readonly validate_connections="1 16 64"
readonly validate_shares="10 20 30 40 50" # percent of what one connection of wrk reaches

validate_begin() {
    serve_nginx "" "return 200;"
    nginx_url=$server_url
    load 1 "$nginx_url" 1
    load 2 "$nginx_url" 1
    capacity=${report[rps]}
}

validate_round() {
    local n share
    for n in $validate_connections; do
        load 1 "$nginx_url" "$n" # the server's caches and connections, for whoever is first
        in_turn "wrk_closed $n" "own_closed $n"
    done
    for share in $validate_shares; do
        in_turn "wrk_paced $share" "own_paced $share"
    done
}

# As bars_rows does.
validate_rows() {
    local n share
    for n in $validate_connections; do
        cat <<ROWS
closed loop, $n: requests/s, wrk|requests/s|wrk_c${n}_rps||
closed loop, $n: requests/s to wrk|ratio|own_c${n}_rps|wrk_c${n}_rps|>= 0.95
closed loop, $n: p50, wrk|us|wrk_c${n}_p50_us||
closed loop, $n: p50 to wrk|ratio|own_c${n}_p50_us|wrk_c${n}_p50_us|<= 1.05
closed loop, $n: p99 to wrk|ratio|own_c${n}_p99_us|wrk_c${n}_p99_us|
closed loop, $n: CPU a request, wrk|us|wrk_c${n}_cpu_us||
closed loop, $n: CPU a request to wrk|ratio|own_c${n}_cpu_us|wrk_c${n}_cpu_us|<= 1.3
ROWS
    done
    for share in $validate_shares; do
        cat <<ROWS
rate at $share%: p50, wrk|us|wrk_r${share}_p50_us||
rate at $share%: p50 from sending to wrk|ratio|own_r${share}_sent_us_p50|wrk_r${share}_p50_us|<= 1.05
rate at $share%: p99 from sending to wrk|ratio|own_r${share}_sent_us_p99|wrk_r${share}_p99_us|
rate at $share%: p50 from due to wrk|ratio|own_r${share}_p50_us|wrk_r${share}_p50_us|
rate at $share%: sent late, p50|us|own_r${share}_late_us_p50||
rate at $share%: sent late, p99|us|own_r${share}_late_us_p99||
ROWS
    done
}

wrk_closed() {
    report=()
    timed load "$seconds" "$nginx_url" "$1"
    record_report "wrk_c$1" rps p50_us p99_us
    record "wrk_c$1_cpu_us" "$(calculate "$timed_us / ${report[requests]}")"
}

own_closed() {
    timed own_load --connections "$1"
    record_report "own_c$1" rps p50_us p99_us
    record "own_c$1_cpu_us" "$(calculate "$timed_us / ${report[requests]}")"
}

wrk_paced() {
    report=()
    load "$seconds" "$nginx_url" 1 scripts/wrk/paced.lua "$(rate_at "$1")"
    record_report "wrk_r$1" p50_us p99_us
}

own_paced() {
    own_load --connections 1 --rate "$(rate_at "$1")"
    record_report "own_r$1" p50_us sent_us_p50 sent_us_p99 late_us_p50 late_us_p99
}

rate_at() {
    calculate "$capacity * $1 / 100"
}

# record_report PREFIX FIELD...: fields of $report as measures.
record_report() {
    local prefix=$1 field
    shift
    for field in "$@"; do
        record "${prefix}_$field" "${report[$field]}"
    done
}

# own_load ARGUMENTS...: the request that wrk sends, by the load generator; fills $report.
own_load() {
    local line pair
    line=$(taskset -c 0 "$load_generator" load --quiet --json - --warm-up 0s --duration "${seconds}s" \
        --method POST "$@" "$nginx_url/function/nop") || die 1 "the load generator failed"
    report=()
    while read -r pair; do
        report[${pair%%=*}]=${pair#*=}
    done < <(grep -oE '"[a-z0-9_]+":[0-9.]+' <<<"$line" | sed 's/"//g; s/:/=/')
}

# timed COMMAND...: runs a function; $timed_us is the CPU time of the processes that it started.
timed() {
    local before after
    before=$(children_cpu_us)
    "$@"
    after=$(children_cpu_us)
    timed_us=$(calculate "$after - $before")
}

# CPU time of this shell's children that have ended, in microseconds, cut to 10 ms.
children_cpu_us() {
    sed 's/.*) //' "/proc/$$/stat" | awk -v hz="$(getconf CLK_TCK)" '{
        printf "%.0f\n", ($14 + $15) * 1e6 / hz
    }'
}

usage() {
    sed -n 's/^# \{0,1\}//; /^Usage:/,$p' "$0" | sed '/^$/,$d'
}

# Whether $2, the value of option $1, is a whole number above 0.
require_count() {
    [[ "$2" =~ ^[1-9][0-9]*$ ]] || die 2 "$1: expected a whole number above 0, got \"$2\""
}

rounds=5
seconds=5
out=""
while [ $# -gt 0 ]; do
    case "$1" in
        --rounds) require_count "$1" "${2:-}"; rounds=$2 ;;
        --seconds) require_count "$1" "${2:-}"; seconds=$2 ;;
        --out) [ -n "${2:-}" ] || die 2 "--out: expected a directory"; out=$2 ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift 2
done
readonly suite=validate rounds seconds out

begin
validate_begin
for ((round = 1; round <= rounds; round++)); do
    echo "round $round of $rounds" >&2
    validate_round
done
validate_rows >"$scratch/rows"
finish
