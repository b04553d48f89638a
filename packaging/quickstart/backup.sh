# shellcheck shell=bash
# Sourced by quickstart.sh: a backup, a disaster for the data, and the way back. Uses FOLDER, AGENT, LOG and hosts.sh.

# backup VERB GUEST [ARGUMENT...]: the operator's command.
backup() {
  local verb=$1 n=$2
  shift 2
  ns bk "$AGENT" --config-file "$FOLDER/controller.conf" backup "$verb" --guest "$(id_of "$n")" --key-file "$FOLDER/g$n/key" --timeout 60 "$@"
}

# direct ARGUMENT... < STATEMENTS: as alice, at the first guest itself: there is no service address yet.
direct() { ns cl mariadb --defaults-extra-file="$FOLDER/client.cnf" --host=10.77.0.11 --connect-timeout=5 "$@"; }

# A key of the guest's own: what leaves it is encrypted.
backup_key() { # GUEST
  local file=$FOLDER/g$1/backup.keys
  [ -s "$file" ] || (umask 077 && printf 'first %s\n' "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" >"$file")
  mkdir -p "$FOLDER/backups"
}

orders() { direct -N -B <<<'SELECT COUNT(*), COALESCE(SUM(CRC32(CONCAT(id, item))), 0) FROM shop.orders' 2>>"$LOG"; }

# shipped NUMBER: that transaction is in the store.
shipped() { backup window 1 --json 2>>"$LOG" | tr -d ' \n' | grep -q "\"position\":\"[^\"]*-$1\""; }

backup_and_restore() {
  local id before moment wanted
  client_files
  direct 2>>"$LOG" <<END || return
-- A run that ended in the middle may have left it dropped.
CREATE DATABASE IF NOT EXISTS shop;
CREATE TABLE IF NOT EXISTS shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, item VARCHAR(40) NOT NULL);
INSERT INTO shop.orders (item) SELECT CONCAT('item ', seq) FROM shop.seq_1_to_5000;
END
  id=$(cat /proc/sys/kernel/random/uuid)
  printf '$ trove-guestagent backup create --guest %s\n' "$(id_of 1)"
  backup create 1 --id "$id" --name quickstart || return
  wanted=$(orders)
  direct <<<"INSERT INTO shop.orders (item) SELECT CONCAT('written after the backup ', seq) FROM shop.seq_1_to_1000" || return
  before=$(orders)
  moment=$(direct -N -B <<<'SELECT @@gtid_binlog_pos')
  printf '$ mariadb -e "DROP DATABASE shop"\n'
  direct <<<'DROP DATABASE shop' || return
  if orders >/dev/null; then return 1; fi
  echo "  the rows are gone"
  # The log is in the store a second later; its last transaction is the DROP.
  until_ 30 shipped "$(($(direct -N -B <<<'SELECT SUBSTRING_INDEX(@@gtid_binlog_pos, "-", -1)')))" || return
  printf '$ trove-guestagent backup restore --to-gtid %s --guest %s\n' "$moment" "$(id_of 1)"
  if backup restore 1 --to-gtid "$moment"; then
    wanted=$before
  else
    echo "  the log could not be replayed, so the backup alone is restored: what was written after it is lost"
    printf '$ trove-guestagent backup restore %s --guest %s\n' "$id" "$(id_of 1)"
    backup restore 1 "$id" || return
  fi
  until_ 30 orders >/dev/null || return
  [ "$(orders)" = "$wanted" ] || return
  direct --table <<<"SELECT COUNT(*) AS rows_again, SUM(item LIKE 'written after%') AS written_after_the_backup FROM shop.orders" | sed 's/^/  /'
}
