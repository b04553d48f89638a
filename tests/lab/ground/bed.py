"""A pair with its clients, ready for episodes; and its end, with its logs kept if something broke."""

import pathlib
import shutil

from peer.process import within

from ground.checker import Checker
from ground.client import TABLE, Writer
from ground.control import Control
from ground.guest import AGENT, Guest, Refused, password_file
from ground.pair import Pair
from ground.sql import Session
from ground.world import World

# Clients that go past the service address, straight to a guest: they must never be let in by two.
PROBE = {"rate": 20, "connections": 1, "retry_ms": 60, "sticky": True}


class Bed:
    """`up`, any number of episodes, `down`."""

    def __init__(self, mode, agent=AGENT):
        self.mode, self.agent = mode, agent
        self.world, self.writers = World(), []

    def up(self):
        """From nothing to a pair that is written to."""
        self.world.up()
        self.password = password_file(self.world.folder)
        self.control = Control(self.world, self.agent).begin()
        self.guests = [Guest(self.world, host, self.control.transport_url, self.agent).start(wait=False) for host in ("g1", "g2")]
        for guest in self.guests:
            guest.wait_for_agent()
        self.guests[0].prepare_with_user(self.password.read_text(encoding="ascii"))
        self.guests[1].prepare()
        self.control.ready()
        within(30, "the guests' agents are on the bus", lambda: all(self.on_the_bus(guest) for guest in self.guests), every=0.3)
        self.pair = Pair(self.world, self.control, self.guests, self.mode)
        self.pair.create()
        return self.clients()

    def on_the_bus(self, guest):
        try:
            return self.control.call(guest, "rpc_ping", seconds=5) is True
        except Refused:
            return False  # its queue is not there yet

    def clients(self):
        """The client through the service address, and one straight to each guest."""
        source = self.pair.source()
        assert source, "there is no source"
        session = Session(source)
        session.sql("CREATE DATABASE IF NOT EXISTS lab")
        session.sql(TABLE)
        session.close()
        self.writer = Writer(self.world, "cl", self.pair.vips[0], self.password).start()
        self.writers = [self.writer]
        for number, guest in enumerate(self.pair.guests, 1):
            self.writers.append(Writer(self.world, "cl", self.world.address(guest.host), self.password, number, **PROBE).start())
        self.writer.writing(20)
        self.checker = Checker(self.pair, self.writers)
        return self

    def finish(self):
        """Ends the clients and looks at everything once more; answers the sums."""
        sums = [writer.stop() for writer in self.writers]
        source = self.pair.source()
        lost = self.checker.check_lost(source, False, everything=True)
        self.checker.check_writers()
        self.checker.check_equal()
        return {"acknowledged": sum(s.get("acknowledged", 0) for s in sums), "lost": lost, "sums": sums}

    def keep(self, place):
        """Copies what tells what happened."""
        place = pathlib.Path(place)
        for path in self.world.folder.rglob("*"):
            wanted = path.name.startswith("record-") or path.suffix in (".log", ".out", ".err", ".json") or path.name == "agent.log"
            if wanted and path.is_file() and path.stat().st_size < 200_000_000:
                there = place / path.relative_to(self.world.folder)
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, there)

    def down(self):
        for writer in self.writers:
            writer.kill()
        self.world.down()
