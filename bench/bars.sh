# shellcheck shell=bash disable=SC2154 # variables of scripts/bench and harness.sh
# bars.sh: the bars of the call path.
# Purpose: one round measures each of them once, next to what it is compared with.
# Needs:   sourced by scripts/bench, behind harness.sh.
# Effects: two nginx for the whole run; a stack of `nop` under 20 names, then one of the examples, in
#          every round.

readonly idle_functions=20
readonly idle_seconds=10
readonly chain_repeats=5

bars_begin() {
    local n
    serve_nginx "" "return 200;"
    nginx_url=$server_url
    nginx_pids="$server $(children "$server")"
    serve_nginx "upstream nginx {
            server ${nginx_url#http://};
            keepalive 64;
            keepalive_requests 1000000000;
        }" 'proxy_pass http://nginx; proxy_http_version 1.1; proxy_set_header Connection "";'
    proxy_url=$server_url
    nginx_pids+=" $server $(children "$server")"

    for ((n = 1; n <= idle_functions; n++)); do
        printf '[[function]]\nname = "nop%d"\nlibrary = "libnop.so"\n' "$n"
    done >"$scratch/idle.toml"
}

bars_round() {
    local before steal
    before=$(machine_ticks)
    measure_idle
    serve_stack examples/nightcore.toml
    sleep 1
    measure_chain 1024
    measure_chain 32
    in_turn measure_nop_c1 measure_nginx_c1
    in_turn measure_nop_c64 measure_proxy_c64
    stop "$stack"
    read -r _ steal <<<"$(machine_share "$before")"
    record steal_percent "$steal"
}

# One row a line: what, unit, measure, the measure it is divided by, the bar if there is one.
bars_rows() {
    cat <<'ROWS'
chain, 1 KiB: internal call, p50|us|chain_1024_p50_us||<= 13
chain, 1 KiB: internal call, p99|us|chain_1024_p99_us||
eventfd round trip, two processes on one core|us|eventfd_p50_us||
chain, 1 KiB: p50 to that round trip|ratio|chain_1024_p50_us|eventfd_p50_us|
chain, 32 B: internal call, p50|us|chain_32_p50_us||
chain, 32 B: internal call, p99|us|chain_32_p99_us||
nop, 1 connection: p50|us|nop_c1_p50_us||
nop, 1 connection: p99|us|nop_c1_p99_us||
nginx `return 200`, 1 connection: p50|us|nginx_c1_p50_us||
p50 of nop to nginx|ratio|nop_c1_p50_us|nginx_c1_p50_us|<= 1.3
nop, 64 connections|requests/s|nop_c64_rps||
nop, 64 connections: p50|us|nop_c64_p50_us||
nop, 64 connections: p99|us|nop_c64_p99_us||
nginx to nginx, 64 connections|requests/s|proxy_c64_rps||
nginx to nginx, 64 connections: p99|us|proxy_c64_p99_us||
requests/s of nop to nginx to nginx|ratio|nop_c64_rps|proxy_c64_rps|>= 1
CPU a nop at 64 connections: nightcore|us|nop_c64_cpu_us_nightcore||
CPU a nop at 64 connections: nightcore-worker|us|nop_c64_cpu_us_worker||
CPU a request at 64 connections: both nginx|us|proxy_c64_cpu_us_nginx||
idle CPU, 20 functions|% of a core|idle_cpu_percent||< 0.05
private memory, largest idle container|KiB|container_private_kib||< 4096
noise: machine busy while the stack idled|% of all cores|machine_busy_percent||
noise: time stolen by the hypervisor|% of all cores|steal_percent||
ROWS
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

# What 20 functions cost that nobody calls any more.
measure_idle() {
    local n pids before before_ns private largest=0 busy
    serve_stack "$scratch/idle.toml"
    for ((n = 1; n <= idle_functions; n++)); do
        curl -fsS -X POST "$stack_url/function/nop$n"
    done
    sleep 2
    pids="$stack $(children "$stack")"
    before=$(machine_ticks)
    before_ns=$(cpu_ns "$pids")
    sleep "$idle_seconds"
    record idle_cpu_percent \
        "$(calculate "($(cpu_ns "$pids") - $before_ns) / ($idle_seconds * 1e9) * 100")"
    read -r busy _ <<<"$(machine_share "$before")"
    record machine_busy_percent "$busy"
    for n in $(children "$stack"); do
        private=$(awk '/^Private_(Clean|Dirty):/ { kib += $2 } END { print kib }' \
            "/proc/$n/smaps_rollup")
        ((private <= largest)) || largest=$private
    done
    record container_private_kib "$largest"
    stop "$stack"
}

# measure_chain SIZE: internal calls one after the other, as the function sees them.
measure_chain() {
    local answer quantile n
    # The first call is not counted: it finds cold caches and untouched memory.
    for ((n = 0; n <= chain_repeats; n++)); do
        # Next to each other, since this machine's pace changes by a third from one second to the next.
        answer=$(target/release/nightcore-bench limits --only eventfd_same_core --quick --json)
        [[ "$answer" =~ \"p50_us\":([0-9.]+) ]] || die 1 "eventfd answered $answer"
        record eventfd_p50_us "${BASH_REMATCH[1]}"
        answer=$(curl -fsS --data "{\"n\": 2000, \"size\": $1}" "$stack_url/function/chain")
        ((n > 0)) || continue
        for quantile in p50_us p99_us; do
            [[ "$answer" =~ \"$quantile\":([0-9.]+) ]] || die 1 "chain answered $answer"
            record "chain_$1_$quantile" "${BASH_REMATCH[1]}"
        done
    done
}

measure_nop_c1() { measure_load nop_c1 "$stack_url" 1; }
measure_nginx_c1() { measure_load nginx_c1 "$nginx_url" 1; }
measure_nop_c64() {
    measure_load nop_c64 "$stack_url" 64 "nightcore=$stack" "worker=$(children "$stack")"
}
measure_proxy_c64() { measure_load proxy_c64 "$proxy_url" 64 "nginx=$nginx_pids"; }
