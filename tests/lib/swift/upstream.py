"""Upstream's own backup code (the folder `backup` of trove's source distribution) against the Swift of the tests, with a
MariaDB of its own. Changed are only places: configuration file, socket, log, and the folder of increments.

    VENV/bin/python upstream.py BACKUP_SOURCE DIR SWIFT_URL TOKEN CONTAINER take FULL_ID INCREMENT_ID
    VENV/bin/python upstream.py BACKUP_SOURCE DIR SWIFT_URL TOKEN CONTAINER restore LOCATION CHECKSUM

`take` makes a server with rows, a full backup of one segment and an increment of several, and prints for each its location and
checksum. `restore` restores a chain, starts a server on it and prints what is in it.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

source, folder, url, token, container, verb, *rest = sys.argv[1:]
sys.path.insert(0, source)
folder = pathlib.Path(folder)
USER, PASSWORD = "os_admin", "not-a-secret"

from backup import main  # noqa: E402

CONF = main.CONF
CONF.register_cli_opts(main.cli_opts)
CONF(["--swift-url", url, "--os-token", token, "--db-user", USER, "--db-password", PASSWORD, "--db-host", "localhost"],
     project="test", default_config_files=[])

from backup.drivers import mariabackup, mysql_base  # noqa: E402
from backup.storage import swift  # noqa: E402

SETTINGS = folder / "my.cnf"
for runner in (mariabackup.MariaBackup, mariabackup.MariaBackupIncremental):
    runner.prepare_cmd = runner.prepare_cmd.replace(mariabackup.DEFAULTS_FILE, str(SETTINGS))
increment = mariabackup.MariaBackupIncremental
increment.incremental_prep = increment.incremental_prep.replace(mariabackup.DEFAULTS_FILE, str(SETTINGS))
mariabackup.DEFAULTS_FILE = str(SETTINGS)


class Elsewhere:
    """`os` for upstream's module: increments are unpacked in our folder."""

    class path:
        join = staticmethod(lambda *parts: os.path.join(*[str(folder) if part == "/var/lib/mysql" else part for part in parts]))

    makedirs = staticmethod(os.makedirs)


mysql_base.os = Elsewhere


class Server:
    """A MariaDB on a socket."""

    def __init__(self, data):
        self.socket = folder / "s"
        owner = ["--user=root"] if os.geteuid() == 0 else []
        SETTINGS.write_text(f"[client]\nsocket={self.socket}\n[mysqld]\ndatadir={data}\nsocket={self.socket}\n"
                            "innodb_buffer_pool_size=16M\ninnodb_log_file_size=8M\nskip-networking\n")
        if not data.exists():
            subprocess.run(["mariadb-install-db", f"--defaults-file={SETTINGS}", *owner, "--auth-root-authentication-method=normal",
                            "--skip-test-db"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.log = open(folder / "server.log", "ab")
        self.process = subprocess.Popen(["mariadbd", f"--defaults-file={SETTINGS}", *owner], stdout=self.log, stderr=self.log)

    def ask(self, text):
        tool = ["mariadb", f"--defaults-file={SETTINGS}", "-uroot", "-BN", "-e", text]
        return subprocess.run(tool, capture_output=True, text=True, check=False)

    def wait(self):
        limit = time.monotonic() + 60
        while self.ask("SELECT 1").returncode:
            if time.monotonic() > limit or self.process.poll() is not None:
                sys.exit((folder / "server.log").read_text()[-3000:])
            time.sleep(0.1)
        return self

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def take(full, incremental):
    server = Server(folder / "data").wait()
    assert server.ask(f"CREATE USER {USER}@localhost IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO {USER}@localhost;"
                      "CREATE DATABASE shop; CREATE TABLE shop.orders (id INT PRIMARY KEY, what TEXT) ENGINE=InnoDB;"
                      "INSERT INTO shop.orders SELECT seq, md5(seq) FROM shop.seq_1_to_20000").returncode == 0
    storage = swift.SwiftStorage()
    try:
        location, checksum = save(storage, mariabackup.MariaBackup, full)
        assert server.ask("INSERT INTO shop.orders SELECT seq, md5(seq) FROM shop.seq_20001_to_30000").returncode == 0
        whole = swift.StreamReader
        swift.StreamReader = lambda stream, box, name, size: whole(stream, box, name, 200_000)
        parent = {"parent_location": location, "parent_checksum": checksum}
        save(storage, increment, incremental, **storage.load_metadata(location, checksum), **parent)
    finally:
        server.stop()


def save(storage, runner, backup_id, **facts):
    facts = {key: value for key, value in facts.items() if key in ("lsn", "parent_location", "parent_checksum")}
    runner = runner(filename=backup_id, **facts)
    runner.backup_log = str(folder / "backup.log")
    with runner as stream:
        checksum, location = storage.save(stream, metadata={"datastore": "mariadb", "datastore_version": "10.11"}, container=container)
    print(location, checksum)
    return location, checksum


def restore(location, checksum):
    storage, target = swift.SwiftStorage(), folder / "restored"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    facts = {"lsn": storage.get_backup_lsn(location)} if storage.is_incremental_backup(location) else {}
    runner = (increment if facts else mariabackup.MariaBackup)(
        storage=storage, location=location, checksum=checksum, db_datadir=str(target), **facts)
    size = runner.restore()
    assert size > 0, size
    server = Server(target).wait()
    try:
        answer = server.ask("SELECT COUNT(*), MAX(id), SUM(BINARY what = BINARY md5(id)) FROM shop.orders")
        print(answer.stdout.strip() or answer.stderr.strip())
    finally:
        server.stop()


{"take": take, "restore": restore}[verb](*rest)
