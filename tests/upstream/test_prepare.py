"""The main job: from `prepare` to a healthy instance in upstream's own tables, and what must happen when it cannot be done."""

import os
import subprocess
import time

import pytest

from peer.process import tail, within


def fault(cloud, guest):
    """The text that a user would be shown."""
    return within(20, "a fault", lambda: cloud.tables(guest.id)["faults"])[-1]["message"]


def test_an_instance_becomes_healthy_and_usable(new_guest, cloud):
    guest = new_guest().start()
    assert cloud.status(guest.id) == "new"
    guest.prepare()
    cloud.expect(guest.id, ("building", "healthy"), 15)
    pings = 0
    while cloud.status(guest.id) == "building":
        # Quick calls answer while prepare runs.
        started = time.monotonic()
        assert cloud.call(guest.id, "rpc_ping") is True
        assert cloud.call(guest.id, "get_volume_info")["total"] > 0
        assert time.monotonic() - started < 5
        pings += 1
    guest.healthy().logs_in()
    assert pings > 0
    with guest.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (n INT PRIMARY KEY) ENGINE=InnoDB")
        cursor.execute("INSERT INTO t VALUES (1), (2)")
        cursor.execute("SELECT COUNT(*) FROM t")
        assert cursor.fetchone() == (2,)
    events = within(20, "the notification", lambda: dict(cloud.notifications(guest.id)).get("dbaas.instance_create.end"))
    assert events["instance_id"] == guest.id
    assert not cloud.tables(guest.id)["faults"]
    # Heartbeats go on.
    assert cloud.heartbeat_after(guest.id, time.time()) == "healthy"
    # It runs as the database's user, not as root.
    assert os.stat(f"/proc/{guest.database_pid()}").st_uid != 0


def test_mitakas_prepare_is_accepted(new_guest, cloud):
    guest = new_guest(key=False).start()
    arguments = guest.prepare_args(packages=[], backup_info=None, root_password=None, overrides=None)
    arguments.update(cluster_config=None, snapshot=None, modules=None)
    del arguments["ds_version"]
    cloud.raw(guest.id, "prepare", kwargs=arguments, cast=True)
    guest.healthy().logs_in()


def test_a_root_password_is_set_and_overrides_apply(new_guest):
    guest = new_guest().start().prepare(root_password="r00t-pass", overrides={"max_connections": 77})
    guest.healthy().logs_in(user="root", password="r00t-pass", database=None)
    with guest.connect(user="root", password="r00t-pass", database=None) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@max_connections")
        assert cursor.fetchone() == (77,)


def test_a_prepared_instance_is_not_prepared_again(new_guest, cloud):
    guest = new_guest().start().prepare().healthy().logs_in()
    before = guest.database_pid()
    guest.prepare()
    assert fault(cloud, guest)
    assert guest.database_pid() == before
    assert cloud.heartbeat_after(guest.id, time.time()) == "healthy"
    guest.logs_in()


@pytest.mark.parametrize("what", ["stranger", "other engine"])
def test_a_data_directory_that_is_not_ours_is_left_alone(new_guest, cloud, what):
    guest = new_guest()
    data = guest.root / "var/lib/mysql/data"
    data.mkdir(parents=True)
    name, text = {"stranger": ("letter.txt", "keep me"), "other engine": ("PG_VERSION", "15\n")}[what]
    (data / name).write_text(text, encoding="utf-8")
    guest.start().prepare()
    cloud.expect(guest.id, "failed to spawn", 40)
    assert "data" in fault(cloud, guest)
    assert (data / name).read_text(encoding="utf-8") == text
    assert os.listdir(data) == [name]
    assert cloud.call(guest.id, "rpc_ping") is True


def fill(folder):
    """Writes until nothing more fits."""
    with open(folder / "ballast", "wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 65536)
            except OSError:
                return


@pytest.mark.parametrize("when", ["before", "while the server is installed"])
def test_a_full_disk_fails_the_instance_and_not_the_agent(new_guest, cloud, when):
    guest = new_guest()
    volume = guest.root / "var/lib/mysql"
    volume.mkdir(parents=True)
    size = "24m" if when == "before" else "230m"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "full", str(volume)], check=False)
    if done.returncode:
        pytest.skip("no right to mount here")
    guest.start().prepare()
    if when != "before":
        within(20, "the data directory", lambda: next((volume / "data").glob("*/*"), None), every=0.01)
        fill(volume)
    cloud.expect(guest.id, "failed to spawn", 90)
    text = fault(cloud, guest).lower()
    assert any(word in text for word in ("space", "full", "bytes free", "errno: 28", "errcode: 28")), text
    assert cloud.call(guest.id, "rpc_ping") is True
    assert guest.database_pid() is None, tail(guest.log)


def test_prepare_waits_in_the_queue_for_an_agent_that_boots_later(new_guest, cloud):
    guest = new_guest()
    guest.prepare()
    time.sleep(1)
    guest.start().healthy().logs_in()


def test_a_backup_that_lies_nowhere_fails_the_instance(new_guest, cloud):
    guest = new_guest().start()
    guest.prepare(backup_info={"id": "b", "instance_id": "i", "location": "x", "type": "full", "checksum": None})
    cloud.expect(guest.id, "failed to spawn", 30)
    assert "no location of a backup" in fault(cloud, guest)
