"""Guests on hosts of their own (tests/lab/ground): network namespaces on a management and a data network, and upstream's control plane
beside the broker, on the management network only."""

import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

from peer.cloud import Cloud
from peer.process import TOP, within

sys.path.append(str(TOP / "tests" / "lab"))

from ground import guest as ground  # noqa: E402
from ground.control import HOST, PORT, Control  # noqa: E402

GUEST_INFO = """\
[DEFAULT]
guest_id={guest}
datastore_manager=mariadb
datastore_version=10.11
tenant_id=p1
datastore_registry_ext=mariadb:trove.guestagent.datastore.mariadb.manager.Manager
replication_strategy=trove.guestagent.strategies.replication.mariadb_gtid.MariaDBGTIDReplication
instance_rpc_encr_key={key}
"""

AGENT_CONF = """\
[DEFAULT]
transport_url = {transport_url}
control_exchange = trove
report_interval = 2
state_change_wait_time = 60

[mariadb]
volume_support = false
database_service_uname = mysql

[trove_guestagent]
root = {root}
supervisor = supervised
data_interface = eth1

[datastore]
port = 3306
"""
LOGIN = {"user": "alice", "password": "pa-ss_w0rd", "database": "app"}


def impossible():
    """Why there can be no hosts on this machine; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip") or subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        return "network namespaces cannot be made here"
    return ""


class HostBroker(Control):
    """The broker on its host, as the tests' control plane asks it."""

    def has_queue(self, name):
        with self.world.inside(HOST):
            return super().has_queue(name)


class HostCloud(Cloud):
    """Upstream's client, taskmanager and conductor on the broker's host: none of them is on the data network."""

    def __init__(self, world, broker):
        super().__init__(world.folder / "cloud", broker)
        self.world = world

    def start(self):
        with self.world.inside(HOST):
            super().start()


class HostGuest(ground.Guest):
    """A guest that upstream's tables know."""

    def __init__(self, world, host, cloud):
        super().__init__(world, host, cloud.broker.transport_url)
        self.cloud = cloud
        self.id, self.key = cloud.new_instance()
        texts = {
            "guest_info.conf": GUEST_INFO.format(guest=self.id, key=self.key),
            "trove-guestagent.conf": AGENT_CONF.format(transport_url=cloud.broker.transport_url, root=self.root),
        }
        for name, text in texts.items():
            (self.conf / name).write_text(text, encoding="utf-8")
            (self.conf / name).chmod(0o600)

    def on_the_bus(self):
        """Waits until a call over the bus arrives; one into a queue that is not there yet would be lost."""
        within(30, f"the queue of {self}", lambda: self.cloud.broker.has_queue(f"guestagent.{self.id}"))
        return self

    def numbers(self):
        """What the table of the writer has here."""
        return {int(row[0]) for row in self.sql("SELECT n FROM app.t")}

    def read_only(self):
        return self.value("SELECT @@read_only") == "1"


class Writer(threading.Thread):
    """An application on the client's host: writes numbers through one address. `acknowledged` are those that a server said yes to."""

    def __init__(self, world, address):
        super().__init__(daemon=True)
        self.world, self.address = world, address
        self.acknowledged = {}  # number -> (when, server id)
        self.number, self.why = 0, None
        self.over = threading.Event()
        self.go = threading.Event()
        self.resting = threading.Event()
        self.go.set()
        self.start()

    def run(self):
        with self.world.inside("cl"):
            self.work()

    def work(self):
        import pymysql

        connection = None
        while not self.over.is_set():
            if not self.go.is_set():
                self.resting.set()
                self.go.wait(0.1)
                continue
            self.number += 1
            try:
                connection = connection or pymysql.connect(
                    host=self.address, port=3306, connect_timeout=1, read_timeout=2, write_timeout=2, autocommit=True, **LOGIN
                )
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO t VALUES (%s, @@server_id) RETURNING who", (self.number,))
                    ((server,),) = cursor.fetchall()
                self.acknowledged[self.number] = (time.monotonic(), server)
                time.sleep(0.005)
            except (pymysql.MySQLError, OSError) as error:
                self.why = error
                if connection:
                    connection.close()
                connection = None
                time.sleep(0.005)

    def rest(self):
        """Stops writing; returns when nothing is on its way any more."""
        self.resting.clear()
        self.go.clear()
        assert self.resting.wait(10), "the writer does not rest"

    def wait(self, seconds=20):
        """Waits for the next acknowledged write; answers when it was acknowledged and by which server."""
        before = len(self.acknowledged)
        within(seconds, lambda: f"a write through {self.address}: {self.why}", lambda: len(self.acknowledged) > before, every=0.01)
        return list(self.acknowledged.values())[-1]

    def gap(self, since):
        """The longest time without an acknowledged write after a moment, in milliseconds."""
        moments = [since] + [at for at, _ in list(self.acknowledged.values()) if at > since]
        return max((b - a for a, b in zip(moments, moments[1:])), default=0) * 1000

    def stop(self):
        self.over.set()
        self.go.set()
        self.join(15)


def keep_logs(world):
    """Beside the other logs, if they are wanted."""
    place = os.environ.get("TROVE_TEST_LOGS")
    for log in [*world.folder.rglob("*.log"), *world.folder.rglob("*.err")] if place else ():
        kept = pathlib.Path(place, "vip", *log.relative_to(world.folder).parts)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, kept)


__all__ = ["HOST", "PORT", "HostBroker", "HostCloud", "HostGuest", "Writer", "impossible", "keep_logs"]
