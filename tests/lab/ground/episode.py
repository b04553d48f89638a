"""One fault, from a pair that is whole to a pair that is whole."""

import dataclasses
import os
import time

from peer.process import within

from ground.client import now
from ground.faults import HEALS, OPERATOR, RESPAWN, SERVES, later
from ground.checker import Violation

# How long writes must have been going on to count as being back, milliseconds.
STEADY = 500
# Within so many seconds of the end of the fault writes go on, and the pair is whole.
BACK, WHOLE = 20, 60
# A pair counts as whole this many seconds later.
SETTLED = 1.2
# Within so many seconds everybody's neighbour cache has the right host.
NEIGHBOURS = 5


@dataclasses.dataclass
class Result:
    """What is printed of an episode."""

    fault: str
    gap: float
    lost: int
    servers: int
    generations: tuple
    seconds: float
    notes: list
    broken: str = ""

    @property
    def unsafe(self):
        """It broke by what it did, not by how long it took."""
        words = ("acknowledged writes are not on", "were taken in turns", "both servers hold the same")
        return any(word in self.broken for word in words)


class Episode:
    """What a fault may use: `source` and `replica` are those of its beginning."""

    def __init__(self, pair, writer, checker, fault, random):
        self.pair, self.world, self.writer, self.checker, self.fault, self.random = pair, pair.world, writer, checker, fault, random
        self.notes, self.timers, self.asked = [], [], []

    def note(self, text):
        self.notes.append(text)

    # --- for faults ---

    @staticmethod
    def signal(pid, number):
        try:
            os.kill(pid, number)
        except (ProcessLookupError, TypeError):
            pass

    def respawn(self, guest, seconds):
        """The agent is started again after a moment, as the service manager does it."""
        self.timers.append(later(seconds, lambda: guest.start(wait=False)))

    def restart(self, guest, abort_at=None):
        guest.agent.stop(10)
        guest.start(abort_at=abort_at)

    def ask_switchover(self):
        """Begins one; it need not succeed, and nobody waits for its end."""
        self.asked.append(self.pair.control.begin_cli("pair", "switchover", "--guest", self.replica.id))
        return self.asked[-1]

    # --- the course of it ---

    def steady(self, since):
        """Whether writes that were sent after a moment have been going on for a while."""
        acks = self.writer.read()
        if not acks or acks[-1].acked < now() - 200_000:
            return False
        first = now() - STEADY * 1000
        return first > since and self.writer.gap(first)[0] < 250

    def run(self):
        pair, fault, began = self.pair, self.fault, time.monotonic()
        owes = fault.owes(pair.mode)
        result = Result(fault.name, 0, 0, 0, (0, 0), 0, self.notes)
        try:
            within(30, lambda: "a whole pair to begin with: " + pair.not_whole(), lambda: pair.source() and not pair.not_whole(), every=0.1)
            self.source = pair.source()
            self.replica = pair.other(self.source)
            for vip in pair.vips:
                self.world.ping("gw", vip)
            within(10, "writes to begin with", lambda: self.steady(0), every=0.05)
            # The source's next pings tell its replica that everything it acknowledges from now on is there.
            time.sleep(SETTLED)
            before = pair.generation()
            since = now()
            heal = fault.act(self)
            self.lasts(owes, since)
            if heal:
                heal()
            healed = now()
            for timer in self.timers:
                timer.join()
            self.expect(BACK, f"writes within {BACK} s after the end of the fault", since)
            result.gap, _ = self.writer.gap(since)
            if owes == SERVES and result.gap > fault.gap * 1000:
                raise Violation(f"{result.gap:.0f} ms without a write, at most {fault.gap * 1000:.0f} are owed")
            pair.wait_whole(WHOLE)
            self.notes.append(f"whole after {(now() - healed) / 1e6:.1f} s")
            result.generations = (before, pair.generation())
            self.judge(result)
        except (AssertionError, OSError) as error:
            result.broken = f"{type(error).__name__}: {error}"
        finally:
            for asked in self.asked:
                asked.kill()
                asked.wait()
        result.seconds = time.monotonic() - began
        return result

    def lasts(self, owes, since):
        """The fault lasts at least its time, and until what is owed is there."""
        time.sleep(max(self.fault.shortest - (now() - since) / 1e6, 0))
        if owes == SERVES:
            self.expect(self.fault.longest, f"writes within {self.fault.longest} s though: {self.fault.name}", since)
        elif owes == OPERATOR and not self.steady(since):
            candidate = self.replica if self.replica.running() else self.source
            self.pair.failover(candidate, force=True)
            self.expect(self.fault.longest, "writes after the operator's failover", since)
        elif owes == HEALS and not self.steady(since):
            self.note("stopped until healed, as it must")

    def expect(self, seconds, what, since):
        try:
            within(seconds, lambda: f"{what}; errors {self.writer.recent_errors()}; {self.pair.not_whole()}", lambda: self.steady(since), every=0.05)
        except AssertionError as error:
            raise Violation(str(error)) from None

    def judge(self, result):
        pair, mode = self.pair, self.pair.mode
        # A switchover that was cut off may be taken up again just now: for a moment nobody is the source.
        source = within(30, lambda: "one of the two is the source: " + pair.not_whole() + pair.logs(), pair.source)
        allowed = self.fault.loses and mode.durability == "async"
        result.lost = self.checker.check_lost(source, allowed)
        result.servers = self.checker.check_writers()
        self.checker.check_equal()
        for vip in pair.vips:
            within(NEIGHBOURS, lambda vip=vip: self.astray(vip), lambda vip=vip: not self.astray(vip), every=0.1)

    def astray(self, vip):
        """Why the gateway's packets do not reach the source; empty if they do. A cut-off switchover may have been taken up meanwhile."""
        source, believed = self.pair.source(), self.world.neighbour("gw", vip)
        if source and believed in (self.world.mac(source.host), None):
            return ""
        return f"{vip} is on {source}, the gateway believes {believed}"
