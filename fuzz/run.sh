#!/usr/bin/env bash
# Runs the fuzz targets for a bounded time each, with the toolchain as installed (no nightly, no cargo-fuzz):
#
#   ./fuzz/run.sh                     all targets, 60 seconds each
#   ./fuzz/run.sh 600 oslo_config     one of them, ten minutes
#
# A finding ends the run with an error and is kept in target/fuzz/artifacts/.
set -euo pipefail
cd "$(dirname "$0")/.."
SECONDS_EACH=${1:-60}
[ $# -eq 0 ] || shift
TARGETS=("$@")
[ ${#TARGETS[@]} -gt 0 ] || TARGETS=(envelope crypto transport_url oslo_config method_args)
HOST=$(rustc -vV | sed -n 's/^host: //p')
WORK=${CARGO_TARGET_DIR:-$PWD/target}/fuzz

# What cargo-fuzz passes, less the sanitizer that only nightly has: our code is free of `unsafe`, so what is to be found is
# a panic, an overflow, a broken promise, a hang or too much memory. With --target, build scripts stay as they are.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
 -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTFLAGS=${RUSTFLAGS//$'\n'/}
BINS=()
for target in "${TARGETS[@]}"; do BINS+=(--bin "$target"); done
cargo build --release --locked --manifest-path fuzz/Cargo.toml --target "$HOST" --target-dir "$WORK/build" "${BINS[@]}"

for target in "${TARGETS[@]}"; do
  mkdir -p "$WORK/corpus/$target" "$WORK/artifacts/$target"
  echo "== $target, $SECONDS_EACH s"
  "$WORK/build/$HOST/release/$target" -max_total_time="$SECONDS_EACH" -timeout=5 -rss_limit_mb=1024 -max_len=4096 \
    -print_final_stats=1 -artifact_prefix="$WORK/artifacts/$target/" "$WORK/corpus/$target" "fuzz/seeds/$target"
done
