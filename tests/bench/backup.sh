#!/usr/bin/env bash
# The figures of backups beside a bare shell pipe and beside upstream's own pipe, as one table:
#
#   ./tests/bench/backup.sh          300 MB of data, a synthetic stream of 5 GB
#   ./tests/bench/backup.sh full     2 GB of data, a synthetic stream of 50 GB
#
# Starts a database of its own without network, in a folder of its own. What each line means stands in README.md beside this file.
# Exit code 0: every figure is met.
set -euo pipefail
cd "$(dirname "$0")/../.."
TOP=$PWD
# shellcheck source=tests/lib/bench.sh
. "$TOP/tests/lib/bench.sh"
need_packages python3:python3 gcc:gcc mariadbd:mariadb-server mariadb-install-db:mariadb-server mariadb:mariadb-client \
  mariadb-backup:mariadb-backup zstd:zstd gzip:gzip
need_file /usr/include/stdio.h libc6-dev
need_rust 1.95

# The profile of the quickstart: the libraries that compress and seal are the same code in all optimised profiles.
TROVE_BENCH_PIPE=$(cargo build --locked --profile quick --bench backup --message-format json |
  "$PYTHON" -c 'import json, sys
print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "backup"][-1])')
export TROVE_BENCH_PIPE
# What computes in a backup makes way for others; beside others only who does the same can be compared with it.
exec nice -n 10 "$PYTHON" "$TOP/tests/lib/reap.py" "$PYTHON" "$TOP/tests/bench/backup.py" "$LEVEL"
