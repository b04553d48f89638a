# shellcheck shell=bash disable=SC2034
# Sourced by quickstart.sh: hosts as network namespaces, processes on them, guests. Uses FOLDER, AGENT, LOG.
#
#   sw         the bridges: management (10.76.0.0/24) and data (10.77.0.0/24, fd77::/64)
#   bk         broker and operator, management only
#   g1 g2 wt   guests and witness, both: eth0 is management, eth1 is data
#   cl         the client, data only

# One set for each folder, so that several may stand at once.
NS=tgq$(printf '%s' "$FOLDER" | cksum | cut -d' ' -f1)
HOSTS="bk:2:m g1:11:md g2:12:md wt:50:md cl:100:d"
BUS=rabbit://guest:guest@10.76.0.2:5672//
VIP=10.77.0.200
VIP6=fd77::200

# --- network ---

ns() { # HOST COMMAND...
  local host=$1
  shift
  nsenter --net="/run/netns/$NS-$host" -- "$@"
}

net_up() {
  local entry host number nets name
  # What is half made by a run that ended is made anew; a whole one is kept.
  if [ -e "$FOLDER/net" ] && [ -e "/run/netns/$NS-sw" ]; then return; fi
  net_down
  rm -rf "$FOLDER"/g?/root{/run,/var/run}
  {
    ip netns add "$NS-sw" &&
      ip -n "$NS-sw" link add br-m up type bridge mcast_snooping 0 forward_delay 0 &&
      ip -n "$NS-sw" link add br-d up type bridge mcast_snooping 0 forward_delay 0 || return
    for entry in $HOSTS; do
      IFS=: read -r host number nets <<<"$entry"
      name=$NS-$host
      ip netns add "$name" && ip -n "$name" link set lo up || return
      case $nets in *m*)
        cable "$host" m eth0 && ip -n "$name" address add "10.76.0.$number/24" dev eth0 || return
        ;;
      esac
      case $nets in *d*)
        cable "$host" d eth1 && ip -n "$name" address add "10.77.0.$number/24" dev eth1 &&
          ip -n "$name" address add "fd77::$number/64" dev eth1 nodad || return
        ;;
      esac
    done
  } >>"$LOG" 2>&1
  touch "$FOLDER/net"
}

cable() { # HOST NET NIC
  ip -n "$NS-sw" link add "$2-$1" type veth peer name "$3" netns "$NS-$1" &&
    ip -n "$NS-sw" link set "$2-$1" up master "br-$2" && ip -n "$NS-$1" link set "$3" up
}

net_down() {
  local path
  for path in /run/netns/"$NS"-*; do
    [ ! -e "$path" ] || ip netns del "${path##*/}" || true
  done
}

# accepts HOST ADDRESS PORT: somebody listens there.
accepts() { ns "$1" bash -c "exec 3<>/dev/tcp/$2/$3" 2>/dev/null; }

# --- processes ---

# names_us PID: its command line names a file in our folder.
names_us() { { tr '\0' '\n' <"/proc/$1/cmdline" | grep -qF "$FOLDER/"; } 2>/dev/null; }

# running NAME: its process lives and is the one we started (its command line names our folder).
running() {
  local pid
  pid=$(cat "$FOLDER/$1.pid" 2>/dev/null) || return 1
  names_us "$pid"
}

# background NAME HOST COMMAND...: survives this script; its output goes to NAME.log.
background() {
  local name=$1 host=$2
  shift 2
  setsid nsenter --net="/run/netns/$NS-$host" -- "$@" >>"$FOLDER/$name.log" 2>&1 </dev/null &
  echo $! >"$FOLDER/$name.pid"
}

# ours: ids of the processes that we and our agents started: by name, and on one of our hosts or about a file in our folder. A
# shell or a pager of somebody who looks around is not among them.
ours() {
  local dir nets=" "
  for dir in /run/netns/"$NS"-*; do nets+="$(stat -Lc %i "$dir" 2>/dev/null) "; done
  for dir in /proc/[0-9]*; do
    case $(cat "$dir/comm" 2>/dev/null) in
    trove-guestagen* | mariadbd | mariadb-install* | mariadb-backup | mbstream | beam.smp | epmd | erl_child_setup | inet_gethost | lab-writer)
      if [[ $nets == *" $(stat -Lc %i "$dir/ns/net" 2>/dev/null || echo -) "* ]] || names_us "${dir#/proc/}"; then echo "${dir#/proc/}"; fi
      ;;
    esac
  done
}

database_pid() { # GUEST
  local pid
  for pid in $(ip netns pids "$NS-g$1"); do
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != mariadbd ] || echo "$pid"
  done
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

# --- guests ---

id_of() { cat "$FOLDER/g$1/id"; }

# What Trove would inject into the virtual machine, and the operator's part.
guest_files() { # GUEST
  local dir=$FOLDER/g$1
  mkdir -p "$dir/conf.d" "$dir/root"
  [ -s "$dir/id" ] || cat /proc/sys/kernel/random/uuid >"$dir/id"
  (
    umask 077
    [ -s "$dir/key" ] || od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$dir/key"
    cat >"$dir/conf.d/guest_info.conf" <<END
[DEFAULT]
guest_id=$(id_of "$1")
datastore_manager=mariadb
datastore_version=10.11
instance_rpc_encr_key=$(cat "$dir/key")
END
    # The last section is ours: it lets a guest live in a folder, and says which NIC is the data network's.
    cat >"$dir/conf.d/trove-guestagent.conf" <<END
[DEFAULT]
transport_url = $BUS
control_exchange = trove
report_interval = 5

[mariadb]
volume_support = false
database_service_uname = mysql

[trove_guestagent]
root = $dir/root
supervisor = supervised
data_interface = eth1
backup_storage = file://$FOLDER/backups
backup_key_file = $dir/backup.keys
backup_log = true
END
  )
  backup_key "$1"
}

# As the taskmanager would: over the bus, encrypted with the guest's key. Arguments from standard input, so that no password
# shows in the list of processes.
ask() { # GUEST METHOD < JSON
  ns bk "$AGENT" --config-file "$FOLDER/controller.conf" call "$2" --guest "$(id_of "$1")" --key-file "$FOLDER/g$1/key" --json - --compact 2>>"$LOG"
}
pings() { running "agent$1" && [ "$(ask "$1" rpc_ping <<<'{}')" = true ]; }
reported() { grep "$(id_of "$1")" "$FOLDER/watch$1.log" | grep -q "heartbeat .*$2"; }
settled() { reported "$1" healthy || reported "$1" failed; }

prepare() { # GUEST
  local databases='' users=''
  [ ! -e "$FOLDER/g$1/prepared" ] || return 0
  if [ "$1" = 1 ]; then
    databases='{"_name": "shop", "_character_set": "utf8mb4", "_collate": "utf8mb4_general_ci"}'
    users="{\"_name\": \"alice\", \"_password\": \"$(cat "$FOLDER/password")\", \"_host\": \"%\", \"_databases\": [{\"_name\": \"shop\"}]}"
  fi
  ask "$1" prepare <<END
{"packages": "", "databases": [$databases], "users": [$users], "memory_mb": 512, "device_path": null, "mount_point": "/var/lib/mysql",
 "config_contents": "[mysqld]\ninnodb_buffer_pool_size = 64M\nmax_connections = 50\n", "ds_version": "10.11"}
END
}

# --- the pair ---

# pair VERB GUEST [ARGUMENT...]: the operator's command, asked of one of the two.
pair() {
  local verb=$1 n=$2
  shift 2
  ns bk "$AGENT" --config-file "$FOLDER/controller.conf" pair "$verb" --guest "$(id_of "$n")" \
    --key-file "$FOLDER/g$n/key" --peer-key-file "$FOLDER/g$((3 - n))/key" "$@"
}

# whole: one open source with the address, one replica that follows it, one generation, and nothing to remark.
whole() {
  pair status 1 2>>"$LOG" | awk '
    $2 == "source" && $3 == "open" && $4 == "held" { source++; generation = $5 }
    $2 == "replica" && $3 == "closed" && $4 == "released" && $6 ~ /^[0-9]/ { replica++; follows = $5 }
    END { exit !(source == 1 && replica == 1 && generation == follows) }'
}

# source_now: the number of the guest that is the source.
source_now() { if pair status 1 | grep -q "^ *$(id_of 1)  *source"; then echo 1; else echo 2; fi; }
