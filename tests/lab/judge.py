#!/usr/bin/env python3
"""Tries the judge: on a pair by hand it must be content, and it must see what is broken on purpose."""

import random
import sys
import time

from ground.bed import Bed
from ground.checker import Violation
from ground.episode import Episode
from ground.faults import FAULTS
from ground.floor import FLOOR, FloorPair
from ground.world import sweep


def refuses(what, question):
    try:
        question()
    except Violation as seen:
        print(f"seen: {what}: {str(seen)[:150]}", flush=True)
        return
    sys.exit(f"the judge did not see: {what}")


def main():
    sweep()
    bed = Bed(FLOOR)
    try:
        bed.world.up()
        from ground.guest import password_file

        bed.password = password_file(bed.world.folder)
        bed.pair = FloorPair.build(bed.world, bed.password.read_text(encoding="ascii"))
        bed.clients()
        for name in ("switchover", "management cable of the source pulled", "black hole at the data port of the replica"):
            result = Episode(bed.pair, bed.writer, bed.checker, FAULTS[name], random.Random(1)).run()
            print(result, flush=True)
            assert not result.broken
        source, replica = bed.pair.floor.source, bed.pair.floor.replica
        # A write that was acknowledged goes away.
        gone = bed.writer.read()[-200].id
        source.one.sql(f"SET sql_log_bin=0; DELETE FROM lab.seq WHERE id={gone}; SET sql_log_bin=1")
        refuses("a lost write", lambda: bed.checker.check_lost(bed.pair.source(), False))
        refuses("servers that differ", lambda: bed.checker.check_equal(2))
        source.one.sql(f"SET sql_log_bin=0; INSERT INTO lab.seq VALUES ({gone}, 'payload of {gone}', @@server_id); SET sql_log_bin=1")
        bed.checker.check_equal()
        bed.checker.check_writers()
        # Two that take writes at the same time.
        replica.one.sql("SET GLOBAL read_only=0")
        time.sleep(1)
        replica.one.sql("SET GLOBAL read_only=1")
        refuses("two writers", bed.checker.check_writers)
    finally:
        bed.down()
    print("the judge sees what it must see")


if __name__ == "__main__":
    main()
