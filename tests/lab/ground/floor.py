"""The floor: two bare servers and a hand-written script that does what a switchover needs and nothing else.

No checks, no way back, no fence, no memory: what it takes is what the machine needs for the statements and the packets.
"""

import socket
import struct
import subprocess
import threading
import time

from ground.guest import MY_CNF, Guest, Refused
from ground.pair import VIPS, Facts, Mode, Pair
from ground.sql import Session
from ground.world import NICS, World, run

CNF = """\
server_id = {number}
log_bin = binlog
log_slave_updates = ON
gtid_strict_mode = ON
binlog_format = ROW
sync_binlog = 1
innodb_flush_log_at_trx_commit = 1
rpl_semi_sync_master_wait_point = AFTER_SYNC
rpl_semi_sync_slave_enabled = {semi}
"""
# How long the old host keeps the address, read-only and refusing, so that nobody's packets fall into a hole.
LINGER = 0.05


def config(guest, durability="async"):
    """The configuration text of `prepare` for a server of the floor."""
    number = World.address(guest.host).rpartition(".")[2]
    return MY_CNF + CNF.format(number=number, semi=int(durability != "async"))


class Host:
    """One of the two, with everything held open that a move needs."""

    def __init__(self, guest):
        self.guest, self.world = guest, guest.world
        self.one, self.two = Session(guest), Session(guest)
        self.ip = subprocess.Popen(
            ["ip", "-n", self.world.ns(guest.host), "-batch", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with self.world.inside(guest.host):
            self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self.raw.bind((NICS["d"], 0))

    def address(self, verb, vip):
        """`add` or `del`; the tool is running already."""
        nodad = " nodad" if ":" in vip and verb == "add" else ""
        self.ip.stdin.write(f"address {verb} {vip} dev {NICS['d']}{nodad}\n".encode())
        self.ip.stdin.flush()

    def announce(self, vip):
        """Gratuitous ARP as a request, or an unsolicited neighbour advertisement."""
        mac = bytes.fromhex(self.world.mac(self.guest.host).replace(":", ""))
        text = vip.split("/")[0]
        if ":" not in text:
            ip = socket.inet_aton(text)
            frame = b"\xff" * 6 + mac + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + ip + b"\0" * 6 + ip
        else:
            ip, nodes = socket.inet_pton(socket.AF_INET6, text), socket.inet_pton(socket.AF_INET6, "ff02::1")
            body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + ip + b"\x02\x01" + mac
            total = sum(struct.unpack(f"!{(36 + len(body)) // 2}H", ip + nodes + struct.pack("!HH", len(body), 58) + body))
            while total >> 16:
                total = (total & 0xFFFF) + (total >> 16)
            body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
            frame = b"\x33\x33\0\0\0\x01" + mac + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + ip + nodes + body
        self.raw.send(frame)

    def follow(self, source, password):
        """Statements that make it the other's replica."""
        return (
            f"CHANGE MASTER TO MASTER_HOST='{self.world.address(source.guest.host)}', MASTER_PORT=3306, MASTER_USER='repl', "
            f"MASTER_PASSWORD='{password}', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1; START SLAVE"
        )

    def close(self):
        for thing in (self.one, self.two, self.raw):
            thing.close()
        self.ip.kill()
        self.ip.wait()


class Floor:
    """A pair by hand. The guests are prepared with `config` and their agents are gone."""

    def __init__(self, source, replica, vips, password, durability="async"):
        self.source, self.replica = Host(source), Host(replica)
        self.vips, self.password, self.durability = vips, password, durability

    def create(self):
        """Both were prepared apart, the client's user on the source only: the same users on both, then from zero."""
        one, two = self.source.one, self.replica.one
        (user,) = one.sql("SELECT authentication_string FROM mysql.user WHERE user='lab'")
        for session in (one, two):
            session.sql("SET sql_log_bin=0; CREATE DATABASE IF NOT EXISTS lab")
            session.sql(f"CREATE USER IF NOT EXISTS lab@'%' IDENTIFIED BY PASSWORD '{user[0]}'; GRANT ALL ON lab.* TO lab@'%'")
            session.sql(f"CREATE USER repl@'%' IDENTIFIED BY '{self.password}'; GRANT REPLICATION SLAVE ON *.* TO repl@'%'")
            session.sql("RESET MASTER; SET GLOBAL gtid_slave_pos=''; SET sql_log_bin=1")
        two.sql("SET GLOBAL read_only=1")
        two.sql(self.replica.follow(self.source, self.password))
        self.durable(self.source)
        for vip in self.vips:
            self.source.address("add", vip)
            self.source.announce(vip)
        return self

    def durable(self, host):
        on = int(self.durability != "async")
        host.one.sql(
            f"SET GLOBAL rpl_semi_sync_master_enabled={on}; SET GLOBAL rpl_semi_sync_master_timeout={2**31 if self.durability == 'durable' else 1000}"
        )

    def switchover(self):
        """Answers the seconds that it took until the new one was open."""
        old, new = self.source, self.replica
        began = time.monotonic()
        old.one.sql("SET GLOBAL read_only=1")
        sessions = old.one.sql("SELECT id FROM information_schema.processlist WHERE user='lab'")
        for (ident,) in sessions:
            try:
                old.one.sql(f"KILL {ident}")
            except Refused:
                pass  # it went by itself
        position = old.one.value("SELECT @@gtid_current_pos")
        assert new.one.value(f"SELECT MASTER_GTID_WAIT('{position}', 5)") == "0", "the replica did not catch up"
        new.one.sql("STOP SLAVE; RESET SLAVE ALL; SET GLOBAL rpl_semi_sync_slave_enabled=0")
        self.durable(new)
        for vip in self.vips:
            new.address("add", vip)
        new.one.sql("SET GLOBAL read_only=0")
        for vip in self.vips:
            new.announce(vip)
        took = time.monotonic() - began
        threading.Thread(target=self._turn, args=(old, new), daemon=True).start()
        self.source, self.replica = new, old
        time.sleep(3 * LINGER)
        return took

    def _turn(self, old, new):
        old.two.sql(f"SET GLOBAL rpl_semi_sync_master_enabled=0; SET GLOBAL rpl_semi_sync_slave_enabled={int(self.durability != 'async')}")
        old.two.sql(old.follow(new, self.password))
        time.sleep(LINGER)
        for vip in self.vips:
            old.address("del", vip)

    def close(self):
        self.source.close()
        self.replica.close()


FLOOR = Mode("floor", "async", "manual")


class FloorPair(Pair):
    """The floor as if it were a pair: for trying the judge, and for comparing figures."""

    def __init__(self, world, guests, mode=FLOOR):
        super().__init__(world, None, guests, mode)
        self.switched = 0

    @classmethod
    def build(cls, world, password, mode=FLOOR):
        """Two servers, prepared by the agent, which then goes: from here on it is by hand."""
        guests = [Guest(world, host, "rabbit://guest:guest@127.0.0.1:1//").start(wait=False) for host in ("g1", "g2")]
        for guest in guests:
            guest.wait_for_agent().prepare_with_user(password, config(guest, mode.durability))
            guest.kill_agent()
        pair = cls(world, guests, mode)
        pair.floor = Floor(*guests, VIPS, "repl", mode.durability).create()
        return pair

    def facts(self, guest):
        host = self.floor.source if guest is self.floor.source.guest else self.floor.replica
        source = host is self.floor.source
        try:
            status = host.two.sql("SHOW SLAVE STATUS")
            read_only = host.two.value("SELECT @@read_only") != "0"
        except Refused:
            return None
        runs = bool(status) and status[0][10:12] == ["Yes", "Yes"]
        return Facts("source" if source else "replica", not read_only, "", self.switched, runs, True, False, True, {})

    def running(self, guest):
        return True

    def switchover(self, guest=None, good=True, seconds=60):
        self.floor.switchover()
        self.switched += 1
