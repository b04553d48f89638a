# shellcheck shell=bash
# Sourced by quickstart.sh: the client that writes through the service address, and what its records say. Uses FOLDER, WRITER, VIP.
#
# A record has a line for each acknowledged write: A id server sent acknowledged first-sent tries (microseconds).

client_files() {
  (
    umask 077
    printf '[client]\nprotocol = tcp\nhost = %s\nport = 3306\nuser = alice\npassword = "%s"\n' "$VIP" "$(cat "$FOLDER/password")" >"$FOLDER/client.cnf"
  )
}

# sql ARGUMENT... < STATEMENTS: as alice, through the service address.
sql() { ns cl mariadb --defaults-extra-file="$FOLDER/client.cnf" --connect-timeout=5 "$@"; }

client_start() {
  local next
  client_stop
  next=$(($(sql -N -B <<<'SELECT COALESCE(MAX(id), 0) FROM shop.seq') + 1))
  RECORD=$FOLDER/record-$(date +%s)
  # It ends when its standard input does: a pipe of its own, that it holds open itself.
  [ -p "$FOLDER/client.in" ] || mkfifo "$FOLDER/client.in"
  setsid nsenter --net="/run/netns/$NS-cl" -- "$WRITER" --host "$VIP" --user alice --password-file "$FOLDER/password" \
    --table shop.seq --record "$RECORD" --first-id "$next" --rate 200 <>"$FOLDER/client.in" >>"$FOLDER/client.log" 2>&1 &
  echo $! >"$FOLDER/client.pid"
}

client_stop() {
  running client || return 0
  kill "$(cat "$FOLDER/client.pid")"
  until_ 10 client_ended
}
client_ended() { ! running client; }

# acks: how many writes were acknowledged, by this client and those of earlier runs.
acks() { cat "$FOLDER"/record-* | grep -c '^A'; }
acknowledged() { running client && [ "$(grep -c '^A' "$RECORD" 2>/dev/null)" -ge "$1" ]; }

# mark: what follows is measured from here, and written_by asks for a server that is not the one that takes the writes now.
mark() {
  MARK=$(wc -l <"$RECORD")
  BEFORE=$(tail -n 200 "$RECORD" | awk '$1 == "A" && $3 { server = $3 } END { print server }')
}

# written_by: another server than before has acknowledged a write.
written_by() { tail -n +"$((MARK + 1))" "$RECORD" | awk -v before="$BEFORE" '$1 == "A" && NF >= 7 && $3 && $3 != before { found = 1 } END { exit !found }'; }

# gap: the longest time without an acknowledged write since the mark, milliseconds.
gap() {
  tail -n +"$((MARK > 20 ? MARK - 20 : 1))" "$RECORD" | awk '
    $1 == "A" && NF >= 7 { if (last && $5 - last > longest) longest = $5 - last; last = $5 }
    END { printf "%.0f", longest / 1000 }'
}

# lost: reads everything again, through the service address, and counts the acknowledged writes that are not there.
lost() {
  cat "$FOLDER"/record-* | awk '$1 == "A" && NF >= 7 { print $2 }' >"$FOLDER/acknowledged"
  sql -N -B <<<'SELECT id FROM shop.seq' >"$FOLDER/there" || return
  awk 'NR == FNR { there[$1]; next } !($1 in there) { missing++ } END { print missing + 0 }' "$FOLDER/there" "$FOLDER/acknowledged"
}

# verdict WHAT: prints what it cost the client; a loss ends the script.
verdict() {
  local lost
  GAP=$(gap)
  lost=$(lost) || fail "the rows could not be read again" "$FOLDER/agent1.log"
  printf '%s: longest time without an acknowledged write %s ms, lost: %s of %s acknowledged\n' "$1" "$GAP" "$lost" "$(wc -l <"$FOLDER/acknowledged")"
  [ "$lost" = 0 ] || fail "$lost acknowledged writes are not there"
}

# same_rows: both guests hold the same, the replica too.
same_rows() { until_ 20 same_sums; }
same_sums() {
  local one two
  one=$(sum 1) && two=$(sum 2) && [ -n "$one" ] && [ "$one" = "$two" ]
}
sum() { # GUEST
  local login
  login=$(find "$FOLDER/g$1/root" -name os_admin.cnf | head -n 1)
  ns "g$1" mariadb --defaults-file="$login" --protocol=socket --socket="$FOLDER/g$1/root"/var/run/mysqld/mysqld.sock -N -B \
    -e "SELECT COUNT(*), SUM(CRC32(CONCAT_WS(',', id, payload, server_id))) FROM shop.seq" 2>>"$LOG"
}
