# shellcheck shell=bash disable=SC2034,SC2154 # variables go to and come from who sources this
# harness.sh: servers, load by wrk, samples, environment and results of bench/validate.sh.
# Purpose: it says what a round measures and which rows its table has; the rest is here.
# Needs:   sourced by bench/validate.sh, which sets suite, round, rounds, seconds and out.
# Effects: a temporary directory; the servers that a suite starts, all stopped at the end.

readonly ready_seconds_max=30
readonly stop_seconds_max=60

scratch=$(mktemp -d)
samples=$scratch/samples.tsv
servers=() # pids of what runs now
declare -A report=() # of the last load: p50_us, p99_us, p999_us, rps, requests, errors

clean_up() {
    local status=$? pid
    for pid in "${servers[@]}"; do
        stop "$pid" || true
    done
    if [ "$status" -eq 1 ] && compgen -G "$scratch/*.log" >/dev/null; then
        tail -n 5 "$scratch"/*.log >&2
    fi
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# die CODE MESSAGE
die() {
    echo "bench: $2" >&2
    exit "$1"
}

# Servers.

# serve URL COMMAND...: starts a server and waits until it answers; its pid is in $server.
serve() {
    local url=$1 deadline=$((SECONDS + ready_seconds_max))
    shift
    "$@" >"$scratch/server-${#servers[@]}.log" 2>&1 &
    server=$!
    servers+=("$server")
    until curl -fsS -o /dev/null --max-time 1 "$url" 2>/dev/null; do
        kill -0 "$server" 2>/dev/null || die 1 "$1 ended at its start"
        [ "$SECONDS" -lt "$deadline" ] || die 1 "$1 was not ready in time"
        sleep 0.1
    done
}

# stop PID: ends a server of ours; fails if it has to be killed or ends badly.
stop() {
    local deadline=$((SECONDS + stop_seconds_max)) pid others=()
    for pid in "${servers[@]}"; do
        [ "$pid" -eq "$1" ] || others+=("$pid")
    done
    servers=("${others[@]}")
    kill -TERM "$1" 2>/dev/null || true
    while kill -0 "$1" 2>/dev/null; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "bench: process $1 did not stop within $stop_seconds_max s" >&2
            kill -KILL "$1"
            return 1
        fi
        sleep 0.1
    done
    wait "$1"
}

# serve_nginx HTTP LOCATION: one nginx of one worker; $server is its pid, $server_url where it listens.
# Tuned as one would for this: no log, connections that never end.
serve_nginx() {
    local port directory=$scratch/nginx-${#servers[@]}
    port=$(free_port)
    server_url=http://127.0.0.1:$port
    mkdir "$directory"
    cat >"$directory/nginx.conf" <<NGINX
daemon off;
worker_processes 1;
pid $directory/pid;
error_log stderr error;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path $directory/body;
    proxy_temp_path $directory/proxy;
    fastcgi_temp_path $directory/fastcgi;
    uwsgi_temp_path $directory/uwsgi;
    scgi_temp_path $directory/scgi;
    $1
    server {
        listen 127.0.0.1:$port;
        location / { $2 }
    }
}
NGINX
    serve "$server_url" taskset -c 1 nginx -p "$directory" -c "$directory/nginx.conf" -e stderr
}

# Two measurements, each with its arguments, next to each other, the other one first in every second round.
in_turn() {
    local first=$1 second=$2
    ((round % 2)) || { first=$2 second=$1; }
    # shellcheck disable=SC2086 # a measurement and its arguments
    $first
    # shellcheck disable=SC2086
    $second
}

# Load.

# load SECONDS URL CONNECTIONS [SCRIPT ARGUMENTS...]: calls `nop` for so long; fills $report.
load() {
    local field url=$2 connections=$3 script=${4:-scripts/wrk/nop.lua}
    for field in $(taskset -c 0 wrk -t1 -c"$connections" -d"$1s" -s "$script" "$url" -- "${@:5}" |
        sed -n 's/^report //p'); do
        report[${field%%=*}]=${field#*=}
    done
    [ "${report[errors]:-1}" -eq 0 ] || die 1 "${report[errors]:-all} requests to $url failed"
}

# calculate EXPRESSION: of awk.
calculate() {
    awk "BEGIN { printf(\"%.9g\\n\", ($1)) }"
}

# Samples and results.

# record MEASURE VALUE: several in one round are one value, their median.
record() {
    printf '%d\t%s\t%s\n' "$round" "$1" "$2" >>"$samples"
}

begin() {
    local load_average
    read -r load_average _ </proc/loadavg
    if [ "$(calculate "$load_average >= 0.5")" -eq 1 ]; then
        echo "warning: load average $load_average: this machine is not idle" >&2
    fi
    describe_environment >"$scratch/environment.txt"
    echo "load average at start: $load_average" >>"$scratch/environment.txt"
    printf 'round\tmeasure\tvalue\n' >"$samples"
}

finish() {
    local name directory n=1
    awk -f bench/summary.awk "$scratch/rows" "$samples" >"$scratch/table.md"
    name=$(date -u +%F)-$(uname -n | tr '[:upper:]' '[:lower:]' | tr -c 'a-z0-9\n' -)
    directory=${out:-bench/results/$name}
    while [ -z "$out" ] && [ -e "$directory" ]; do
        n=$((n + 1))
        directory=bench/results/$name-$n
    done
    mkdir -p "$directory"
    {
        printf '# scripts/bench %s --rounds %d --seconds %d\n\n' "$suite" "$rounds" "$seconds"
        cat "$scratch/table.md"
        printf '\nRatios are taken within each round. '
        printf '[How this is measured and read](../../../docs/benchmarking.md).\n\n'
        sed 's/^/- /' "$scratch/environment.txt"
    } >"$directory/summary.md"
    cp "$samples" "$scratch/environment.txt" "$directory"
    cat "$scratch/table.md"
    echo "written to $directory" >&2
}

# What a figure depends on, one "key: value" a line, and nothing that names this machine's owner.
describe_environment() {
    local commit
    if commit=$(git rev-parse --short=12 HEAD 2>/dev/null); then
        [ -z "$(git status --porcelain -- . ':!bench/results')" ] || commit+=", with changes"
    else
        commit=unknown
    fi
    echo "date: $(date -u +%FT%TZ)"
    echo "commit: $commit"
    echo "kernel: $(uname -sr), $(uname -m)"
    echo "cpu: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
    echo "cores: $(nproc)"
    grep -qw hypervisor /proc/cpuinfo && echo "virtual machine: yes"
    echo "memory: $(awk '/^MemTotal/ { printf "%.1f GiB", $2 / 1048576 }' /proc/meminfo)"
    echo "sched_autogroup: $(cat /proc/sys/kernel/sched_autogroup_enabled 2>/dev/null || echo none)"
    echo "rustc: $(rustc --version)"
    echo "nginx: $(nginx -v 2>&1 | sed 's/.*nginx version: //')"
    echo "wrk: $({ wrk -v 2>&1 || true; } | awk 'NR == 1 { print $2 }')"
}
