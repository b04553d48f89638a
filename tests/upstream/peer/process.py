"""Processes, ports and waiting."""

import os
import pathlib
import random
import signal
import socket
import subprocess
import time

TOP = pathlib.Path(__file__).resolve().parents[3]


def free_port(count=1):
    """The first of `count` loopback ports in a row that nobody has now, below those that the kernel gives to clients."""
    for _ in range(1000):
        first = random.randrange(12000, 32000)
        probes = [socket.socket() for _ in range(count)]
        try:
            for number, probe in enumerate(probes):
                probe.bind(("127.0.0.1", first + number))
            return first
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise AssertionError(f"no {count} free ports in a row")


def within(seconds, what, question, every=0.1):
    """Asks until the answer is true and returns it; fails with `what` (a text, or a function that makes one)."""
    limit = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > limit:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(every)


def alive(pid):
    """Whether the process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid, number=signal.SIGKILL):
    """Sends a signal; a process that is gone is fine."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def tail(path, lines=40):
    """The last lines of a file, for a message."""
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-lines:])
    except OSError as error:
        return f"(no {path}: {error})"


class Process:
    """A child in its own session with a log file."""

    def __init__(self, argv, log, env=None, stdin=subprocess.DEVNULL, **more):
        self.log = pathlib.Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen(
                [str(a) for a in argv],
                stdin=stdin,
                stdout=more.pop("stdout", out),
                stderr=out,
                env=env,
                start_new_session=True,
                **more,
            )

    @property
    def pid(self):
        return self.child.pid

    def running(self):
        return self.child.poll() is None

    def kill(self):
        """SIGKILL, as a crash does it."""
        kill(self.pid)
        self.child.wait(10)

    def stop(self, seconds=10):
        """SIGTERM, then SIGKILL."""
        if self.running():
            kill(self.pid, signal.SIGTERM)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.child.returncode


if __name__ == "__main__":  # for shell scripts: prints the first of so many free ports
    import sys

    print(free_port(*map(int, sys.argv[1:])))
