"""The figures of the pair; see pair.sh and README.md. Progress goes to standard error, the table to standard output."""

import json
import os
import pathlib
import signal
import sys
import time
import traceback

from ground.bed import Bed
from ground.client import now
from ground.episode import SETTLED
from ground.floor import FloorPair
from ground.guest import TOP
from ground.pair import Mode
from ground.world import sweep
from peer.process import within

FULL = sys.argv[1:] == ["full"]
COUNTS = {
    "switchovers": 100 if FULL else 20,
    "kills": 40 if FULL else 6,
    "gone": 40 if FULL else 5,
    "promotes": 30 if FULL else 6,
    "leases": 15 if FULL else 3,
    "latency": 20 if FULL else 6,
}
# Switchovers in a row by the agents, then as many by hand.
BLOCK = 10
DURABILITIES = ("async", "semi-sync", "durable")
TABLE, RAW = [], {}
# Between two events.
PAUSE = 0.7


def say(text):
    print(text, file=sys.stderr, flush=True)


def at(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, round((len(values) - 1) * part))] if values else float("nan")


def figures(values):
    return f"p50 {at(values, 0.5):.0f}, p99 {at(values, 0.99):.0f}, max {max(values):.0f} ({len(values)} runs)" if values else "none"


def row(name, values, limits=None, beside="", lost=0):
    """`limits` maps a part (0.5, 0.99) to the most it may be, in ms."""
    good = None
    wanted = ""
    if limits:
        good = bool(values) and all(at(values, part) <= most for part, most in limits.items()) and not lost
        wanted = ", ".join(f"p{part * 100:.0f} <= {most}" for part, most in limits.items()) + ", lost 0"
    RAW[name] = values
    TABLE.append((name, figures(values) + f", lost {lost}", wanted, beside, {None: "", True: "yes", False: "NO"}[good]))
    say(f"   {name}: {TABLE[-1][1]}")


class HandBed(Bed):
    """The floor in a world of its own."""

    def up(self):
        from ground.guest import password_file

        self.world.up()
        self.password = password_file(self.world.folder)
        self.pair = FloorPair.build(self.world, self.password.read_text(encoding="ascii"), self.mode)
        return self.clients()


def probes_off(bed):
    """Clients past the service address are for the judge; here they would only be load."""
    for probe in bed.writers[1:]:
        probe.stop()
    return bed


class Events:
    """Gaps of events on one bed, and what was lost in all of them."""

    def __init__(self, bed):
        self.bed, self.gaps = bed, []

    def event(self, act, longest=30, settle=PAUSE):
        """Does it to a whole pair and notes the longest time without an acknowledged write around it."""
        bed = self.bed
        bed.pair.wait_whole(90)
        time.sleep(SETTLED)
        since = now()
        act()
        within(longest, lambda: "writes go on; " + bed.pair.not_whole() + bed.pair.logs(), lambda: (acks := bed.writer.read()) and acks[-1].acked > now() - 100_000 and acks[-1].sent > since + 50_000, every=0.02)
        time.sleep(settle)
        self.gaps.append(bed.writer.gap(since)[0])

    def lost(self):
        missing, changed = self.bed.checker.lost(self.bed.pair.source(), everything=True)
        return len(missing) + len(changed)


def switchovers(durability):
    """By the agents and by hand in turns, on the same machine at the same time of day."""
    ours, hand = Bed(Mode("bench", durability, "manual")), HandBed(Mode("floor", durability, "manual"))
    try:
        ours.up()
        probes_off(ours)
        hand.up()
        probes_off(hand)
        two = {"agent": Events(ours), "hand": Events(hand)}
        steps = {}
        for begun in range(0, COUNTS["switchovers"], BLOCK):
            for name, events in two.items():
                idle = two["hand" if name == "agent" else "agent"].bed
                idle.writer.process.child.send_signal(signal.SIGSTOP)
                for _ in range(min(BLOCK, COUNTS["switchovers"] - begun)):
                    pair = events.bed.pair
                    events.event(pair.switchover)
                    if name == "agent":
                        note_steps(pair, steps)
                idle.writer.process.child.send_signal(signal.SIGCONT)
                idle.writer.writing(20)
            say(f"   {begun + BLOCK} switchovers each, {durability}: agent {figures(two['agent'].gaps)}; by hand {figures(two['hand'].gaps)}")
        row(
            f"planned switchover, {durability}: gap, ms", two["agent"].gaps, {0.5: 60, 0.99: 150},
            f"by hand: {figures(two['hand'].gaps)}, lost {two['hand'].lost()}", two["agent"].lost(),
        )
        TABLE.append(("of which, ms, p50", ", ".join(f"{name} {at(ms, 0.5):.1f}" for name, ms in steps.items()), "", "", ""))
    finally:
        ours.down()
        hand.down()


def note_steps(pair, steps):
    """What the agents say of the parts."""
    for guest in pair.guests:
        facts = pair.facts(guest)
        last = facts and facts.raw.get("last_operation")
        if last and last.get("kind") == "switchover" and facts.role == "source":
            for step in last.get("steps", ()):
                steps.setdefault(step["name"], []).append(step["ms"])


def uptime(guest):
    return int(guest.value("SELECT variable_value FROM information_schema.global_status WHERE variable_name='UPTIME'"))


def promote(bed):
    """Upstream's promote sequence, call by call over the bus, as the taskmanager's."""
    pair, call = bed.pair, bed.control.call
    old = pair.source()
    new = pair.other(old)
    call(old, "make_read_only", {"read_only": True})
    txn = call(old, "get_latest_txn_id")
    call(new, "wait_for_txn", {"txn": txn})
    call(new, "detach_replica", {"for_failover": True})
    call(new, "enable_as_master", {"replica_source_config": "[mysqld]\n"})
    call(new, "make_read_only", {"read_only": False})
    context = call(new, "get_replica_context")
    call(old, "attach_replica", {"replica_info": context, "slave_config": "[mysqld]\n", "restart": False})
    call(old, "demote_replication_master")


def promotes():
    bed = Bed(Mode("bench", "async", "manual"))
    try:
        probes_off(bed.up())
        events = Events(bed)
        began = time.monotonic()
        before = [uptime(guest) for guest in bed.guests]
        for _ in range(COUNTS["promotes"]):
            events.event(lambda: promote(bed))
        restarts = sum(uptime(g) < b + int(time.monotonic() - began) - 2 for g, b in zip(bed.guests, before))
        row("upstream's promote sequence: gap, ms", events.gaps, {0.5: 250}, f"servers restarted: {restarts}; a process for each call included", events.lost())
    finally:
        bed.down()


def failures(durability):
    bed = Bed(Mode("bench", durability, "automatic"))
    try:
        probes_off(bed.up())
        kills = Events(bed)
        for _ in range(COUNTS["kills"]):
            kills.event(lambda: bed.pair.source().kill_database())
        row(f"database killed, {durability}: gap, ms", kills.gaps, {0.99: 1000}, "", kills.lost())
        gone = Events(bed)
        for _ in range(COUNTS["gone"]):
            bed.pair.wait_whole(90)
            source = bed.pair.source()
            gone.event(source.power_off)
            source.power_on()
        bed.pair.wait_whole(90)
        row(f"node gone, {durability}: gap, ms", gone.gaps, {0.99: 2500}, "", gone.lost())
        if durability == "durable":
            leases(bed)
    finally:
        bed.down()


def leases(bed):
    """The source's agent stands still: after the lease nobody who was connected may write."""
    from ground.bed import PROBE
    from ground.client import Writer

    late, first = 0, []
    for _ in range(COUNTS["leases"]):
        bed.pair.wait_whole(90)
        source = bed.pair.source()
        probe = Writer(bed.world, "cl", bed.world.address(source.host), bed.password, 7, **dict(PROBE, rate=100), first_id=now()).start()
        probe.writing(10)
        server = probe.acks[-1].server
        pids = source.kill_agent(signal.SIGSTOP)
        stopped = now()
        time.sleep(4)
        accepted = [ack for ack in probe.read() if ack.server == server and ack.sent > stopped]
        lease = 1_500_000
        late += sum(ack.sent > stopped + lease + 50_000 for ack in accepted)
        first.append((max((ack.sent for ack in accepted), default=stopped) - stopped) / 1000)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        probe.stop()
    RAW["lease"] = first
    TABLE.append(
        ("writes on old connections after the lease, agent stands still", str(late), "0", f"last one accepted after ms: {figures(first)}", "yes" if late == 0 else "NO")
    )


def latencies():
    """What a commit costs the client at 200 a second, by mode; first without a replica."""
    for durability in DURABILITIES:
        bed = Bed(Mode("bench", durability, "manual"))
        try:
            bed.up()
            probes_off(bed)
            bed.writer.stop()
            from ground.client import Writer

            writer = Writer(bed.world, "cl", bed.pair.vips[0], bed.password, 5).start()
            time.sleep(COUNTS["latency"])
            sums = writer.stop()["latency_ms"]
            TABLE.append((f"commit latency, {durability}, ms", f"p50 {sums['p50']:.2f}, p99 {sums['p99']:.2f}", "", "", ""))
        finally:
            bed.down()


def stage(name, act, *args):
    say(f"== {name} ({time.strftime('%H:%M:%S')})")
    try:
        act(*args)
    except Exception as error:
        traceback.print_exc()
        TABLE.append((name, f"BROKEN: {str(error).splitlines()[0][:200]}", "", "", "NO"))


def main():
    sweep()
    load, began = os.getloadavg()[1], time.monotonic()
    for durability in ("async", "durable") if not FULL else DURABILITIES:
        stage(f"switchovers, {durability}", switchovers, durability)
    stage("failures, durable", failures, "durable")
    stage("failures, semi-sync", failures, "semi-sync")
    stage("upstream's promote sequence", promotes)
    stage("commit latency", latencies)
    print(
        f"\n{'full' if FULL else 'quick'} run of {time.strftime('%Y-%m-%d %H:%M')}, {(time.monotonic() - began) / 60:.0f} min, {os.cpu_count()} cores, "
        f"load average {load:.1f} at the beginning and {os.getloadavg()[1]:.1f} at the end\n"
    )
    print("| figure | here | target | beside it | met |\n|---|---|---|---|---|")
    for line in TABLE:
        print("| " + " | ".join(line) + " |")
    place = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "bench-pair.json"
    place.write_text(json.dumps({"table": TABLE, "raw": RAW}, indent=1), encoding="utf-8")
    return 1 if any(line[4] == "NO" for line in TABLE) else 0


if __name__ == "__main__":
    sys.exit(main())
