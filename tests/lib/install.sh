# shellcheck shell=bash
# Sourced: installs what is missing on Debian 12. Used by tests/check.sh, tests/bench/rpc.sh and packaging/quickstart.sh.

# Debian's own interpreter: a fresh machine has no other, and its venv module is a package we can install.
PYTHON=/usr/bin/python3

# need_packages COMMAND:PACKAGE...: installs the packages whose command is missing, without starting their services.
need_packages() {
  local pair missing=()
  for pair in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

need_file() { # FILE PACKAGE
  [ -e "$1" ] || apt_install "$2"
}

need_python_venv() {
  "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || apt_install python3-venv
}

apt_install() {
  local policy=/usr/sbin/policy-rc.d ours=0 code=0
  if [ "$(id -u)" != 0 ]; then
    echo "missing: $*; run this once as root, or: apt-get install --no-install-recommends $*" >&2
    return 1
  fi
  # A package that is installed must not start its service: the tests start their own servers in their own folders.
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    ours=1
  fi
  echo "installing: $*"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } </dev/null || code=$?
  [ $ours = 0 ] || rm -f $policy
  return $code
}

# need_rust MINIMUM: Debian 12 has no Rust new enough, so this only says what to do.
need_rust() {
  local have
  have=$(cargo --version 2>/dev/null | cut -d' ' -f2) || true
  if [ "$(printf '%s\n' "$1" "${have:-0}" | sort -V | head -1)" != "$1" ]; then
    echo "cargo $1 or newer is needed, found ${have:-none}: install it with rustup (https://rustup.rs) and run this again" >&2
    return 1
  fi
}

# upstream_venv: upstream's own packages in $VENV.
upstream_venv() {
  local wanted=$TOP/tests/upstream/requirements.txt
  cmp -s "$wanted" "$VENV/.requirements" && [ -d "$VENV/source" ] && return
  rm -rf "$VENV"
  "$PYTHON" -m venv "$VENV"
  # Kept out of the way of dependency resolution: the file names every package, frozen from a set that works.
  "$VENV/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$wanted"
  # What runs in upstream's backup container is in the source distribution only: $VENV/source/trove-VERSION/backup. To download
  # it pip looks at its metadata, for which it wants wheel.
  local trove
  "$VENV/bin/pip" install --quiet --disable-pip-version-check --no-deps wheel==0.45.1
  trove=$(grep -i '^trove==' "$wanted")
  "$VENV/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation -d "$VENV/source" "$trove"
  tar -xzf "$VENV"/source/trove-*.tar.gz -C "$VENV/source" --wildcards '*/backup/*'
  cp "$wanted" "$VENV/.requirements"
}
