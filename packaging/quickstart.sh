#!/usr/bin/env bash
# From nothing to a backup that is restored and a pair of MariaDB instances that survives the death of one, on a fresh Debian 12, as
# root, in one command:
#
#   ./packaging/quickstart.sh [FOLDER]         builds; makes two guests, a broker, a witness and a client in network namespaces of
#                                              their own; plays taskmanager; takes a backup, drops the database and restores it;
#                                              makes the pair; a client writes through its service address
#                                              while the source is switched over, and then killed; shows what that cost
#   ./packaging/quickstart.sh --down [FOLDER]  ends all of it and deletes FOLDER
#
# FOLDER is ./target/quickstart unless given. Nothing is touched outside FOLDER and the namespaces. Run it again after a failure or
# a reboot: what is done is not done again; the switchover and the kill are.
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
DOWN=0
FOLDER=
for word in "$@"; do
  case $word in
  --down) DOWN=1 ;;
  -*)
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
  *) FOLDER=$word ;;
  esac
done
TARGET=${CARGO_TARGET_DIR:-$TOP/target}
FOLDER=$(realpath -m "${FOLDER:-$TARGET/quickstart}")
AGENT=$TARGET/quick/trove-guestagent
WRITER=$TARGET/quick/lab-writer
LOG=$FOLDER/quickstart.log
PATH=$PATH:/usr/sbin:/sbin

# shellcheck source=tests/lib/install.sh
. "$TOP/tests/lib/install.sh"
# shellcheck source=packaging/quickstart/hosts.sh
. "$TOP/packaging/quickstart/hosts.sh"
# shellcheck source=packaging/quickstart/client.sh
. "$TOP/packaging/quickstart/client.sh"
# shellcheck source=packaging/quickstart/backup.sh
. "$TOP/packaging/quickstart/backup.sh"

# --- telling -------------------------------------------------------------------------------------------------------

BEGAN=$SECONDS
millis() { local now=$EPOCHREALTIME; echo $((${now/[.,]/} / 1000)); }

STEP='' STEP_BEGAN=0
step() {
  STEP=$1
  STEP_BEGAN=$(millis)
  printf '\n== %s\n' "$STEP"
}
done_() {
  local took=$(($(millis) - STEP_BEGAN))
  printf -- '-- %s (%d.%03d s)\n' "${1:-done}" $((took / 1000)) $((took % 1000))
}
fail() {
  printf '\nquickstart: %s\n' "$1" >&2
  [ -z "${2:-}" ] || { echo "the end of $2:" >&2 && tail -n 25 "$2" >&2; }
  printf 'Run it again to go on from here; %s --down %s takes everything down.\n' "$0" "$FOLDER" >&2
  exit 1
}
ended() {
  local code=$?
  # Nobody is left to look at what it writes.
  client_stop || true
  [ $code = 0 ] || [ -z "$STEP" ] || [ $code = 1 ] || printf '\nquickstart: "%s" ended with code %d\n' "$STEP" $code >&2
}
trap ended EXIT

# --- the end of it --------------------------------------------------------------------------------------------------

down() {
  local pid waited=0 name
  if [ ! -e "$FOLDER" ]; then
    net_down
    echo "nothing to take down: there is no $FOLDER"
    return
  fi
  [ -e "$FOLDER/.trove-quickstart" ] || { echo "quickstart: $FOLDER is not one of mine, so I leave it" >&2 && exit 1; }
  step "taking down $FOLDER"
  for name in client witness watch1 watch2 agent1 agent2; do
    if running $name; then kill "$(cat "$FOLDER/$name.pid")" 2>/dev/null || true; fi
  done
  # A database outlives its agent by design, so it is ended by itself, in order.
  sleep 0.5
  for pid in $(ours); do kill "$pid" 2>/dev/null || true; done
  while [ -n "$(ours)" ] && [ $waited -lt 300 ]; do
    waited=$((waited + 1))
    sleep 0.1
  done
  for pid in $(ours); do kill -KILL "$pid" 2>/dev/null || true; done
  net_down
  rm -rf "$FOLDER"
  done_ "ended and deleted"
}

[ "$(id -u)" = 0 ] || { echo "quickstart: must be root: guests live in network namespaces, and the database has a user of its own" >&2 && exit 1; }
if [ $DOWN = 1 ]; then
  down
  exit 0
fi

# --- 1. what is needed ------------------------------------------------------------------------------------------------

step "installing what is missing"
need_packages gcc:gcc openssl:openssl ip:iproute2 rabbitmq-server:rabbitmq-server mariadbd:mariadb-server \
  mariadb-install-db:mariadb-server mariadb:mariadb-client mariadb-backup:mariadb-backup setpriv:util-linux
need_file /usr/include/stdio.h libc6-dev
need_rust 1.95
done_

mkdir -p "$FOLDER"
chmod 755 "$FOLDER"
# The database's user must be able to walk to our folder.
setpriv --reuid mysql --regid mysql --clear-groups test -x "$FOLDER" 2>/dev/null ||
  fail "the database's user mysql may not enter $FOLDER (a folder above it is closed); give another: $0 /var/tmp/quickstart"
# A socket's path may have 107 bytes.
[ ${#FOLDER} -le 60 ] || fail "the path $FOLDER is too long for a socket below it; give a shorter one: $0 /var/tmp/quickstart"
touch "$FOLDER/.trove-quickstart"

step "building the agent and the client (cargo build --profile quick; some minutes if nothing is built yet)"
# Backups go to a folder here: the stores on a network are left out, which saves minutes.
cargo build --locked --profile quick --no-default-features -p trove-guestagent -p lab-writer --bins
done_ "$(stat -c '%s' "$AGENT" | awk '{printf "%.1f MB: %s", $1 / 1e6, "'"${AGENT#"$TOP"/}"'"}')"

# --- 2. a small cloud ---------------------------------------------------------------------------------------------------

step "hosts: two guests, broker, witness, client, on a management and a data network"
net_up || fail "network namespaces could not be made here (in a container they need CAP_NET_ADMIN and CAP_SYS_ADMIN)" "$LOG"
done_ "namespaces $NS-*"

step "starting a private RabbitMQ"
if accepts bk 10.76.0.2 5672; then
  done_ "runs already"
else
  export BROKER_ADDRESS=10.76.0.2
  ns bk "$TOP/tests/lib/broker.sh" start "$FOLDER/broker" 5672 >>"$LOG" 2>&1 || fail "RabbitMQ did not start" "$LOG"
  done_ "on $NS-bk, 10.76.0.2:5672"
fi

step "starting two guest agents"
(
  umask 077
  # The control plane's side knows the bus only; the keys are given with each call.
  printf '[DEFAULT]\ntransport_url = %s\ncontrol_exchange = trove\nguest_id = controller\ndatastore_manager = none\n' "$BUS" >"$FOLDER/controller.conf"
)
for n in 1 2; do
  guest_files $n
  running watch$n || background watch$n bk "$AGENT" --config-file "$FOLDER/controller.conf" conductor watch --key-file "$FOLDER/g$n/key"
  running agent$n || background agent$n g$n "$AGENT" --config-dir "$FOLDER/g$n/conf.d"
done
for n in 1 2; do
  until_ 30 pings $n || fail "the agent of guest $n does not answer" "$FOLDER/agent$n.log"
done
done_ "$(id_of 1) and $(id_of 2) answer a ping over the bus"

# --- 3. taskmanager -----------------------------------------------------------------------------------------------------

step "taskmanager: prepare, with a database shop and a user alice on the first"
random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
# The password is made here and kept in files that only we can read.
if [ ! -s "$FOLDER/password" ]; then (umask 077 && random 12 >"$FOLDER/password"); fi
for n in 1 2; do prepare $n || fail "prepare could not be sent to guest $n" "$LOG"; done
for n in 1 2; do
  [ -e "$FOLDER/g$n/prepared" ] || until_ 120 settled $n || fail "no end of prepare was reported within two minutes" "$FOLDER/agent$n.log"
  [ -e "$FOLDER/g$n/prepared" ] || reported $n healthy || fail "guest $n failed" "$FOLDER/agent$n.log"
  touch "$FOLDER/g$n/prepared"
done
grep "$(id_of 1)" "$FOLDER/watch1.log" | grep -v ping | tail -n 2
done_ "the conductor was told of both: healthy"

# --- 4. a backup -----------------------------------------------------------------------------------------------------------

if [ -e "$FOLDER/paired" ] || [ -e "$FOLDER/restored" ]; then
  step "backup and restore: shown by the first run"
  done_ "a member of a pair is not restored"
else
  step "operator: backup create; DROP DATABASE; backup restore"
  backup_and_restore || fail "the data did not come back" "$FOLDER/agent1.log"
  touch "$FOLDER/restored"
  done_ "all rows are there again"
fi

# --- 5. the pair ----------------------------------------------------------------------------------------------------------

has_pair() { pair status "$1" 2>>"$LOG" | grep -q "^pair  "; }
if [ -e "$FOLDER/paired" ]; then
  step "the pair is there"
elif has_pair 1 && has_pair 2 && [ -s "$FOLDER/witness.key" ]; then
  step "the pair of the last run, which was ended in the middle of it, is made by the guests alone"
else
  step "operator: pair create"
  if has_pair 1; then pair dissolve 1 >>"$LOG" 2>&1 || true; fi
  rm -f "$FOLDER/witness.key"
  printf '$ trove-guestagent pair create --source %s --replica %s \\\n    --vip %s --vip %s --durability durable --failover automatic --witness 10.77.0.50:4460\n' \
    "$(id_of 1)" "$(id_of 2)" "$VIP/24" "$VIP6/64"
  ns bk "$AGENT" --config-file "$FOLDER/controller.conf" pair create --source "$(id_of 1)" --replica "$(id_of 2)" \
    --vip "$VIP/24" --vip "$VIP6/64" --durability durable --failover automatic --witness 10.77.0.50:4460 \
    --witness-key-file "$FOLDER/witness.key" --key-file "$FOLDER/g1/key" --peer-key-file "$FOLDER/g2/key" \
    --timeout 60 >>"$LOG" 2>"$FOLDER/create.err" || fail "the pair was not made" "$FOLDER/create.err"
fi
touch "$FOLDER/paired"
mkdir -p "$FOLDER/witness"
running witness || background witness wt "$AGENT" witness --listen 10.77.0.50:4460 --key-file "$FOLDER/witness.key" --state-dir "$FOLDER/witness"
until_ 90 whole || { pair status 1; fail "the pair is not whole within 90 s" "$FOLDER/agent2.log"; }
pair status 1
done_ "one source, one replica that follows it, one witness"

step "SQL as alice through the service address"
client_files
{ sql --table | sed 's/^/  /'; } <<END || fail "alice could not work in her database" "$FOLDER/agent1.log"
CREATE TABLE IF NOT EXISTS shop.seq (id BIGINT UNSIGNED PRIMARY KEY, payload VARBINARY(64) NOT NULL, server_id INT UNSIGNED NOT NULL);
SELECT CURRENT_USER() AS i_am, '$VIP' AS connected_to, @@version AS server, COUNT(*) AS rows_so_far FROM shop.seq;
END
done_

# --- 6. what it is for ------------------------------------------------------------------------------------------------------

step "a client writes 200 rows a second through $VIP"
client_start
until_ 20 acknowledged 400 || fail "the client has too few writes acknowledged" "$FOLDER/client.log"
done_ "$(acks) writes acknowledged"

step "operator: pair switchover"
from=$(source_now)
to=$((3 - from))
mark
printf '$ trove-guestagent pair switchover --guest %s\n' "$(id_of $to)"
pair switchover $to || fail "no switchover" "$FOLDER/agent$to.log"
until_ 30 written_by $to || fail "the client does not write to guest $to" "$FOLDER/agent$to.log"
sleep 1
echo
pair status $to
verdict "planned switchover"
SWITCHOVER=$GAP
done_ "guest $from > guest $to"

until_ 60 whole || fail "the pair is not whole after the switchover" "$FOLDER/agent$from.log"

step "a disaster: kill -9 of the source's database"
from=$to
to=$((3 - from))
victim=$(database_pid $from)
[ -n "$victim" ] || fail "guest $from has no database process"
mark
printf '$ kill -9 %s\n' "$victim"
kill -KILL "$victim"
until_ 60 written_by $to || fail "nobody took over from guest $from" "$FOLDER/agent$to.log"
sleep 1
verdict "database killed"
FAILOVER=$GAP
done_ "guest $from > guest $to, by themselves"

step "the killed one comes back by itself"
until_ 120 whole || { pair status $to; fail "guest $from has not rejoined within two minutes" "$FOLDER/agent$from.log"; }
pair status $to
client_stop
LOST=$(lost)
[ "$LOST" = 0 ] || fail "$LOST acknowledged writes are not there" "$FOLDER/agent$to.log"
same_rows || fail "the two guests do not hold the same rows" "$FOLDER/agent$from.log"
done_ "guest $from follows guest $to; both hold the same $(acks) acknowledged writes; the client is stopped"

# --- 7. how to go on ----------------------------------------------------------------------------------------------------------

short=${AGENT#"$TOP"/}
STEP=
keys="--guest $(id_of 1) --key-file $FOLDER/g1/key"
wrapper() { # NAME WORDS
  printf '#!/bin/sh\nexec nsenter --net=/run/netns/%s-bk %s --config-file %s %s\n' "$NS" "$AGENT" "$FOLDER/controller.conf" "$2" >"$FOLDER/$1"
  chmod 700 "$FOLDER/$1"
}
# The operator's command line, on the broker's host.
wrapper operator '"$@"'
wrapper pair "pair \"\$@\" $keys --peer-key-file $FOLDER/g2/key"
cat <<END

Longest time without an acknowledged write, at 200 writes/s:  switchover $SWITCHOVER ms,  kill -9 $FAILOVER ms;  lost: $LOST of $(acks)
Ready after $((SECONDS - BEGAN)) s. Look around:

  $FOLDER/pair status --watch
  $FOLDER/pair switchover
  $FOLDER/operator backup list $keys
  $FOLDER/operator conductor watch --key-file $FOLDER/g1/key
  $FOLDER/operator call get_filesystem_stats $keys
  $short --config-dir $FOLDER/g1/conf.d status
  nsenter --net=/run/netns/$NS-cl mariadb --defaults-extra-file=$FOLDER/client.cnf shop
  ip -n $NS-g1 address;  ip -n $NS-g2 address
  tail -f $FOLDER/agent1.log $FOLDER/agent2.log

Once more: the same command.  Take it down:  ./packaging/quickstart.sh --down $FOLDER
END
