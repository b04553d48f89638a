#!/bin/bash
# A private RabbitMQ (Debian's) in a folder of its own: node name, cookie, port mapper, data and logs are its own, and it
# listens on the loopback only. Several may run at once. BROKER_ADDRESS=ADDRESS in the environment of `start` lets it listen there
# as well, for guests in network namespaces, and takes its user from there.
#
#   broker.sh start DIR PORT [TLSPORT CERTDIR]   starts it and waits until it accepts connections (user guest, password
#                                                guest). With TLS it demands a client certificate of CERTDIR's
#                                                authority; EXTERNAL logs in as its common name.
#   broker.sh stop DIR | kill DIR                ends it in order; by SIGKILL
#   broker.sh run DIR | restart DIR              starts it again with the same data; stops it first
#   broker.sh ctl DIR ARGUMENT...                rabbitmqctl for it
#   broker.sh certs DIR                          makes ca.pem, server.pem/.key, client.pem/.key, other-ca.pem
set -eu

say() { echo "broker: $*" >&2; }
die() { say "$*"; exit 1; }

sbin() {
    local found
    found=$(ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin 2>/dev/null | tail -1)
    [ -n "$found" ] || die "RabbitMQ is not installed (apt-get install rabbitmq-server)"
    echo "$found"
}

# Environment of the broker in $1: everything that would be taken from /etc or /var otherwise.
load() {
    dir=$(realpath "$1")
    [ -f "$dir/ports" ] || die "there is no broker in $dir"
    read -r port distribution mapper <"$dir/ports"
    export HOME="$dir" LANG=C.UTF-8
    export ERL_EPMD_PORT="$mapper" ERL_EPMD_ADDRESS=127.0.0.1
    export RABBITMQ_NODENAME="rabbit-$port@localhost" RABBITMQ_DIST_PORT="$distribution"
    export RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf"
    export RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins"
    export RABBITMQ_MNESIA_BASE="$dir/data" RABBITMQ_LOG_BASE="$dir/log" RABBITMQ_PID_FILE="$dir/pid"
    export RABBITMQ_GENERATED_CONFIG_DIR="$dir/config" RABBITMQ_SCHEMA_DIR="$dir/schema"
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
    export RABBITMQ_CTL_ERL_ARGS="+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
}

accepts() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port that nobody listens on, below those the kernel gives to clients.
spare() {
    local found
    while true; do
        found=$((20000 + RANDOM % 12000))
        accepts "$found" || break
    done
    echo "$found"
}

lives() { [ -s "$dir/pid" ] && kill -0 "$(cat "$dir/pid")" 2>/dev/null; }

run() {
    local waited=0
    accepts "$port" && die "port $port is taken"
    rm -f "$dir/pid"
    setsid "$(sbin)/rabbitmq-server" >>"$dir/log/start" 2>&1 </dev/null &
    say "starting on port $port (log: $dir/log)"
    until accepts "$port"; do
        waited=$((waited + 1))
        if [ "$waited" -gt 1200 ]; then
            tail -n 40 "$dir"/log/* >&2
            die "it does not accept connections after 120 s"
        fi
        if [ "$waited" -gt 50 ] && ! lives && ! kill -0 $! 2>/dev/null; then
            tail -n 40 "$dir"/log/* >&2
            die "it ended while starting"
        fi
        sleep 0.1
    done
    say "accepts connections on port $port after $((waited / 10)).$((waited % 10)) s"
}

start() {
    local dir=$1 port=$2 tls_port=${3:-} certs=${4:-}
    sbin >/dev/null
    mkdir -p "$dir/data" "$dir/log" "$dir/config" "$dir/schema"
    echo "$port $(spare) $(spare)" >"$dir/ports"
    if [ ! -f "$dir/.erlang.cookie" ]; then
        (umask 077; head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$dir/.erlang.cookie")
    fi
    {
        echo "listeners.tcp.local = 127.0.0.1:$port"
        if [ -n "${BROKER_ADDRESS:-}" ]; then
            echo "listeners.tcp.other = $BROKER_ADDRESS:$port"
            echo "loopback_users = none"
        fi
        echo "disk_free_limit.absolute = 20MB"
        echo "vm_memory_high_watermark.relative = 0.5"
        echo "log.file.level = info"
        echo "auth_mechanisms.1 = PLAIN"
        echo "auth_mechanisms.2 = AMQPLAIN"
        if [ -n "$tls_port" ]; then
            certs=$(realpath "$certs")
            echo "auth_mechanisms.3 = EXTERNAL"
            echo "listeners.ssl.local = 127.0.0.1:$tls_port"
            echo "ssl_options.cacertfile = $certs/ca.pem"
            echo "ssl_options.certfile = $certs/server.pem"
            echo "ssl_options.keyfile = $certs/server.key"
            echo "ssl_options.verify = verify_peer"
            echo "ssl_options.fail_if_no_peer_cert = true"
            echo "ssl_cert_login_from = common_name"
        fi
    } >"$dir/rabbitmq.conf"
    if [ -n "$tls_port" ]; then
        echo "[rabbitmq_auth_mechanism_ssl]." >"$dir/enabled_plugins"
    else
        echo "[]." >"$dir/enabled_plugins"
    fi
    load "$dir"
    run
}

# Ends it with signal $1 and waits until it is gone, its port mapper as well.
halt() {
    local signal=$1 pid waited=0
    if lives; then
        pid=$(cat "$dir/pid")
        kill "-$signal" "$pid"
        while kill -0 "$pid" 2>/dev/null; do
            waited=$((waited + 1))
            [ "$waited" -ne 300 ] || kill -KILL "$pid" 2>/dev/null || true
            [ "$waited" -lt 400 ] || die "process $pid does not end"
            sleep 0.1
        done
    fi
    waited=0
    while accepts "$ERL_EPMD_PORT" && [ "$waited" -lt 50 ]; do
        epmd -port "$ERL_EPMD_PORT" -kill >/dev/null 2>&1 || true
        waited=$((waited + 1))
        sleep 0.1
    done
    say "stopped"
}

certs() {
    mkdir -p "$1"
    cd "$1"
    local name
    for name in ca other-ca; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj "/CN=$name" \
            -keyout "$name.key" -out "$name.pem" 2>/dev/null
    done
    issue() {
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
        printf '%s\n' "basicConstraints=CA:FALSE" "subjectAltName=$3" >"$1.ext"
        openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.pem" 2>/dev/null
        rm "$1.csr" "$1.ext"
    }
    issue server localhost "DNS:localhost"
    issue client guest "DNS:guest"
    say "certificates are in $1"
}

[ $# -ge 2 ] || die "usage: broker.sh start|stop|kill|run|restart|ctl|certs DIR …"
verb=$1
shift
case $verb in
    start) [ $# -eq 2 ] || [ $# -eq 4 ] || die "usage: broker.sh start DIR PORT [TLSPORT CERTDIR]"; start "$@" ;;
    stop) load "$1"; halt TERM ;;
    kill) load "$1"; halt KILL ;;
    restart) load "$1"; halt TERM; run ;;
    run) load "$1"; run ;;
    ctl) load "$1"; shift; exec "$(sbin)/rabbitmqctl" "$@" ;;
    certs) certs "$1" ;;
    *) die "unknown verb $verb" ;;
esac
