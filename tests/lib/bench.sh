# shellcheck shell=bash
# Sourced by the benchmarks that take [quick|full]: sets LEVEL and the environment they share. TOP is the checkout.

LEVEL=${1:-quick}
case $LEVEL in quick | full) ;; *)
  echo "usage: $0 [quick|full]" >&2
  exit 2
  ;;
esac
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$TOP/target}
export PATH=$PATH:/usr/sbin:/sbin PYTHONDONTWRITEBYTECODE=1 CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

# shellcheck source=tests/lib/install.sh
. "$TOP/tests/lib/install.sh"
