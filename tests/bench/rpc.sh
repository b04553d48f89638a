#!/usr/bin/env bash
# The figures of the agent's main job, beside their targets and peers, as one table:
#
#   ./tests/bench/rpc.sh          the quick run
#   ./tests/bench/rpc.sh full     all counts as README.md says, with a cold build
#
# Builds the release agent and the raw caller, starts a broker of its own on a free loopback port, ends every process it
# started. What each line means stands in README.md beside this file. Exit code 0: every figure is met.
set -euo pipefail
cd "$(dirname "$0")/../.."
TOP=$PWD
# shellcheck source=tests/lib/bench.sh
. "$TOP/tests/lib/bench.sh"
VENV=$CARGO_TARGET_DIR/venv
need_packages python3:python3 gcc:gcc nm:binutils rabbitmq-server:rabbitmq-server mariadbd:mariadb-server \
  mariadb-install-db:mariadb-server setpriv:util-linux
need_file /usr/include/stdio.h libc6-dev
need_python_venv
need_rust 1.95
upstream_venv

# With its symbols, for the account of its parts; the table counts the stripped size.
CARGO_PROFILE_RELEASE_STRIP=none cargo build --locked --release \
  --package trove-guestagent --features trove-guestagent/systemd --bin trove-guestagent --package rpc-load --bin rpc-load >&2
export TROVE_TEST_AGENT=${TROVE_TEST_AGENT:-$CARGO_TARGET_DIR/release/trove-guestagent}
export TROVE_BENCH_RPC=$CARGO_TARGET_DIR/release/rpc-load
export PYTHONPATH=$TOP/tests/bench:$TOP/tests/upstream
exec "$PYTHON" "$TOP/tests/lib/reap.py" "$VENV/bin/python" "$TOP/tests/bench/rpc.py" "$LEVEL"
