"""Backups as upstream asks for them: its unmodified client sends, its unmodified conductor writes the row, real servers hold the data."""

import json
import os
import threading
import time
import urllib.request

import pytest

from peer.guest import Guest
from peer.process import tail, within

ROWS = 2000


class Watch(threading.Thread):
    """Notes each state that a backup's row has had."""

    def __init__(self, cloud, guest, ident):
        super().__init__(daemon=True)
        self.look = lambda: next((row for row in cloud.tables(guest.id)["backups"] if row["id"] == ident), None)
        self.states, self.over = [], threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            row = self.look()
            if row and row["state"] not in self.states[-1:]:
                self.states.append(row["state"])
            time.sleep(0.02)

    def end(self, guest, wanted, seconds=90):
        """Waits for the state and answers the row."""
        try:
            why = lambda: f"state {wanted}, there were {self.states}\n{tail(guest.log, 60)}"  # noqa: E731
            within(seconds, why, lambda: self.states[-1:] == [wanted] or self.states[-1:] == ["FAILED"])
        finally:
            self.over.set()
        assert self.states[-1] == wanted, f"{self.states}\n{tail(guest.log, 60)}"
        return self.look()


def ask(cloud, guest, token="token-of-the-user", parent=None, **more):
    """Upstream's API and taskmanager: the row, the request."""
    ident = cloud.order("backup", guest=guest.id, state="NEW")
    watch = Watch(cloud, guest, ident)
    within(10, "the row", lambda: watch.states)
    info = {
        "id": ident, "name": "daily", "description": None, "instance_id": guest.id, "backup_type": None, "checksum": None,
        "parent": parent, "datastore": "mariadb", "datastore_version": "10.11", "storage_driver": "file",
        "swift_container": None, **more,
    }
    traits = {"name": "daily", "instance_id": guest.id, "description": "", "parent_id": None, "backup_id": ident}
    cloud.order(
        "call", guest=guest.id, method="create_backup", kwargs={"backup_info": info}, token=token,
        notification="DBaaSBackupCreate", traits=traits,
    )
    return ident, watch


def fill(guest, first=0):
    with guest.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS t (n INT PRIMARY KEY, payload VARCHAR(200)) ENGINE=InnoDB")
        values = ",".join(f"({n}, REPEAT(MD5({n}), 6))" for n in range(first, first + ROWS))
        cursor.execute(f"INSERT INTO t VALUES {values}")


def held(guest):
    """What the guest holds: count and a checksum of all rows."""
    with guest.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*), BIT_XOR(CRC32(CONCAT(n, payload))) FROM t")
        return cursor.fetchone()


def keep_in(guest, folder, *more):
    folder.mkdir(exist_ok=True)
    lines = [f"backup_storage = file://{folder}", "backup_progress = 0.1", *more]
    guest.configure("[trove_guestagent]\n", "[trove_guestagent]\n" + "\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def source(cloud):
    guest = Guest(cloud)
    keep_in(guest, guest.folder / "store", "backup_log = true")
    try:
        guest.start().prepare().healthy().logs_in()
        fill(guest)
        yield guest
    finally:
        guest.remove()


def restore_info(row):
    """What a taskmanager tells the new guest."""
    return {
        "id": row["id"], "instance_id": row["instance_id"], "location": row["location"], "type": row["backup_type"],
        "checksum": row["checksum"], "storage_driver": "file", "swift_url": None,
    }


def test_a_row_goes_from_new_over_building_to_completed_and_restores_on_a_new_guest(cloud, source, new_guest):
    ident, watch = ask(cloud, source)
    row = watch.end(source, "COMPLETED")
    assert watch.states == ["NEW", "BUILDING", "COMPLETED"]
    assert row["backup_type"] == "full" and row["size"] > 0 and len(row["checksum"]) == 32
    assert row["location"] == f"file://{source.folder}/store/{ident}.xbstream.zst"
    within(10, "the end is told", lambda: told(cloud, ident, ".end"))
    full = held(source)
    # An increment by the control plane's own words, then both on a new guest.
    fill(source, ROWS)
    parent = {"location": row["location"], "checksum": row["checksum"]}
    _, watch = ask(cloud, source, parent=parent)
    increment = watch.end(source, "COMPLETED")
    assert increment["backup_type"] == "incremental" and held(source) != full
    guest = new_guest()
    guest.start().prepare(backup_info=restore_info(increment), databases=[], users=[]).healthy().logs_in()
    assert held(guest) == held(source)
    assert cloud.call(guest.id, "list_databases")[0], "its agent has accounts of its own"
    # The operator's side of it: verify, and back to the full one in the place of what there is.
    listed = json.loads(guest.cli("backup", "list", "--all", "--json", "--storage", f"file://{source.folder}/store"))
    assert {one["id"] for one in listed["backups"]} == {ident, increment["id"]}
    good = json.loads(source.cli("backup", "verify", increment["id"], "--json", seconds=120))
    assert good["verified"]["good"] is True and good["verified"]["report"]["compared"] >= 1, good
    with source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE t")
    source.cli("backup", "restore", ident, seconds=120)
    source.logs_in()
    assert held(source) == full
    assert cloud.expect(source.id, "healthy")


def told(cloud, ident, end):
    """Whether the conductor emitted a notification about this backup that ends so."""
    return any(ident in json.dumps(payload) and event.endswith(end) for event, payload in cloud.notifications())


def fault(cloud, guest, ident):
    """What the end user is shown of a backup that failed."""

    def look():
        return next((row["message"] for row in cloud.tables(guest.id)["faults"] if ident in row["message"]), None)

    return within(20, lambda: f"a fault of {ident}\n{tail(guest.log)}", look)


def fails(cloud, guest, said, **more):
    began = time.monotonic()
    ident, watch = ask(cloud, guest, **more)
    watch.end(guest, "FAILED", 60)
    within(20, "the reason is told", lambda: told(cloud, ident, ".error"))
    message = fault(cloud, guest, ident)
    assert message.startswith(f"Failed to create backup {ident}") and said in message, message
    return time.monotonic() - began


def test_a_row_fails_with_its_reason_for_each_fault(cloud, source):
    store = source.folder / "store"
    fails(cloud, source, "unknown", storage_driver="tape")
    fails(cloud, source, "there is no backup", parent={
        "location": f"file://{store}/0c2a6c1e-9a7b-4f3d-8b11-6f8b5f0a1d22.xbstream.zst", "checksum": "x" * 32,
    })
    before = sorted(store.iterdir())
    moved = source.folder / "elsewhere"
    store.rename(moved)
    store.write_text("a file where the folder should be", encoding="utf-8")
    try:
        fails(cloud, source, str(store))
    finally:
        store.unlink()
        moved.rename(store)
    # The server is not there.
    cloud.call(source.id, "stop_db")
    try:
        fails(cloud, source, "server")
    finally:
        cloud.call(source.id, "restart")
    assert sorted(path for path in store.iterdir() if not path.name.startswith(".")) == [
        path for path in before if not path.name.startswith(".")
    ], "nothing is left of them"
    ident, watch = ask(cloud, source)
    assert watch.end(source, "COMPLETED"), "and the next one is good"


def test_a_backup_that_a_crash_cut_off_fails_at_the_next_start(cloud, source):
    source.agent.stop()
    source.start(abort_at="create_backup/begin/after")
    ident, watch = ask(cloud, source)
    within(30, lambda: f"the abort\n{tail(source.log)}", lambda: not source.agent.running())
    source.start()
    watch.end(source, "FAILED", 20)
    assert "the agent ended" in fault(cloud, source, ident)


def test_the_moment_before_a_disaster_comes_back(cloud, source):
    _, watch = ask(cloud, source)
    watch.end(source, "COMPLETED")
    with source.connect() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (900001, 'after the backup')")
        cursor.execute("SELECT @@gtid_binlog_pos")
        ((good,),) = cursor.fetchall()
        before = held(source)
        cursor.execute("DROP TABLE t")
        cursor.execute("SELECT @@gtid_binlog_pos")
        ((bad,),) = cursor.fetchall()

    def shipped():
        log = json.loads(source.cli("backup", "window", "--json"))["log"]
        return log["position"] == bad and log["state"] == "current"

    within(20, lambda: f"the log\n{source.cli('backup', 'window', '--json')}\n{tail(source.log)}", shipped, every=0.5)
    source.cli("backup", "restore", "--to-gtid", good, seconds=120)
    source.logs_in()
    assert held(source) == before, "all of it, and not the DROP"


def token_of(url):
    request = urllib.request.Request(url + "/auth/v1.0", headers={"X-Auth-User": "trove:tester", "X-Auth-Key": "testing"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["X-Auth-Token"]


@pytest.mark.skipif(not os.environ.get("TROVE_TEST_SWIFT"), reason="no Swift: TROVE_TEST_SWIFT")
def test_a_backup_lies_in_swift_where_upstream_looks_for_it(cloud, source, new_guest):
    url = os.environ["TROVE_TEST_SWIFT"].rstrip("/")
    token, account = token_of(url), f"{url}/v1/AUTH_trove"
    ident, watch = ask(cloud, source, token=token, storage_driver="swift", swift_url=account, swift_container=f"c-{source.id}")
    row = watch.end(source, "COMPLETED")
    assert row["location"].startswith(f"{account}/c-{source.id}/{ident}.")
    # What upstream does before it restores: the object's ETag is the row's checksum.
    request = urllib.request.Request(row["location"], method="HEAD", headers={"X-Auth-Token": token})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["ETag"].strip('"') == row["checksum"]
    # A token that nobody knows fails the row and says so.
    _, watch = ask(cloud, source, token="nobody", storage_driver="swift", swift_url=account)
    watch.end(source, "FAILED", 60)
    guest = new_guest()
    guest.start()
    info = {**restore_info(row), "storage_driver": "swift", "swift_url": account}
    cloud.order(
        "call", guest=guest.id, method="prepare", kwargs=guest.prepare_args(backup_info=info, databases=[], users=[]),
        notification="DBaaSInstanceCreate", token=token,
    )
    guest.healthy().logs_in()
    assert held(guest) == held(source)
