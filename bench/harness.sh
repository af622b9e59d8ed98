# shellcheck shell=bash disable=SC2034,SC2154 # variables go to and come from who sources this
# harness.sh: what measurements share: servers, load, samples, environment, results.
# Purpose: a suite says what a round measures and which rows its table has; the rest is here.
# Needs:   sourced by scripts/bench, which sets suite, round, rounds, seconds and out.
# Effects: a temporary directory; the servers that a suite starts, all stopped at the end.

readonly nightcore=target/release/nightcore
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

free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + RANDOM % 10000))
        # Nobody accepts there: it is free, as far as one can tell without taking it.
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    die 1 "no free port found"
}

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

# serve_stack CONFIG: serves functions; $stack is its pid, $stack_url where it listens.
serve_stack() {
    local port
    port=$(free_port)
    stack_url=http://127.0.0.1:$port
    serve "$stack_url/readyz" "$nightcore" up -c "$1" --listen "127.0.0.1:$port"
    stack=$server
}

children() {
    cat /proc/"$1"/task/*/children
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
    serve "$server_url" nginx -p "$directory" -c "$directory/nginx.conf" -e stderr
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
    for field in $(wrk -t1 -c"$connections" -d"$1s" -s "$script" "$url" -- "${@:5}" |
        sed -n 's/^report //p'); do
        report[${field%%=*}]=${field#*=}
    done
    [ "${report[errors]:-1}" -eq 0 ] || die 1 "${report[errors]:-all} requests to $url failed"
}

# measure_load MEASURE URL CONNECTIONS [GROUP=PIDS]...: records a load's latency and rate, and the CPU
# time per request of each group of processes.
measure_load() {
    local measure=$1 url=$2 connections=$3 field group spent
    shift 3
    load 1 "$url" "$connections" # to warm up: connections, workers, caches
    local -A before=()
    for group in "$@"; do
        before[$group]=$(cpu_us "${group#*=}")
    done
    report=()
    load "$seconds" "$url" "$connections"
    for group in "$@"; do
        spent=$(calculate "$(cpu_us "${group#*=}") - ${before[$group]}")
        record "${measure}_cpu_us_${group%%=*}" "$(calculate "$spent / ${report[requests]}")"
    done
    for field in p50_us p99_us p999_us rps; do
        record "${measure}_$field" "${report[$field]}"
    done
}

# cpu_us "PID...": CPU time of processes since their start: utime and stime, those of ended threads
# included. The kernel scales both to the exact run time, and cuts to ticks of 10 ms.
cpu_us() {
    local pid
    for pid in $1; do
        # The name, in parentheses, may hold spaces.
        sed 's/.*) //' "/proc/$pid/stat"
    done | awk -v hz="$(getconf CLK_TCK)" '{ ticks += $12 + $13 } END {
        printf "%.0f\n", ticks * 1e6 / hz
    }'
}

# cpu_ns "PID...": the same to the nanosecond, for processes whose threads stay.
cpu_ns() {
    local pid
    for pid in $1; do
        cat /proc/"$pid"/task/*/schedstat
    done | awk '{ ns += $1 } END { printf "%.0f\n", ns }'
}

# Time of all cores in ticks: "all idle stolen".
machine_ticks() {
    awk '/^cpu / {
        for (i = 2; i <= 9; i++) all += $i
        printf "%.0f %.0f %.0f\n", all, $5 + $6, $9
    }' /proc/stat
}

# machine_share BEFORE: the percentages "busy stolen" of all cores since BEFORE, of machine_ticks.
machine_share() {
    echo "$1 $(machine_ticks)" | awk '{
        all = $4 - $1
        printf "%.2f %.2f\n", 100 * (all - ($5 - $2)) / all, 100 * ($6 - $3) / all
    }'
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
