"""Unmodified upstream moves the service address: three guests, each a host of its own, on a management and a data network.

The source is given its address once; from then on only upstream's taskmanager speaks: create replica, promote, eject. A client writes
through the address all the time, a gateway keeps what it once learned of its neighbours. The tests run in order and share the guests.
"""

import concurrent.futures
import time

import pytest

from peer.cloud import Refused
from peer.hosts import HostBroker, HostCloud, HostGuest, Writer, impossible, keep_logs
from peer.process import tail, within

WHY_NOT = impossible()
pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=f"the service address was NOT moved: {WHY_NOT}")

VIP = ["10.77.0.200/24", "fd77::200/64"]
ADDRESSES = [vip.split("/")[0] for vip in VIP]


class Trio:
    """The guests; `source` is the one that upstream's tables say."""

    def __init__(self, world):
        self.world = world
        self.broker = HostBroker(world).begin().ready()
        self.cloud = HostCloud(world, self.broker)
        self.cloud.start()
        self.guests = [HostGuest(world, host, self.cloud) for host in ("g1", "g2", "g3")]
        self.source, self.writer, self.dead = self.guests[0], None, None

    def replicas(self):
        return [guest for guest in self.guests if guest is not self.source]

    def logs(self, lines=25):
        return "".join(f"\n--- {guest} ---\n{tail(guest.log, lines)}" for guest in self.guests)

    def task(self, task, guest, **more):
        try:
            return self.cloud.order("task", task=task, guest=guest, **more)
        except Refused as error:
            raise AssertionError(f"{task}: {error}{self.logs()}") from None

    def pids(self):
        return {guest.host: guest.database_pid() for guest in self.guests}

    def generation(self, guest=None):
        return (guest or self.source).call("get_pair_status")["generation"]

    def same(self, guests=None):
        """Waits until all have the same rows, and answers them."""
        guests = guests or self.guests

        def look():
            found = [guest.numbers() for guest in guests]
            return found[0] if all(one == found[0] for one in found) else None

        return within(15, lambda: f"the same rows everywhere{self.logs()}", look)

    def lost(self):
        there = self.same()
        return [number for number in self.writer.acknowledged if number not in there]

    def is_at(self, guest):
        """The addresses are there and nowhere else, answer there, are known there, and only that server takes writes."""
        holders = {address: [other.host for other in self.guests if other.holds(address)] for address in ADDRESSES}
        assert holders == {address: [guest.host] for address in ADDRESSES}, self.logs()
        for address in ADDRESSES:
            for host in ("cl", "gw"):
                # The gateway is asked before it asks: what it believes is what the announcement told it.
                assert self.world.neighbour(host, address) in (None, self.world.mac(guest.host)), f"{host} goes elsewhere for {address}"
                assert self.world.ping(host, address), f"{address} does not answer to {host}"
                assert self.world.neighbour(host, address) == self.world.mac(guest.host)
        assert [other.host for other in self.guests if not other.read_only()] == [guest.host]

    def promote(self, guest):
        """By upstream; answers the client's gap in milliseconds and the seconds of the whole task."""
        self.writer.wait()
        before, began = self.generation(), time.monotonic()
        states = self.task("promote", guest.id)
        took, self.source = time.monotonic() - began, guest
        for other in self.guests:
            assert states[other.id] == ["NONE", None if other is guest else guest.id], states
        assert self.writer.wait()[1] == int(guest.value("SELECT @@server_id"))
        gap = self.writer.gap(began)
        self.is_at(guest)
        assert self.generation() == before + 1
        within(10, "the generation is known to all", lambda: {self.generation(other) for other in self.guests} == {before + 1})
        return gap, took


@pytest.fixture(scope="module")
def trio():
    from ground.world import World, sweep

    sweep()
    with World() as world:
        made = None
        try:
            made = Trio(world)
            for guest in made.guests:
                guest.start(wait=False)
            for guest in made.guests:
                guest.wait_for_agent().on_the_bus()
            # A replica's databases come from its source, which is to be empty when they begin to follow: no copy is needed.
            made.source.prepare(config=made.cloud.order("template", guest=made.source.id, ram=512))
            yield made
        finally:
            if made and made.writer:
                made.writer.stop()
            keep_logs(world)


def test_the_address_is_given_once_and_replicas_are_created_by_upstream(trio):
    began = time.monotonic()
    trio.source.call("hold_vip", {"vip": VIP})
    server = trio.source.database_pid()
    states = trio.task("create_replica", [guest.id for guest in trio.replicas()], source=trio.source.id)
    for guest in trio.replicas():
        assert states[guest.id] == ["NONE", trio.source.id]
        assert not trio.cloud.tables(guest.id)["faults"]
    users = [{"_name": "alice", "_password": "pa-ss_w0rd", "_host": "%", "_databases": [{"_name": "app"}]}]
    databases = [{"_name": "app", "_character_set": "utf8mb4", "_collate": "utf8mb4_general_ci"}]
    trio.cloud.call(trio.source.id, "create_database", databases=databases, notification="DBaaSDatabaseCreate")
    trio.cloud.call(trio.source.id, "create_user", users=users, notification="DBaaSUserCreate")
    within(20, "the user", lambda: trio.source.sql("SELECT 1 FROM mysql.user WHERE user = 'alice'"))
    trio.source.sql("CREATE TABLE app.t (n INT PRIMARY KEY, who INT UNSIGNED) ENGINE=InnoDB")
    within(10, "the table", lambda: all(guest.sql("SHOW TABLES IN app") for guest in trio.guests))
    trio.is_at(trio.source)
    assert trio.source.database_pid() == server, "the source was restarted"
    trio.writer = Writer(trio.world, ADDRESSES[0])
    trio.writer.wait()
    print(f"two replicas and a client in {time.monotonic() - began:.1f} s")


def test_a_promotion_takes_the_address_along_and_back(trio):
    servers, first, gaps = trio.pids(), trio.source, []
    for guest in (trio.guests[1], trio.guests[2], first):
        gap, took = trio.promote(guest)
        gaps.append(gap)
        print(f"promoted {guest}: gap of the client {gap:.0f} ms, upstream's whole sequence {took:.2f} s")
    trio.writer.rest()
    lost = trio.lost()
    print(f"{len(gaps)} promotions, longest gap {max(gaps):.0f} ms, {len(trio.writer.acknowledged)} writes, lost: {len(lost)}")
    assert not lost
    assert trio.pids() == servers, "a server was restarted"
    trio.writer.go.set()


@pytest.mark.parametrize("foreign", VIP)
def test_an_address_that_a_foreign_host_has_is_not_taken(trio, foreign):
    """R2. Both families: one that is taken keeps the other one away too."""
    from ground.world import run

    guest, generation = trio.source, trio.generation()
    trio.writer.rest()
    trio.cloud.call(guest.id, "make_read_only", read_only=True)
    assert not [address for address in ADDRESSES if guest.holds(address)]
    host = trio.world.ns("gw")
    run(["ip", "-n", host, "address", "add", foreign, "dev", "eth1", *(["nodad"] if ":" in foreign else [])])
    try:
        with pytest.raises(Refused) as refused:
            trio.cloud.call(guest.id, "make_read_only", read_only=False)
        print(refused.value)
        assert foreign.split("/")[0] in refused.value.text and trio.world.mac("gw") in refused.value.text
        time.sleep(1)  # nothing tries again behind it either
        assert guest.read_only()
        assert not [address for address in ADDRESSES if guest.holds(address)]
        status = guest.call("get_pair_status")
        assert (status["role"], status["writable"], status["generation"]) == ("source", False, generation), status
    finally:
        run(["ip", "-n", host, "address", "del", foreign, "dev", "eth1"])
    trio.cloud.call(guest.id, "make_read_only", read_only=False)
    trio.writer.go.set()
    trio.writer.wait()
    # The gateway has had the address itself: what it knew is gone.
    trio.is_at(guest)
    assert trio.generation() == generation


def test_the_address_leaves_a_host_that_is_gone(trio):
    dead, left = trio.source, trio.replicas()
    trio.dead = dead
    servers, generation = {guest: guest.database_pid() for guest in left}, trio.generation()
    # Asynchronous: what a power cut takes along is another test's matter, so nothing is on its way.
    trio.writer.rest()
    trio.same()
    trio.world.ping("gw", ADDRESSES[0])
    dead.power_off()
    began = time.monotonic()
    trio.writer.go.set()
    trio.guests = left
    states = trio.task("eject", dead.id)
    took = time.monotonic() - began
    (trio.source,) = [guest for guest in left if states[guest.id][1] is None]
    trio.writer.wait()
    gap = trio.writer.gap(began)
    trio.is_at(trio.source)
    assert trio.generation() == generation + 1
    trio.writer.rest()
    lost = trio.lost()
    print(f"ejected {dead} in {took:.2f} s, gap of the client {gap:.0f} ms, lost: {len(lost)}")
    assert not lost
    assert {guest: guest.database_pid() for guest in left} == servers, "a server was restarted"
    trio.writer.go.set()


def test_a_source_that_returns_leaves_the_address_where_it_is(trio):
    """It comes back as the source that it was. Even when the address is free for a while, it does not step in."""
    dead = trio.dead
    dead.power_on().wait_for_agent()
    within(30, f"it sees the other one\n{tail(dead.log)}", lambda: dead.call("get_pair_status")["vip"]["state"] == "conflict")
    trio.is_at(trio.source)
    trio.writer.rest()
    trio.cloud.call(trio.source.id, "make_read_only", read_only=True)
    limit = time.monotonic() + 4  # longer than the agent's longest pause between two tries
    while time.monotonic() < limit:
        assert not [address for address in ADDRESSES if dead.holds(address)], tail(dead.log)
        time.sleep(0.1)
    assert dead.read_only(), tail(dead.log)
    trio.cloud.call(trio.source.id, "make_read_only", read_only=False)
    trio.is_at(trio.source)
    trio.writer.go.set()
    trio.writer.wait()
    trio.writer.rest()
    assert not trio.lost()
