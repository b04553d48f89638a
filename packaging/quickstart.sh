#!/usr/bin/env bash
# From nothing to a MariaDB instance that an (imitated) Trove made, on a fresh Debian 12, in one command:
#
#   ./packaging/quickstart.sh [FOLDER]         builds, starts a private RabbitMQ and one guest, plays taskmanager, shows it
#   ./packaging/quickstart.sh --down [FOLDER]  ends all of it and deletes FOLDER
#
# FOLDER is ./target/quickstart unless given. Everything listens on the loopback only, on ports that were free. Run it again
# after a failure or a reboot: what is done is not done again.
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
DOWN=0
FOLDER=
for word in "$@"; do
  case $word in
  --down) DOWN=1 ;;
  -*)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
  *) FOLDER=$word ;;
  esac
done
TARGET=${CARGO_TARGET_DIR:-$TOP/target}
FOLDER=$(realpath -m "${FOLDER:-$TARGET/quickstart}")
AGENT=$TARGET/quick/trove-guestagent
BROKER=$TOP/tests/lib/broker.sh
LOG=$FOLDER/quickstart.log

# shellcheck source=tests/lib/install.sh
. "$TOP/tests/lib/install.sh"

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
trap 'code=$?; [ $code = 0 ] || [ -z "$STEP" ] || [ $code = 1 ] || printf "\nquickstart: \"%s\" ended with code %d\n" "$STEP" $code >&2' EXIT

# --- processes ------------------------------------------------------------------------------------------------------

# names_us PID: its command line names a file in our folder.
names_us() { { tr '\0' '\n' <"/proc/$1/cmdline" | grep -qF "$FOLDER/"; } 2>/dev/null; }

# running NAME: its process lives and is the one we started (its command line names our folder).
running() {
  local pid
  pid=$(cat "$FOLDER/$1.pid" 2>/dev/null) || return 1
  names_us "$pid"
}

# background NAME COMMAND...: survives this script; its output goes to NAME.log.
background() {
  local name=$1
  shift
  setsid "$@" >>"$FOLDER/$name.log" 2>&1 </dev/null &
  echo $! >"$FOLDER/$name.pid"
}

# ours: ids of the agents, servers and brokers whose command line names a file in our folder. Not of a pager on a log of ours.
ours() {
  local dir
  for dir in /proc/[0-9]*; do
    case $(cat "$dir/comm" 2>/dev/null) in
    trove-guestagen* | mariadbd | mariadb-install* | beam.smp | epmd)
      if names_us "${dir#/proc/}"; then echo "${dir#/proc/}"; fi
      ;;
    esac
  done
}

down() {
  local pid waited=0
  if [ ! -e "$FOLDER" ]; then
    echo "nothing to take down: there is no $FOLDER"
    return
  fi
  [ -e "$FOLDER/.trove-quickstart" ] || { echo "quickstart: $FOLDER is not one of mine, so I leave it" >&2 && exit 1; }
  step "taking down $FOLDER"
  for name in watch agent; do
    if running $name; then kill "$(cat "$FOLDER/$name.pid")" 2>/dev/null || true; fi
  done
  # The database outlives its agent by design, so it is ended by itself, in order.
  sleep 0.5
  [ ! -d "$FOLDER/broker" ] || "$BROKER" stop "$FOLDER/broker" >>"$LOG" 2>&1 || true
  for pid in $(ours); do kill "$pid" 2>/dev/null || true; done
  while [ -n "$(ours)" ] && [ $waited -lt 300 ]; do
    waited=$((waited + 1))
    sleep 0.1
  done
  for pid in $(ours); do kill -KILL "$pid" 2>/dev/null || true; done
  rm -rf "$FOLDER"
  done_ "ended and deleted"
}

if [ $DOWN = 1 ]; then
  down
  exit 0
fi

# --- 1. what is needed ------------------------------------------------------------------------------------------------

step "installing what is missing"
need_packages gcc:gcc openssl:openssl rabbitmq-server:rabbitmq-server mariadbd:mariadb-server \
  mariadb-install-db:mariadb-server mariadb:mariadb-client setpriv:util-linux
need_file /usr/include/stdio.h libc6-dev
need_rust 1.95
done_

# --- 2. the folder ------------------------------------------------------------------------------------------------------

# The database runs as its own user where we may choose one; that user must be able to walk to our folder.
if [ "$(id -u)" = 0 ]; then DB_USER=mysql; else DB_USER=$(id -un); fi
may_enter() {
  [ "$(id -u)" != 0 ] || setpriv --reuid mysql --regid mysql --clear-groups test -x "$1" 2>/dev/null
}
mkdir -p "$FOLDER"
chmod 755 "$FOLDER"
may_enter "$FOLDER" || fail "the database's user $DB_USER may not enter $FOLDER (a folder above it is closed); give another: $0 /var/tmp/quickstart"
# A socket's path may have 107 bytes.
[ ${#FOLDER} -le 60 ] || fail "the path $FOLDER is too long for a socket below it; give a shorter one: $0 /var/tmp/quickstart"
touch "$FOLDER/.trove-quickstart"

# --- 3. build -----------------------------------------------------------------------------------------------------------

step "building the agent (cargo build --profile quick)"
cargo build --locked --profile quick --bin trove-guestagent
done_ "$(stat -c '%s' "$AGENT" | awk '{printf "%.1f MB: %s", $1 / 1e6, "'"${AGENT#"$TOP"/}"'"}')"

# --- 4. RabbitMQ --------------------------------------------------------------------------------------------------------

taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
# port NAME COUNT: a port that was free the first time and is remembered; the COUNT - 1 after it were free as well.
port() {
  local file=$FOLDER/$1.port first i
  if [ ! -s "$file" ]; then
    for _ in $(seq 200); do
      first=$((12000 + RANDOM % 20000))
      for ((i = 0; i < $2; i++)); do
        if taken $((first + i)); then continue 2; fi
      done
      echo $first >"$file"
      break
    done
  fi
  cat "$file"
}

step "starting a private RabbitMQ"
AMQP_PORT=$(port amqp 3)
if taken "$AMQP_PORT"; then
  done_ "runs already on port $AMQP_PORT"
else
  "$BROKER" start "$FOLDER/broker" "$AMQP_PORT" >>"$LOG" 2>&1 || fail "RabbitMQ did not start" "$LOG"
  done_ "on 127.0.0.1:$AMQP_PORT"
fi

# --- 5. one guest -------------------------------------------------------------------------------------------------------

random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
GUEST=$FOLDER/guest
if [ ! -s "$FOLDER/guest_id" ]; then
  cat /proc/sys/kernel/random/uuid >"$FOLDER/guest_id"
fi
GUEST_ID=$(cat "$FOLDER/guest_id")
DB_PORT=$(port database 1)
if [ ! -s "$FOLDER/key" ]; then (umask 077 && random 16 >"$FOLDER/key"); fi
mkdir -p "$GUEST/conf.d" "$GUEST/root"

# What Trove would inject into the virtual machine …
(
  umask 077
  cat >"$GUEST/conf.d/guest_info.conf" <<END
[DEFAULT]
guest_id=$GUEST_ID
datastore_manager=mariadb
datastore_version=10.11
instance_rpc_encr_key=$(cat "$FOLDER/key")
END
  # … and the operator's part. Only the last two sections are ours: they let a guest live in a folder.
  cat >"$GUEST/conf.d/trove-guestagent.conf" <<END
[DEFAULT]
transport_url = rabbit://guest:guest@127.0.0.1:$AMQP_PORT//
control_exchange = trove
report_interval = 5

[mariadb]
volume_support = false
database_service_uname = $DB_USER

[trove_guestagent]
root = $GUEST/root
supervisor = supervised

[datastore]
bind_address = 127.0.0.1
port = $DB_PORT
END
  # The control plane's side knows the bus and the key only.
  cat >"$FOLDER/controller.conf" <<END
[DEFAULT]
transport_url = rabbit://guest:guest@127.0.0.1:$AMQP_PORT//
control_exchange = trove
guest_id = controller
datastore_manager = none
END
)

# As the taskmanager would: over the bus, encrypted with the guest's key. Arguments from standard input, so that no password
# shows in the list of processes.
ask() { # METHOD < JSON
  "$AGENT" --config-file "$FOLDER/controller.conf" call "$1" --guest "$GUEST_ID" --key-file "$FOLDER/key" --json - --compact 2>>"$LOG"
}
# until_ SECONDS COMMAND...: repeats it until it succeeds.
until_() {
  local limit=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $limit ] || return 1
    sleep 0.2
  done
}
pings() { running agent && [ "$(ask rpc_ping <<<'{}')" = true ]; }

step "starting the guest agent"
if ! running watch; then
  background watch "$AGENT" --config-file "$FOLDER/controller.conf" conductor watch --key-file "$FOLDER/key"
fi
if running agent; then
  done_ "runs already, process $(cat "$FOLDER/agent.pid")"
else
  background agent "$AGENT" --config-dir "$GUEST/conf.d"
  until_ 20 pings || fail "the agent does not answer" "$FOLDER/agent.log"
  done_ "guest $GUEST_ID answers a ping over the bus, process $(cat "$FOLDER/agent.pid")"
fi

# --- 6. taskmanager -----------------------------------------------------------------------------------------------------

reported() { grep -q "heartbeat .*$1" "$FOLDER/watch.log"; }
settled() { reported healthy || reported failed; }

step "taskmanager: prepare"
if [ -e "$FOLDER/prepared" ]; then
  done_ "was prepared before"
else
  ask prepare <<END || fail "prepare could not be sent" "$LOG"
{"packages": "", "databases": [], "users": [], "memory_mb": 512, "device_path": null, "mount_point": "/var/lib/mysql",
 "config_contents": "[mysqld]\ninnodb_buffer_pool_size = 64M\nmax_connections = 50\n", "ds_version": "10.11"}
END
  until_ 120 settled || fail "no end of prepare was reported within two minutes" "$FOLDER/agent.log"
  reported healthy || fail "the instance failed" "$FOLDER/agent.log"
  touch "$FOLDER/prepared"
  done_ "the conductor was told: healthy"
fi

step "taskmanager: a database and a user"
# The password is made here and kept in a file that only we can read.
if [ ! -s "$FOLDER/user.cnf" ]; then
  (
    umask 077
    printf '[client]\nprotocol = tcp\nhost = 127.0.0.1\nport = %s\nuser = alice\npassword = "%s"\n' "$DB_PORT" "$(random 12)" >"$FOLDER/user.cnf"
  )
fi
PASSWORD=$(sed -n 's/^password = "\(.*\)"$/\1/p' "$FOLDER/user.cnf")
has_database() { ask list_databases <<<'{}' | grep -q '"shop"'; }
has_user() { ask get_user <<<'{"username": "alice", "hostname": "%"}' | grep -q '"alice"'; }
if ! has_database; then
  ask create_database <<<'{"databases": [{"_name": "shop", "_character_set": "utf8mb4", "_collate": null}]}' || fail "create_database" "$LOG"
  until_ 20 has_database || fail "the database was not made" "$FOLDER/agent.log"
fi
if ! has_user; then
  ask create_user <<<"{\"users\": [{\"_name\": \"alice\", \"_password\": \"$PASSWORD\", \"_host\": \"%\", \"_databases\": [{\"_name\": \"shop\"}]}]}" ||
    fail "create_user" "$LOG"
  until_ 20 has_user || fail "the user was not made" "$FOLDER/agent.log"
fi
done_ "database shop, user alice"

# --- 7. what came of it ---------------------------------------------------------------------------------------------------

step "the conductor's view"
tail -n 12 "$FOLDER/watch.log"
done_

step "SQL as alice over TCP"
mariadb --defaults-extra-file="$FOLDER/user.cnf" --table shop <<'END' || fail "alice could not work in her database" "$FOLDER/agent.log"
CREATE TABLE IF NOT EXISTS visit (n INT AUTO_INCREMENT PRIMARY KEY, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
INSERT INTO visit () VALUES ();
SELECT CURRENT_USER() AS i_am, @@version AS server, COUNT(*) AS visits, MAX(at) AS last_visit FROM visit;
END
done_

short=${AGENT#"$TOP"/}
STEP=
cat <<END

Ready after $((SECONDS - BEGAN)) s. Look around:

  $short --config-dir $GUEST/conf.d status
  $short --config-dir $GUEST/conf.d check
  $short methods
  $short --config-file $FOLDER/controller.conf call get_filesystem_stats --guest $GUEST_ID --key-file $FOLDER/key
  $short --config-file $FOLDER/controller.conf conductor watch --key-file $FOLDER/key
  mariadb --defaults-extra-file=$FOLDER/user.cnf shop
  tail -f $FOLDER/agent.log

Take it down:  ./packaging/quickstart.sh --down $FOLDER
END
