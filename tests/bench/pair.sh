#!/usr/bin/env bash
# The figures of the pair, beside their targets and beside a hand-written script on the same machine, as one table:
#
#   ./tests/bench/pair.sh          the quick run
#   ./tests/bench/pair.sh full     all counts as README.md says
#
# Needs root: the hosts are network namespaces (tests/lab). Exit code 0: every figure is met and nothing acknowledged was lost.
set -euo pipefail
cd "$(dirname "$0")/../.."
TOP=$PWD
# shellcheck source=tests/lib/bench.sh
. "$TOP/tests/lib/bench.sh"
need_packages python3:python3 gcc:gcc rabbitmq-server:rabbitmq-server mariadbd:mariadb-server mariadb-install-db:mariadb-server \
  mariadb:mariadb-client mariadb-backup:mariadb-backup setpriv:util-linux ip:iproute2 nft:nftables
need_file /usr/include/stdio.h libc6-dev
need_rust 1.95

# The profile of the quickstart: optimised, and built in a quarter of the release's time; what is measured waits for others.
cargo build --locked --profile quick --package trove-guestagent --bin trove-guestagent --package lab-writer --bin lab-writer >&2
export TROVE_TEST_AGENT=${TROVE_TEST_AGENT:-$CARGO_TARGET_DIR/quick/trove-guestagent}
export TROVE_LAB_WRITER=$CARGO_TARGET_DIR/quick/lab-writer
export PYTHONPATH=$TOP/tests/lab
exec "$PYTHON" "$TOP/tests/lib/reap.py" "$PYTHON" "$TOP/tests/bench/pair.py" "$LEVEL"
