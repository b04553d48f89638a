"""Runs a command and ends, by process id, everything it left behind.

    python3 reap.py COMMAND [ARGUMENT...]

The process becomes a "child subreaper": whatever a descendant starts and abandons (a database adopted from a killed
agent, a broker's helper) becomes our child instead of init's, so nothing escapes and nothing else is touched.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36


def children(of):
    """All descendants of a process, nearest first."""
    parents = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
                parents[int(name)] = int(stat.read().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            continue  # it ended while we looked
    found, todo = [], [of]
    while todo:
        parent = todo.pop(0)
        below = [pid for pid, up in parents.items() if up == parent]
        found += below
        todo += below
    return found


def reap():
    """Collects the dead; true while a child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def end_all():
    """Ends every descendant: first politely, after three seconds for good."""
    for sent, seconds in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
        limit = time.monotonic() + seconds
        told = set()
        while reap() and time.monotonic() < limit:
            for pid in children(os.getpid()):
                if pid not in told:
                    told.add(pid)
                    try:
                        os.kill(pid, sent)
                    except ProcessLookupError:
                        pass
            time.sleep(0.05)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = subprocess.Popen(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: command.send_signal(got))
    code = command.wait()
    end_all()
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
