"""Create-replica, promote, eject and detach as upstream's own taskmanager does them, against three guests with real servers.

The tests share the three guests and run in order: each begins and ends with one source and two replicas that follow it.
"""

import concurrent.futures
import threading
import time

import pymysql
import pytest

from peer.cloud import Refused
from peer.guest import Guest
from peer.process import kill, tail, within

PROMOTIONS = 20


def rows(guest, query, **login):
    with guest.connect(**login) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


class Writer(threading.Thread):
    """Writes numbers as an application does: to whoever takes them. `acknowledged` are those that a server said yes to."""

    def __init__(self, trio):
        super().__init__(daemon=True)
        self.guests, self.acknowledged, self.gaps = trio.guests, [], []
        self.over = threading.Event()
        self.start()

    def run(self):
        number, at, last = max([n for (n,) in rows(self.guests[0], "SELECT n FROM t")], default=0), 0, time.monotonic()
        connection = None
        while not self.over.is_set():
            try:
                connection = connection or self.guests[at].connect()
                number += 1
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO t VALUES (%s, @@server_id)", (number,))
                self.acknowledged.append(number)
                self.gaps.append(time.monotonic() - last)
                last = time.monotonic()
                time.sleep(0.005)
            except pymysql.MySQLError:
                if connection:
                    connection.close()
                connection, at = None, (at + 1) % len(self.guests)
                time.sleep(0.01)

    def stop(self):
        self.over.set()
        self.join(30)


class Trio:
    """Three guests; `source` is the one that upstream's table says."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.guests = [Guest(cloud, isolated=True) for _ in range(3)]
        self.source = self.guests[0]
        self.mine = None

    def replicas(self):
        return [guest for guest in self.guests if guest is not self.source]

    def task(self, task, guest, **more):
        try:
            return self.cloud.order("task", task=task, guest=guest, **more)
        except Refused as error:
            logs = "\n".join(f"--- {g.id}\n{tail(g.log, 25)}" for g in self.guests)
            raise AssertionError(f"{task}: {error}\n{logs}") from None

    def promote(self, guest):
        states = self.task("promote", guest.id)
        self.source = guest
        for other in self.guests:
            wanted = ["NONE", None if other is guest else guest.id]
            assert states[other.id] == wanted, states
        return states

    def same(self, guests=None, seconds=15):
        """Waits until all have the same rows, and answers them."""
        guests = guests or self.guests

        def look():
            found = [rows(guest, "SELECT n FROM t ORDER BY n") for guest in guests]
            return found[0] if all(one == found[0] for one in found) else None

        def why():
            return f"{[len(rows(g, 'SELECT n FROM t')) for g in guests]} rows\n" + "\n".join(tail(g.log, 20) for g in guests)

        return [n for (n,) in within(seconds, why, look)]

    def roles(self):
        """Which guests take writes of an ordinary user."""
        return [guest for guest in self.guests if rows(guest, "SELECT @@read_only") == ((0,),)]


@pytest.fixture(scope="module")
def trio(cloud):
    made = Trio(cloud)
    try:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            list(pool.map(Guest.start, made.guests))
        made.source.prepare(databases=[], users=[]).healthy()
        made.mine = cloud.order("backup", guest=made.source.id)
        yield made
    finally:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            list(pool.map(Guest.remove, made.guests))


def is_as_created(trio, cloud, guests, states):
    """What upstream's tables say of new replicas and of the row it made for their snapshot."""
    for guest in guests:
        assert cloud.status(guest.id) == "healthy", tail(guest.log, 60)
        assert states[guest.id] == ["NONE", trio.source.id]
        assert not cloud.tables(guest.id)["faults"]
    # That row is gone, and never said that there is a backup; the user's own backup is as it was.
    backups = {row["id"]: row for row in cloud.tables(trio.source.id)["backups"]}
    mine = backups.pop(trio.mine, None)
    assert not mine or (mine["state"], mine["deleted"]) == ("COMPLETED", 0)
    assert {(row["state"], row["deleted"]) for row in backups.values()} == {("FAILED", 1)}


def test_two_replicas_of_a_new_source_are_created(trio, cloud):
    """It has nothing to copy: they follow it from its beginning."""
    began = time.monotonic()
    server = trio.source.database_pid()
    states = trio.task("create_replica", [guest.id for guest in trio.replicas()], source=trio.source.id)
    print(f"two replicas in {time.monotonic() - began:.1f} s")
    is_as_created(trio, cloud, trio.replicas(), states)
    arguments = trio.source.prepare_args()
    cloud.call(trio.source.id, "create_database", databases=arguments["databases"], notification="DBaaSDatabaseCreate")
    cloud.call(trio.source.id, "create_user", users=arguments["users"], notification="DBaaSUserCreate")
    trio.source.logs_in()
    rows(trio.source, "CREATE TABLE t (n INT PRIMARY KEY, who INT UNSIGNED) ENGINE=InnoDB")
    rows(trio.source, "INSERT INTO t VALUES (1, @@server_id)")
    for guest in trio.replicas():
        guest.logs_in()
    within(10, "the table", lambda: all(rows(guest, "SHOW TABLES") for guest in trio.guests))
    assert trio.same() == [1]
    assert trio.roles() == [trio.source]
    assert trio.source.database_pid() == server, "the source was restarted"


def test_twenty_promotions_lose_nothing_and_restart_nothing(trio):
    servers = [guest.database_pid() for guest in trio.guests]
    writer = Writer(trio)
    took = []
    try:
        for number in range(PROMOTIONS):
            within(20, "a write", lambda before=len(writer.acknowledged): len(writer.acknowledged) > before)
            began = time.monotonic()
            trio.promote(trio.guests[(number + 1) % 3])
            took.append(time.monotonic() - began)
        within(20, "a write", lambda before=len(writer.acknowledged): len(writer.acknowledged) > before)
    finally:
        writer.stop()
    took.sort()
    gaps = sorted(writer.gaps)[-PROMOTIONS:]
    print(f"{PROMOTIONS} promotions: {took[len(took) // 2]:.2f} s each (p50), {len(writer.acknowledged)} writes")
    print(f"write gaps p50 {gaps[len(gaps) // 2] * 1000:.0f} ms, longest {gaps[-1] * 1000:.0f} ms")
    there = set(trio.same())
    assert not [n for n in writer.acknowledged if n not in there], "acknowledged writes are lost"
    assert trio.roles() == [trio.source]
    assert [guest.database_pid() for guest in trio.guests] == servers, "a server was restarted"


def test_a_promotion_does_not_wait_behind_a_long_change(trio, cloud):
    """A database is dropped that a session has in use: the main lane waits for that session."""
    source = trio.source
    root = cloud.call(source.id, "enable_root")
    login = {"user": "root", "password": root["_password"], "database": None}
    rows(source, "CREATE DATABASE held", **login)
    rows(source, "CREATE TABLE held.t (n INT) ENGINE=InnoDB", **login)
    holder = source.connect(**login)
    try:
        with holder.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT * FROM held.t")
        cloud.call(source.id, "delete_database", notification="DBaaSDatabaseDelete", database={"_name": "held"})
        within(10, "the change", lambda: source.status()["operation"])
        began = time.monotonic()
        assert cloud.call(source.id, "get_replica_context", timeout=10)["master"]["port"] == source.port
        cloud.call(source.id, "enable_as_master", replica_source_config="", timeout=10)
        assert time.monotonic() - began < 5
        assert source.status()["operation"]["method"] == "delete_database"
    finally:
        holder.close()
    within(20, "the end of the change", lambda: not source.status()["operation"])
    trio.same()


GARBAGE = [
    ("attach_replica", {"replica_info": {}, "slave_config": ""}, "replica_info.master is missing"),
    ("attach_replica", {"replica_info": {"master": {"port": 1}}, "slave_config": ""}, "replica_info.master.host is missing"),
    ("attach_replica", {"replica_info": {"master": {"host": ["x"], "port": 1}}, "slave_config": ""}, "replica_info.master.host"),
    ("attach_replica", {"replica_info": {"master": {"host": "x' y", "port": 1}}, "slave_config": ""}, "no address"),
    ("attach_replica", {"replica_info": {"master": {"host": "127.0.0.1", "port": 70000}}, "slave_config": ""}, "master.port"),
    ("attach_replica", {"replica_info": {"master": {"host": "127.0.0.1", "port": 1}}, "slave_config": ""}, "replication_user"),
    ("attach_replica", {"replica_info": [], "slave_config": ""}, "replica_info"),
    ("attach_replica", {"slave_config": ""}, "replica_info"),
    ("attach_replica", {"replica_info": {}, "slave_config": "", "colour": 1}, "colour"),
    ("detach_replica", {"for_failover": "perhaps"}, "for_failover"),
    ("make_read_only", {"read_only": "yes"}, "read_only"),
    ("make_read_only", {}, "read_only"),
    ("make_read_only", {"read_only": False}, "a replica is not opened"),
    ("enable_as_master", {"replica_source_config": 7}, "replica_source_config"),
    ("wait_for_txn", {"txn": "nonsense"}, "txn"),
    ("wait_for_txn", {"txn": None}, "txn"),
    ("wait_for_txn", {}, "txn"),
    ("get_replication_snapshot", {"snapshot_info": {"id": None}}, "snapshot_info.id"),
    ("get_replication_snapshot", {"snapshot_info": "x"}, "snapshot_info"),
    ("cleanup_source_on_replica_detach", {"replica_info": {"replication_user": "root"}}, "no login of a replica"),
    ("cleanup_source_on_replica_detach", {"replica_info": {"replication_user": [1]}}, "no login of a replica"),
]


def test_garbage_is_refused_in_words_and_changes_nothing(trio, cloud):
    replica = trio.replicas()[0]
    moment = time.time()
    wrong = []
    for method, kwargs, said in GARBAGE:
        try:
            wrong.append(f"{method} {kwargs}: answered {cloud.raw(replica.id, method, kwargs=kwargs)!r}")
        except Refused as refused:
            if said not in refused.text or refused.kind == "MessagingTimeout":
                wrong.append(f"{method} {kwargs}: {refused}")
    assert not wrong, "\n".join(wrong)
    good = cloud.call(trio.source.id, "get_replica_context")
    for change, said in [
        ({"replication_strategy": "MysqlGTIDReplication"}, "strategy"),
        ({"master": {"host": "127.0.0.1", "port": replica.port}}, "this guest itself"),
        ({"dataset": {"dataset_size": 1e9}, "trove_guestagent": {"from": ""}}, "1000000000"),
        ({"dataset": {"dataset_size": 0.1}}, "not supported"),
        ({"dataset": {"log_executed_gtid_set": "what"}}, "Unable to determine last GTID"),
        ({"dataset": {}, "trove_guestagent": {"clone": {"host": "127.0.0.1", "port": 9, "key": "short"}}}, "clone.key"),
        ({"dataset": {}, "trove_guestagent": {"from": ""}}, "would overwrite databases of this guest: app"),
    ]:
        with pytest.raises(Refused) as refused:
            cloud.call(replica.id, "attach_replica", replica_info={**good, **change}, slave_config="")
        assert said in refused.value.text, refused.value
    assert cloud.heartbeat_after(replica.id, moment) == "healthy"
    rows(trio.source, "DELETE FROM t WHERE n = 0")
    trio.same()
    assert trio.roles() == [trio.source]


def test_a_source_that_is_not_there_is_told_and_the_replica_comes_back(trio, cloud):
    replica = trio.replicas()[0]
    good = cloud.call(trio.source.id, "get_replica_context")
    login = {"name": good["replica_conf"]["replication_user"]["name"], "password": "another"}
    bad = {**good, "replica_conf": {"replication_user": login}}
    with pytest.raises(Refused) as refused:
        cloud.call(replica.id, "attach_replica", replica_info=bad, slave_config="")
    assert "refuses" in refused.value.text and "another" not in refused.value.text
    for era in (good, {"master": good["master"], "log_position": {"replication_user": good["replica_conf"]["replication_user"]}}):
        cloud.call(replica.id, "attach_replica", replica_info=era, slave_config="")
    trio.same()
    position = cloud.call(trio.source.id, "get_latest_txn_id")
    cloud.call(replica.id, "wait_for_txn", txn=position)
    assert cloud.call(replica.id, "get_txn_count") > 0
    began = time.monotonic()
    domain, server, number = position.split(",")[0].split("-")
    with pytest.raises(Refused) as refused:
        cloud.call(replica.id, "wait_for_txn", txn=f"{domain}-{server}-{int(number) + 1000}", timeout=6)
    assert time.monotonic() - began < 12 and "not reached" in refused.value.text


# One end of the agent for each; the caller gets its answer all the same.
POINTS = ["accept/before", "accept/after", "started/after", "finish/before", "finish/after"], [
    "begin/before", "begin/after", "follow/before", "follow/after", "finish/before",
]


def survive(trio, guest):
    """Detaches and attaches one replica, the agent aborting at a point each time."""
    points = [point for pair in zip(*POINTS) for point in pair]
    names = [f"{'detach_replica' if at % 2 == 0 else 'attach_replica'}/{point}" for at, point in enumerate(points)]
    guest.agent.stop()
    guest.start(abort_at=names[0])
    for at, name in enumerate(names):
        method, kwargs = "detach_replica", {"for_failover": True}
        if at % 2:
            method = "attach_replica"
            kwargs = {"replica_info": trio.cloud.call(trio.source.id, "get_replica_context"), "slave_config": "", "restart": True}
        answer = trio.cloud.send("call", guest=guest.id, method=method, kwargs=kwargs, timeout=60)
        within(30, lambda: f"the abort at {name}\n{tail(guest.log)}", lambda: not guest.agent.running())
        assert guest.agent.child.returncode == -6
        guest.start(abort_at=names[at + 1] if at + 1 < len(names) else None, wait=False)
        try:
            answer(90)
        except Refused as refused:
            raise AssertionError(f"{name}: {refused}\n{tail(guest.log, 40)}") from None
        assert rows(guest, "SELECT @@read_only") == ((1,),), name
    return len(names)


def test_an_abort_at_any_step_of_detach_and_attach_is_taken_up(trio):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda guest: survive(trio, guest), trio.replicas()))
    rows(trio.source, "INSERT INTO t VALUES (1000001, @@server_id)")
    assert 1000001 in trio.same()
    print(f"{sum(ends)} aborts survived")


def test_servers_keep_their_roles_over_a_restart(trio, cloud):
    replica = trio.replicas()[0]
    for guest in (replica, trio.source):
        cloud.call(guest.id, "restart")
    assert trio.roles() == [trio.source]
    rows(trio.source, "INSERT INTO t VALUES (1000002, @@server_id)")
    assert 1000002 in trio.same()


def test_a_replica_copies_a_source_that_has_data_whatever_happens_to_its_agent(trio, cloud):
    guest = Guest(cloud, isolated=True)
    before = trio.same()
    steps = guest.cli("methods", "--steps", "mariadb", "--replica").split()
    assert steps.index("seed") + 1 == steps.index("follow") == steps.index("ready") - 1
    points = ["prepare/seed/before", "prepare/seed/after", "prepare/follow/before", "prepare/follow/after", None]
    try:
        guest.start(abort_at=points[0])
        began = time.monotonic()
        answer = cloud.send("task", task="create_replica", guest=[guest.id], source=trio.source.id)
        for at, point in enumerate(points[:-1]):
            within(60, lambda p=point: f"the abort at {p}\n{tail(guest.log)}", lambda: not guest.agent.running())
            guest.start(abort_at=points[at + 1], wait=False)
        states = answer(120)
        print(f"one replica by a copy in {time.monotonic() - began:.1f} s")
        is_as_created(trio, cloud, [guest], states)
        assert trio.same([guest]) == before
        rows(trio.source, "INSERT INTO t VALUES (1000003, @@server_id)")
        assert 1000003 in trio.same([guest, *trio.guests])
        # It can be promoted, and its agent still has accounts of its own.
        trio.guests.append(guest)
        old = trio.source
        trio.promote(guest)
        cloud.call(guest.id, "list_users")
        trio.promote(old)
        trio.task("detach", guest.id)
    finally:
        if guest in trio.guests:
            trio.guests.remove(guest)
        guest.remove()


def test_a_dead_source_is_ejected(trio, cloud):
    dead, left = trio.source, trio.replicas()
    before = trio.same()
    dead.agent.kill()
    kill(dead.database_pid())
    trio.guests = left
    states = trio.task("eject", dead.id)
    (winner,) = [guest for guest in left if states[guest.id][1] is None]
    rows(winner, "INSERT INTO t VALUES (3000001, @@server_id)")
    trio.source = winner
    assert trio.same() == before + [3000001]
    dead.remove()


def test_a_replica_is_detached_and_stands_alone(trio, cloud):
    guest = trio.replicas()[0]
    trio.task("detach", guest.id)
    rows(guest, "INSERT INTO t VALUES (2000001, @@server_id)")
    assert len(trio.roles()) == 2
    assert (2000001,) not in rows(trio.source, "SELECT n FROM t")
    # It has a write of its own now: following again is refused, and it is told why.
    context = cloud.call(trio.source.id, "get_replica_context")
    with pytest.raises(Refused):
        cloud.call(guest.id, "attach_replica", replica_info=context, slave_config="")
