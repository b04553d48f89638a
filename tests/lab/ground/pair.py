"""A pair in a world: made by the operator's command line, watched by its agents' own status and from outside."""

import dataclasses
import json
import threading
import time

from peer.process import Process, tail, within

from ground.guest import Refused

VIPS = ("10.77.0.200/24", "fd77::200/64")
WITNESS_PORT = 8790


@dataclasses.dataclass(frozen=True)
class Mode:
    """What a pair promises."""

    name: str
    durability: str
    failover: str
    witness: bool = False
    plane: str = "arp"

    @property
    def automatic(self):
        return self.failover == "automatic"


MODES = {
    mode.name: mode
    for mode in (
        Mode("durable", "durable", "automatic"),
        Mode("durable+witness", "durable", "automatic", witness=True),
        Mode("semi-sync", "semi-sync", "automatic"),
        Mode("semi-sync+witness", "semi-sync", "automatic", witness=True),
        Mode("durable-manual", "durable", "manual"),
        Mode("async", "async", "manual"),
        Mode("keepalived", "durable", "automatic", plane="keepalived"),
    )
}


@dataclasses.dataclass
class Facts:
    """What an agent says of itself, as far as the judge needs it."""

    role: str
    writable: bool
    vip: str
    generation: int
    follows: bool
    caught_up: bool
    degraded: bool
    acknowledged: bool
    raw: dict

    @classmethod
    def read(cls, raw):
        """From the answer of `get_pair_status`."""
        replication = raw.get("replication") or {}
        vip = raw.get("vip") or {}
        lag = replication.get("lag_ms")
        semi_sync = replication.get("semi_sync") or {}
        return cls(
            role=raw.get("role"),
            writable=bool(raw.get("writable")),
            vip=vip.get("state") if isinstance(vip, dict) else vip,
            generation=raw.get("generation") or 0,
            follows=bool(replication.get("receiving") and replication.get("applying")),
            caught_up=lag is None or lag < 2000,
            degraded=bool(semi_sync.get("degraded")),
            acknowledged=bool(semi_sync.get("source_on") and semi_sync.get("replicas")),
            raw=raw,
        )


class Pair:
    """The first of the guests begins as the source."""

    def __init__(self, world, control, guests, mode):
        self.world, self.control, self.guests, self.mode = world, control, guests, mode
        self.vips = [vip.split("/")[0] for vip in VIPS]

    def create(self):
        """Answers how long it took."""
        began = time.monotonic()
        words = ["pair", "create", "--source", self.guests[0].id, "--replica", self.guests[1].id]
        for vip in VIPS:
            words += ["--vip", vip]
        words += ["--durability", self.mode.durability, "--failover", self.mode.failover]
        if self.mode.plane != "arp":
            words += ["--plane", self.mode.plane]
        if self.mode.witness:
            key = self.world.folder / "witness.key"
            words += ["--witness", f"{self.world.address('wt')}:{WITNESS_PORT}", "--witness-key-file", key]
            threading.Thread(target=self.start_witness, args=(key,), daemon=True).start()
        self.control.cli(*words, seconds=120)
        self.wait_whole(60)
        return time.monotonic() - began

    def start_witness(self, key):
        """As soon as the key is there: the pair asks it from its first moment."""
        within(30, "the key for the witness", lambda: key.exists() and key.stat().st_size, every=0.02)
        words = ["witness", "--listen", f"{self.world.address('wt')}:{WITNESS_PORT}", "--key-file", key]
        with self.world.inside("wt"):
            self.witness = Process([self.control.binary, *words, "--state-dir", self.world.folder / "witness"], self.world.folder / "witness.log")

    # --- what the agents say ---

    def facts(self, guest):
        """None if the agent does not answer."""
        if not guest.running():
            return None
        try:
            return Facts.read(guest.call("get_pair_status", seconds=3))
        except Refused:
            return None

    def source(self):
        """The guest that has the addresses and says that it is the source; none while that is not clear."""
        for guest in self.guests:
            facts = self.facts(guest)
            if facts and facts.role == "source" and facts.writable and guest.holds(self.vips[0]):
                return guest
        return None

    def other(self, guest):
        return self.guests[1] if guest is self.guests[0] else self.guests[0]

    def generation(self):
        return max((facts.generation for guest in self.guests if (facts := self.facts(guest))), default=0)

    def not_whole(self):
        """Why the pair is not one source with all addresses and one replica that follows it; empty if it is."""
        facts = [self.facts(guest) for guest in self.guests]
        for guest, fact in zip(self.guests, facts):
            if fact is None:
                return f"{guest}: its agent does not answer"
        if sorted(fact.role for fact in facts) != ["replica", "source"]:
            return "roles are " + ", ".join(f"{guest} {fact.role}" for guest, fact in zip(self.guests, facts))
        at = next(i for i, fact in enumerate(facts) if fact.role == "source")
        source, replica = facts[at], facts[1 - at]
        if source.generation != replica.generation:
            return f"generations are {source.generation} and {replica.generation}"
        if not source.writable or replica.writable:
            return f"{self.guests[at]} writable is {source.writable}, {self.guests[1 - at]} writable is {replica.writable}"
        if not (replica.follows and replica.caught_up):
            return f"{self.guests[1 - at]} does not follow: {json.dumps(replica.raw.get('replication'))}"
        if source.degraded or (self.mode.durability != "async" and not source.acknowledged):
            return f"{self.guests[at]}: commits do not wait for the replica: {json.dumps(source.raw.get('replication'))}"
        for vip in self.vips:
            holders = [str(guest) for guest in self.guests if guest.holds(vip)]
            if holders != [str(self.guests[at])]:
                return f"{vip} is on {holders or 'nobody'}, the source is {self.guests[at]}"
        return ""

    def wait_whole(self, seconds):
        """Answers how long it took."""
        began = time.monotonic()
        within(seconds, lambda: "the pair is whole: " + self.not_whole() + self.logs(), lambda: not self.not_whole(), every=0.2)
        return time.monotonic() - began

    def logs(self):
        return "".join(f"\n--- {guest} ---\n{tail(guest.log, 15)}" for guest in self.guests)

    # --- what the operator does ---

    def switchover(self, guest=None, good=True, seconds=60):
        """By the operator's command line over the bus, asked of one of the two (the replica, unless told)."""
        guest = guest or self.other(self.source() or self.guests[0])
        return self.control.cli("pair", "switchover", "--guest", guest.id, seconds=seconds, good=good)

    def failover(self, guest, force=True, seconds=60):
        return self.control.cli("pair", "failover", "--guest", guest.id, *(["--force"] if force else []), seconds=seconds)
