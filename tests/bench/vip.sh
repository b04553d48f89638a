#!/usr/bin/env bash
# How long nobody answers when the VIP moves, as one table (README.md beside this file):
#
#   ./tests/bench/vip.sh          200 moves of each kind and family, and two of each without announcing: about five minutes
#   ./tests/bench/vip.sh quick    40 moves, none without announcing: half a minute
#
# Needs root: it makes network namespaces. Exit code 0: every target is met.
set -euo pipefail
cd "$(dirname "$0")/../.."
TOP=$PWD
case ${1:-full} in
  full) ;;
  quick) export TROVE_BENCH_MOVES=40 TROVE_BENCH_SILENT=0 ;;
  *)
    echo "usage: $0 [quick]" >&2
    exit 2
    ;;
esac
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
# shellcheck source=tests/lib/install.sh
. "$TOP/tests/lib/install.sh"
need_packages python3:python3 gcc:gcc ip:iproute2 nsenter:util-linux
need_rust 1.95
exec cargo bench --quiet --locked --profile "${TROVE_BENCH_PROFILE:-quick}" --bench vip
