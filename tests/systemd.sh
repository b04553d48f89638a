#!/usr/bin/env bash
# The services under a real systemd: boots a small Debian in a container and runs tests/host_systemd.rs in it.
#
#   sudo ./tests/systemd.sh
#
# Needs mmdebstrap and systemd-container, root, and the network the first time (the image is kept in target/systemd-root).
# Leaves the machine as it was: the container has a root, a network and process numbers of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
TARGET=${CARGO_TARGET_DIR:-$PWD/target}
ROOT=$TARGET/systemd-root
NAME=trove-host-test-$$
for tool in mmdebstrap systemd-nspawn nsenter; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install mmdebstrap systemd-container util-linux" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "must be root" >&2; exit 2; }

if [ ! -e "$ROOT/.complete" ]; then
  rm -rf "$ROOT"
  timeout 600 mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus bookworm "$ROOT"
  touch "$ROOT/.complete"
fi
test_binary=$(cargo test --package trove-guestagent --features systemd --test host_systemd --no-run 2>&1 |
  sed -n 's/.*Executable .*(\(.*\))$/\1/p')
install -m 755 "$test_binary" "$ROOT/usr/bin/host_systemd"
install -m 644 systemd/trove-guestagent.service "$ROOT/etc/systemd/system/"
# The unit names a program that is not in the image; what it does is not tested here.
printf '#!/bin/sh\nexec sleep 300\n' >"$ROOT/usr/bin/trove-guestagent"
chmod 755 "$ROOT/usr/bin/trove-guestagent"

# A control group of its own, or the container's folders meet ours.
groups=()
boot=
leader=
down() {
  if [ -n "$leader" ]; then
    nsenter -t "$leader" -m -u -i -n -p -r -w systemctl poweroff >/dev/null 2>&1 || true
    for _ in $(seq 100); do kill -0 "$boot" 2>/dev/null || break; sleep 0.1; done
  fi
  [ -z "$boot" ] || kill -KILL "$boot" 2>/dev/null || true
  for group in "${groups[@]}"; do
    find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done
}
trap down EXIT
for top in /sys/fs/cgroup/ /sys/fs/cgroup/*/; do
  # Links are other names of a controller's folder.
  if [ ! -e "$top/cgroup.procs" ] || [ -L "${top%/}" ]; then continue; fi
  mkdir -p "$top/$NAME"
  groups+=("$top/$NAME")
  if [ -e "$top/$NAME/cpuset.cpus" ]; then
    cat "$top/cpuset.cpus" >"$top/$NAME/cpuset.cpus" 2>/dev/null || true
    cat "$top/cpuset.mems" >"$top/$NAME/cpuset.mems" 2>/dev/null || true
  fi
done
(
  for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
  exec env SYSTEMD_NSPAWN_API_VFS_WRITABLE=network systemd-nspawn --boot --directory="$ROOT" --machine="$NAME" \
    --private-network --register=no --keep-unit --console=pipe --link-journal=no </dev/null
) >"$TARGET/systemd-console.log" 2>&1 &
boot=$!
for _ in $(seq 300); do
  leader=$(ps -o pid= --ppid "$boot" | head -n 1 | tr -d " " || true)
  if [ -n "$leader" ] && nsenter -t "$leader" -m -u -i -n -p -r -w systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; then
    break
  fi
  kill -0 "$boot" 2>/dev/null || { cat "$TARGET/systemd-console.log" >&2; exit 1; }
  sleep 0.1
done
inside() { timeout 300 nsenter -t "$leader" -m -u -i -n -p -r -w "$@"; }
inside systemctl --version | head -n 1
inside systemd-analyze verify trove-guestagent.service
inside env HOST_TEST_SYSTEMD=1 /usr/bin/host_systemd
