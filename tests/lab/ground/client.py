"""The recording client (tests/lab/writer) and what its record says."""

import bisect
import json
import os
import pathlib
import signal
import subprocess
import time
from typing import NamedTuple

from peer.process import TOP, Process, tail, within

WRITER = pathlib.Path(os.environ.get("TROVE_LAB_WRITER", TOP / "target" / "debug" / "lab-writer"))
# Clients of one address each write their own ids.
STRIDE = 1_000_000_000_000
TABLE = "CREATE TABLE lab.seq (id BIGINT UNSIGNED PRIMARY KEY, payload VARBINARY(64) NOT NULL, server_id INT UNSIGNED NOT NULL) ENGINE=InnoDB"


def now():
    """Microseconds of the monotonic clock, as in the record."""
    return time.monotonic_ns() // 1000


class Ack(NamedTuple):
    """An acknowledged write; `server` is 0 if it was found to be carried out by an earlier try."""

    id: int
    server: int
    sent: int
    acked: int
    first: int
    tries: int


class Writer:
    """One process that writes to one address. `number` keeps its ids apart from others'."""

    def __init__(self, world, host, address, password, number=0, **options):
        self.world, self.host, self.address, self.number = world, host, address, number
        self.record = world.folder / f"record-{number}-{now()}"
        self.acks, self.errors, self._read, self._rest = [], [], 0, b""
        words = [WRITER, "--host", address, "--user", "lab", "--password-file", password, "--record", self.record]
        for name, value in {"first_id": number * STRIDE + 1, **options}.items():
            words += ["--" + name.replace("_", "-")] + ([] if value is True else [value])
        self.words = words

    def start(self):
        with self.world.inside(self.host):
            self.process = Process(self.words, self.record.with_suffix(".err"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def read(self):
        """Takes in what was recorded since; answers all acknowledged writes in the order of their acknowledgements."""
        if not self.process.running():
            raise AssertionError("the client ended: " + tail(self.process.log))
        return self._take()

    def _take(self):
        try:
            with open(self.record, "rb") as file:
                file.seek(self._read)
                text = self._rest + file.read()
                self._read = file.tell()
        except OSError:
            return self.acks
        whole, _, self._rest = text.rpartition(b"\n")
        for line in whole.decode("ascii").split("\n"):
            words = line.split()
            if words and words[0] == "A":
                self.acks.append(Ack(*map(int, words[1:7])))
            elif words:
                self.errors.append((int(words[1]), int(words[2]), words[3]))
        return self.acks

    def writing(self, seconds=20, after=None):
        """Waits for a write that was sent after a moment (now, if none is given) and answers when it was acknowledged."""
        after = now() if after is None else after

        def look():
            found = None
            for ack in reversed(self.read()):
                if ack.acked <= after:
                    break
                found = ack.acked if ack.sent > after else found
            return found

        return within(seconds, lambda: f"a write through {self.address}: {self.recent_errors()}", look, every=0.02)

    def recent_errors(self, seconds=2):
        """Errors of the last seconds, counted."""
        since, counted = now() - seconds * 1_000_000, {}
        self._take()
        for moment, _, kind in reversed(self.errors):
            if moment < since:
                break
            counted[kind] = counted.get(kind, 0) + 1
        return counted

    def gap(self, since, until=None):
        """The longest time without an acknowledged write that reaches into these moments: (milliseconds, when it began)."""
        acks = self.read()
        until = now() if until is None else until
        at = max(bisect.bisect_left(acks, since, key=lambda ack: ack.acked) - 1, 0)
        longest, begun, last = 0, since, None
        for ack in acks[at:]:
            if last is not None and ack.acked - last > longest:
                longest, begun = ack.acked - last, last
            last = ack.acked
            if last > until:
                break
        if last is None or (last < until and until - last > longest):
            longest, begun = until - (last or since), last or since
        return longest / 1000, begun

    def stop(self):
        """Ends it in order; answers its summary."""
        if self.process.running():
            self.process.child.stdin.close()
            try:
                out = self.process.child.stdout.read()
                self.process.child.wait(10)
            except subprocess.TimeoutExpired:
                self.process.stop()
                raise AssertionError("the client did not end") from None
        else:
            out = b""
        self._take()
        return json.loads(out or b"{}")

    def kill(self):
        if self.process.running():
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.child.wait(10)


def runs(acks):
    """Who took writes, one after the other: [server, first acknowledged, last acknowledged].

    A write that the former server acknowledges late was sent before the new one had acknowledged its first; one that was sent later
    shows that the former server takes writes again.
    """
    found = []
    for ack in sorted(acks, key=lambda ack: ack.acked):
        if not ack.server:
            continue
        if found and found[-1][0] == ack.server:
            found[-1][2] = ack.acked
        elif len(found) > 1 and found[-2][0] == ack.server and ack.sent < found[-1][1]:
            found[-2][2] = max(found[-2][2], ack.acked)
        else:
            found.append([ack.server, ack.acked, ack.acked])
    return found
