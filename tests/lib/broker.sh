#!/usr/bin/env bash
# temporary stand-in, not committed
set -euo pipefail
verb=$1 dir=$2
env_() { export RABBITMQ_NODENAME=h$(echo -n "$dir"|md5sum|cut -c1-8)@localhost RABBITMQ_MNESIA_BASE=$dir/mnesia RABBITMQ_LOG_BASE=$dir/log RABBITMQ_PID_FILE=$dir/pid RABBITMQ_ENABLED_PLUGINS_FILE=$dir/plugins HOME=$dir RABBITMQ_CONFIG_FILE=$dir/rabbitmq; export ERL_EPMD_ADDRESS=127.0.0.1; }
case $verb in
start) mkdir -p $dir/mnesia $dir/log; port=$3; echo "[]." > $dir/plugins; echo $port > $dir/port
 dport=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
 printf 'listeners.tcp.1 = 127.0.0.1:%s\n' $port > $dir/rabbitmq.conf
 env_; export RABBITMQ_DIST_PORT=$dport RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
 setsid /usr/lib/rabbitmq/bin/rabbitmq-server >$dir/out 2>&1 </dev/null &
 for i in $(seq 600); do (echo > /dev/tcp/127.0.0.1/$port) 2>/dev/null && exit 0; sleep 0.1; done; exit 1;;
stop) p=$(cat $dir/pid); kill $p || true; for i in $(seq 200); do kill -0 $p 2>/dev/null || exit 0; sleep 0.1; done; kill -9 $p;;
restart) port=$(cat $dir/port); $0 stop $dir; $0 start $dir $port;;
esac
