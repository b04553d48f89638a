"""The judge: nothing acknowledged is missing, nobody wrote beside the source, all servers hold the same."""

from peer.process import within

from ground.client import STRIDE, runs
from ground.guest import Refused

# So many ids back from the newest are looked at again after each episode: those of before may have been lost just now.
AGAIN = 20_000


class Violation(AssertionError):
    """The pair broke a promise."""


def rows(guest, low, high):
    """id to server_id of a range."""
    text = guest.sql(f"SELECT id, server_id FROM lab.seq WHERE id BETWEEN {low} AND {high}")
    return {int(a): int(b) for a, b in text}


class Checker:
    """Over all clients of a pair, from its beginning to its end."""

    def __init__(self, pair, writers):
        self.pair, self.writers = pair, writers
        self.forgiven = set()
        self.first_generation = pair.generation()

    def acks(self):
        found = []
        for writer in self.writers:
            found += writer._take()
        return found

    def lost(self, guest, everything=False):
        """Ids that were acknowledged and are not there, and those that are there as written by another server."""
        missing, changed = [], []
        for writer in self.writers:
            acks = writer._take() if everything else writer._take()[-AGAIN:]
            if not acks:
                continue
            ids = [ack.id for ack in acks]
            there = rows(guest, min(ids), max(ids))
            for ack in acks:
                if ack.id in self.forgiven:
                    continue
                if ack.id not in there:
                    missing.append(ack.id)
                elif ack.server and there[ack.id] != ack.server:
                    changed.append(ack.id)
        return missing, changed

    def check_lost(self, guest, allowed, everything=False):
        """How many are lost; a violation if none may be."""
        missing, changed = self.lost(guest, everything)
        if (missing or changed) and not allowed:
            raise Violation(
                f"{len(missing)} acknowledged writes are not on {guest} ({missing[:5]}…), "
                f"{len(changed)} were made again by another server ({changed[:5]}…)"
            )
        self.forgiven.update(missing, changed)
        return len(missing) + len(changed)

    def check_writers(self):
        """Each change of who takes writes is a promotion: no two servers took writes in one generation."""
        acks = self.acks()
        found = runs(acks)
        promotions = self.pair.generation() - self.first_generation
        if len(found) - 1 > promotions:
            story = ", ".join(f"{server} from {first} to {last}" for server, first, last in found[-8:])
            raise Violation(f"writes were taken in turns by {len(found)} servers, but there were {promotions} promotions: {story}")
        return len({run[0] for run in found})

    def check_equal(self, seconds=20):
        """Both hold the same rows, of every client."""

        def sums(guest):
            return guest.sql(
                f"SELECT id DIV {STRIDE}, COUNT(*), COALESCE(SUM(CRC32(CONCAT_WS(',', id, payload, server_id))), 0) FROM lab.seq "
                f"WHERE id <= {self.limit} OR id DIV {STRIDE} > 0 AND id MOD {STRIDE} <= {self.limits} GROUP BY 1 ORDER BY 1"
            )

        # What is being written now is left out.
        newest = [max((ack.id % STRIDE for ack in writer._take()), default=0) for writer in self.writers]
        self.limit, self.limits = newest[0], min(newest[1:], default=0)

        def same():
            try:
                self.found = [sums(guest) for guest in self.pair.guests]
            except Refused as error:
                self.found = str(error)
                return False
            return self.found[0] == self.found[1]

        try:
            within(seconds, lambda: f"both servers hold the same: {self.found}", same, every=0.3)
        except AssertionError as error:
            raise Violation(str(error)) from None
