#!/usr/bin/env python3
"""The proving ground: pairs under faults, and a judge. See README.md beside this file.

    run.py                          the short form: 30 episodes over four kinds of pairs
    run.py --episodes 300 --seed 7  as many as you like
    run.py --list                   the faults
    run.py --only TEXT --mode durable --episodes 5      only faults whose name has this text
"""

import argparse
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time
import traceback

from ground.bed import Bed
from ground.client import WRITER
from ground.episode import Episode
from ground.faults import FAULTS
from ground.guest import AGENT
from ground.pair import MODES
from ground.world import sweep

# Share of each kind of pair.
SHARES = {"durable": 11, "durable+witness": 7, "semi-sync": 6, "async": 6}
# After so many episodes a pair is made anew: its server's logs and the client's record grow.
FRESH = 40


def say(text):
    print(text, flush=True)


def deck(mode, only, rng):
    """Every fault in a random order, again and again."""
    names = [name for name, fault in FAULTS.items() if fault.applies(mode) and (not only or any(text in name for text in only))]
    if not names:
        sys.exit(f"no fault has '{only}' in its name and applies to {mode.name}")
    while True:
        rng.shuffle(names)
        yield from names


def share(episodes, modes):
    """How many episodes of each kind of pair."""
    weights = {mode: SHARES.get(mode, 5) for mode in modes}
    counts = {mode: episodes * weight // sum(weights.values()) for mode, weight in weights.items()}
    for mode in modes[: episodes - sum(counts.values())]:
        counts[mode] += 1
    return counts


class Run:
    """All episodes and what came of them."""

    def __init__(self, options):
        self.options = options
        self.results, self.broken, self.number = [], 0, 0
        self.slow = 0
        self.writes = self.lost = 0
        self.logs = pathlib.Path(options.logs or tempfile.mkdtemp(prefix="lab-logs-"))

    def line(self, mode, result):
        word = "BROKEN" if result.broken else "ok"
        notes = "; ".join(result.notes)
        say(
            f"{self.number:4d}/{self.options.episodes}  {mode.name:<17} {result.fault:<58} gap {result.gap:8.0f} ms  lost {result.lost}  "
            f"writers {result.servers}  gen {result.generations[0]}>{result.generations[1]}  {result.seconds:5.1f} s  {word}  ({notes})"
        )
        if result.broken:
            say("      " + result.broken.replace("\n", "\n      ")[:3000])

    def play(self, mode, count, faults, rng):
        """So many episodes on one pair; answers how many were played. It ends early when something broke: what follows would tell nothing."""
        bed = Bed(mode, self.options.agent)
        played, broke, self.too_slow = 0, False, None
        try:
            began = time.monotonic()
            bed.up()
            say(f"      {mode.name}: a pair in {time.monotonic() - began:.1f} s, {bed.world.name}")
            while played < count and not broke:
                played += 1
                self.number += 1
                result = Episode(bed.pair, bed.writer, bed.checker, FAULTS[next(faults)], rng).run()
                self.results.append((mode, result))
                self.lost += result.lost
                self.line(mode, result)
                broke = bool(result.broken)
                self.too_slow = result.fault if broke and not result.unsafe else None
            if not broke:
                self.writes += bed.finish()["acknowledged"]
        except Exception as error:
            # Not an episode's: the pair could not be made, or the last look at everything failed.
            broke = True
            played = max(played, 1)
            say(f"      {mode.name}: BROKEN: {type(error).__name__}: {error}"[:3000])
            if not isinstance(error, AssertionError):
                traceback.print_exc()
        finally:
            if broke:
                self.broken += 1
                bed.keep(self.logs / bed.world.name)
                say(f"      logs: {self.logs / bed.world.name}")
            if broke and self.options.stay:
                say(f"      {bed.world.name} stays; end this process to take it down by the next run")
                input()
            bed.down()
        return played

    def all(self):
        rng = random.Random(self.options.seed)
        for name, count in share(self.options.episodes, self.options.mode).items():
            mode = MODES[name]
            faults = deck(mode, self.options.only, rng)
            while count > 0:
                before = self.broken
                count -= self.play(mode, min(count, FRESH), faults, rng)
                if self.options.again and self.broken > before and self.too_slow:
                    self.once_more(mode, self.too_slow, rng)
                if self.broken >= self.options.patience:
                    say(f"stopped after {self.broken} broken pairs")
                    return

    def once_more(self, mode, fault, rng):
        """A machine may be too slow for a wait; what is wrong once more, on a new pair, is wrong. Lost or doubled writes are never played again."""
        say(f"      once more on a new pair: {fault}")
        before, counted = self.broken, self.number
        self.play(mode, 1, iter([fault]), rng)
        self.number = counted
        if self.broken == before:
            self.broken -= 1
            self.slow += 1

    def summary(self, seconds):
        say("")
        for name in self.options.mode:
            gaps = [r.gap for mode, r in self.results if mode.name == name and not r.broken]
            if gaps:
                say(
                    f"{name:<17} {len(gaps):4d} episodes  gap p50 {statistics.median(gaps):6.0f} ms  max {max(gaps):6.0f} ms  "
                    f"lost {sum(r.lost for mode, r in self.results if mode.name == name)}"
                )
        say(
            f"{len(self.results)} episodes in {seconds / 60:.1f} min, seed {self.options.seed}: {self.writes} writes acknowledged on pairs that were "
            f"checked to the end, {self.lost} lost where the mode allows it, {self.broken} broken"
            + (f", {self.slow} good only when played once more" if self.slow else "")
            + (f", logs in {self.logs}" if self.broken else "")
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--mode", action="append", choices=list(MODES), help="only this kind of pair; may be repeated")
    parser.add_argument("--only", action="append", metavar="TEXT", help="only faults with this in their names; may be repeated")
    parser.add_argument("--agent", type=pathlib.Path, default=AGENT)
    parser.add_argument("--logs", help="folder for the logs of what broke")
    parser.add_argument("--patience", type=int, default=5, help="stop after so many broken pairs")
    parser.add_argument("--again", action="store_true", help="play what did not happen in time once more; never lost or doubled writes")
    parser.add_argument("--stay", action="store_true", help="wait for Enter with a broken pair still standing")
    parser.add_argument("--list", action="store_true", help="list the faults and end")
    options = parser.parse_args()
    if options.list:
        for name in FAULTS:
            say(name)
        return 0
    options.mode = options.mode or list(SHARES)
    for file in (options.agent, WRITER):
        if not file.exists():
            sys.exit(f"there is no {file}: cargo build --features sim,failpoints && cargo build -p lab-writer")
    if os.geteuid() != 0:
        sys.exit("the proving ground makes network namespaces: it needs root")
    sweep()
    began = time.monotonic()
    run = Run(options)
    say(f"{options.episodes} episodes, seed {options.seed}, agent {options.agent}")
    try:
        run.all()
    finally:
        run.summary(time.monotonic() - began)
    return 1 if run.broken else 0


if __name__ == "__main__":
    sys.exit(main())
