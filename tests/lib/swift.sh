#!/bin/bash
# A private OpenStack Swift (from PyPI) in a folder of its own, on the loopback only: proxy, account, container and object
# server with one replica on a plain folder. It is the peer of the Swift storage and, by its s3api, of the S3 one.
# The file system of DIR needs user extended attributes (ext4, xfs, btrfs; tmpfs from Linux 6.6).
#
#   swift.sh install VENV            makes the virtual environment it runs in
#   swift.sh start VENV DIR PORT     starts it on PORT and the three next ones, and waits until it works
#   swift.sh stop DIR                ends it
#   swift.sh kill DIR NAME           SIGKILL to one server: proxy, account, container or object
#   swift.sh run VENV DIR NAME       starts that one again
#
# Token: GET http://127.0.0.1:PORT/auth/v1.0 with X-Auth-User trove:tester and X-Auth-Key testing (trove:nobody has no rights,
# other:tester another account). Account: http://127.0.0.1:PORT/v1/AUTH_trove. S3: access key trove:tester, secret testing.
# Faults: see swift/faults.py.
set -eu
HERE=$(cd "$(dirname "$0")" && pwd)

say() { echo "swift: $*" >&2; }
die() { say "$*"; exit 1; }

install() {
    local venv=$1 wanted=$HERE/swift/requirements.txt
    if cmp -s "$wanted" "$venv/.requirements"; then return; fi
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$wanted"
    cp "$wanted" "$venv/.requirements"
}

healthy() { # PORT
    local answer
    answer=$( (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET /v1/AUTH_trove HTTP/1.0\r\nX-Auth-Token: %s\r\n\r\n' "${2:-}" >&3 && head -1 <&3) 2>/dev/null) || return 1
    [[ $answer == *" ${3:-401} "* ]]
}

# The account answers 204 to its own user: proxy, account server and disk work.
works() {
    local token
    token=$( (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET /auth/v1.0 HTTP/1.0\r\nX-Auth-User: trove:tester\r\nX-Auth-Key: testing\r\n\r\n' >&3 && cat <&3) 2>/dev/null |
        tr -d '\r' | sed -n 's/^X-Auth-Token: //Ip') || return 1
    [ -n "$token" ] && healthy "$1" "$token" 204
}

start() {
    local venv dir port=$3 waited=0 pid name
    venv=$(realpath "$1")
    mkdir -p "$2"
    dir=$(realpath "$2")
    (cd "$HERE/swift" && PYTHONPATH="$HERE/swift" PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=ignore exec setsid "$venv/bin/python" serve.py "$dir" "$port") >>"$dir/log" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$dir/pid"
    until works "$port"; do
        waited=$((waited + 1))
        if ! kill -0 "$pid" 2>/dev/null || [ "$waited" -gt 300 ]; then
            tail -n 40 "$dir/log" >&2
            die "it does not work after $((waited / 5)) s"
        fi
        sleep 0.2
    done
    for name in container object; do
        until (exec 3<>"/dev/tcp/127.0.0.1/$((port + (${#name} == 9 ? 2 : 3)))") 2>/dev/null; do
            waited=$((waited + 1))
            [ "$waited" -lt 300 ] || die "the $name server does not accept connections"
            sleep 0.2
        done
    done
    say "works on port $port (log: $dir/log)"
}

# Ends the process in file $1 with signal $2, and waits until it is gone.
halt() {
    local pid waited=0
    [ -s "$1" ] || return 0
    pid=$(cat "$1")
    kill "-$2" "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        waited=$((waited + 1))
        [ "$waited" -ne 100 ] || kill -KILL "$pid" 2>/dev/null || true
        [ "$waited" -lt 200 ] || die "process $pid does not end"
        sleep 0.1
    done
    rm -f "$1"
}

stop() {
    local name
    for name in proxy account container object; do halt "$1/$name.pid" TERM; done
    halt "$1/pid" TERM
    if [ -s "$1/elsewhere" ]; then rm -rf -- "$(cat "$1/elsewhere")"; fi
    say "stopped"
}

[ $# -ge 2 ] || die "usage: swift.sh install|start|stop|kill|run …"
verb=$1
shift
case $verb in
    install) install "$1" ;;
    start) start "$@" ;;
    stop) stop "$1" ;;
    kill) halt "$1/$2.pid" KILL ;;
    run)
        venv=$(realpath "$1") dir=$(realpath "$2")
        (cd "$HERE/swift" && PYTHONPATH="$HERE/swift" PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=ignore exec setsid "$venv/bin/python" serve.py "$dir" 0 "$3") >>"$dir/log" 2>&1 </dev/null
        ;;
    *) die "unknown verb $verb" ;;
esac
