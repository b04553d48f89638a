"""One guest: our agent in a folder of its own, with a database of its own on a loopback port."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from peer.process import TOP, Process, alive, free_port, kill, tail, within

AGENT = pathlib.Path(os.environ.get("TROVE_TEST_AGENT", TOP / "target" / "debug" / "trove-guestagent"))

GUEST_INFO = """\
[DEFAULT]
guest_id={guest}
datastore_manager=mariadb
datastore_version=10.11
tenant_id=p1
datastore_registry_ext=mariadb:trove.guestagent.datastore.mariadb.manager.Manager
replication_strategy=trove.guestagent.strategies.replication.mariadb_gtid.MariaDBGTIDReplication
ssl_mode=None
network_isolation={isolated}
"""

AGENT_CONF = """\
[DEFAULT]
transport_url = {transport_url}
control_exchange = trove
report_interval = {interval}
state_change_wait_time = 60
{default}
[mariadb]
volume_support = false
database_service_uname = mysql

[oslo_messaging_rabbit]
{rabbit}

[trove_guestagent]
root = {root}
supervisor = supervised
link_port = {link_port}

[datastore]
bind_address = 127.0.0.1
port = {port}
"""


class Guest:
    """`start` begins the agent; nothing of it outlives `remove`."""

    def __init__(self, cloud, guest=None, key=None, interval=2, default="", rabbit="", transport_url=None, isolated=False):
        self.cloud = cloud
        if guest is None:
            guest, key = cloud.new_instance()
        self.id, self.key = guest, key
        self.port = free_port(2)
        # Short (a socket's path may have 107 bytes) and open to the database's user.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tg-"))
        self.folder.chmod(0o755)
        self.root = self.folder / "root"
        self.conf = self.folder / "conf.d"
        self.log = self.folder / "agent.log"
        self.root.mkdir()
        self.conf.mkdir()
        info = GUEST_INFO.format(guest=guest, isolated=isolated)
        if isolated:
            # The data network, as the control plane describes it: here other guests reach this one.
            network = {"mac_address": "fa:16:3e:00:00:01", "ipv4_address": "127.0.0.1", "ipv4_cidr": "127.0.0.0/8"}
            (self.root / "etc/trove").mkdir(parents=True)
            (self.root / "etc/trove/eth1.json").write_text(json.dumps(network), encoding="utf-8")
        if key:
            info += f"instance_rpc_encr_key={key}\n"
        (self.conf / "guest_info.conf").write_text(info, encoding="utf-8")
        (self.conf / "trove-guestagent.conf").write_text(
            AGENT_CONF.format(
                transport_url=transport_url or cloud.broker.transport_url,
                interval=interval,
                default=default,
                rabbit=rabbit,
                root=self.root,
                port=self.port,
                link_port=self.port + 1,
            ),
            encoding="utf-8",
        )
        for file in self.conf.iterdir():
            file.chmod(0o600)
        self.agent = None

    def configure(self, old, new):
        """Changes the operator's part of the configuration, for the agent's next start."""
        file = self.conf / "trove-guestagent.conf"
        text = file.read_text(encoding="utf-8")
        assert old in text, f"there is no '{old}' in {file}"
        file.write_text(text.replace(old, new), encoding="utf-8")

    # --- the agent ---

    def start(self, abort_at=None, wait=True):
        """Starts the agent; with `wait` returns once it answers over the bus."""
        env = dict(os.environ, RUST_BACKTRACE="1")
        if abort_at:
            env["TROVE_GUESTAGENT_ABORT_AT"] = abort_at
        self.agent = Process([AGENT, "--config-dir", self.conf], self.log, env=env)
        if wait:
            # A call into a queue that is not there yet would be lost, and waited for.
            queue = f"guestagent.{self.id}"
            within(30, lambda: "the queue\n" + tail(self.log), lambda: not self.agent.running() or self.cloud.broker.has_queue(queue))
            within(30, lambda: "the agent answers\n" + tail(self.log), self.answers, every=0.2)
        return self

    def answers(self):
        """One ping through upstream's client."""
        from peer.cloud import Refused

        if not self.agent.running():
            raise AssertionError(f"the agent ended with {self.agent.child.returncode}\n{tail(self.log)}")
        try:
            return self.cloud.call(self.id, "rpc_ping", timeout=2) is True
        except Refused:
            return False

    def cli(self, *arguments, stdin=None, good=True, seconds=60):
        """Our own command line against this guest's configuration; answers its standard output."""
        done = subprocess.run(
            [str(AGENT), *arguments, "--config-dir", str(self.conf)],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            text=True,
        )
        if good and done.returncode:
            raise AssertionError(f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def status(self):
        return json.loads(self.cli("status", "--json"))

    # --- what a taskmanager asks ---

    def prepare_args(self, **more):
        """Arguments of prepare as a taskmanager fills them, the configuration rendered from upstream's own template."""
        arguments = {
            "memory_mb": 512,
            "packages": "",
            "databases": [{"_name": "app", "_character_set": "utf8mb4", "_collate": "utf8mb4_general_ci"}],
            "users": [{"_name": "alice", "_password": "pa-ss_w0rd", "_host": "%", "_databases": [{"_name": "app"}]}],
            "device_path": None,
            "mount_point": "/var/lib/mysql",
            "config_contents": self.cloud.order("template", guest=self.id, ram=512),
            "ds_version": "10.11",
        }
        arguments.update(more)
        return arguments

    def prepare(self, **more):
        """Casts prepare."""
        self.cloud.call(self.id, "prepare", notification="DBaaSInstanceCreate", **self.prepare_args(**more))
        return self

    def healthy(self, seconds=90):
        """Waits until upstream's conductor has it as healthy; fails early when it is recorded as failed."""
        try:
            now = self.cloud.expect(self.id, ("healthy", "failed to spawn"), seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{tail(self.log)}") from None
        assert now == "healthy", f"the instance failed: {self.cloud.tables(self.id)['faults']}\n{tail(self.log, 60)}"
        return self

    # --- the database ---

    def connect(self, user="alice", password="pa-ss_w0rd", database="app"):
        """A connection over TCP as an application makes it: from an address that is not the server's "localhost"."""
        import pymysql

        return pymysql.connect(
            host="127.0.0.1", bind_address="127.0.0.2", port=self.port, user=user, password=password, database=database,
            connect_timeout=10, read_timeout=30, write_timeout=30, autocommit=True,
        )

    def logs_in(self, seconds=20, **login):
        """Waits until the login works and closes it: databases and users come after the instance is ready."""
        import pymysql

        def look():
            try:
                self.connect(**login).close()
            except pymysql.MySQLError as error:
                self.why = error
                return False
            return True

        self.why = None
        within(seconds, lambda: f"login {login}: {self.why}\n{tail(self.log)}", look, every=0.2)
        return self

    def processes(self):
        """Ids of the processes that name our folder in their command line, without the agent."""
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit() or (self.agent and int(name) == self.agent.pid):
                continue
            try:
                words = pathlib.Path("/proc", name, "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(str(self.folder) + "/") in words and alive(name):
                found.append(int(name))
        return found

    def database_pid(self):
        """The server's process, or None."""
        for pid in self.processes():
            try:
                if pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() in ("mariadbd", "mysqld"):
                    return pid
            except OSError:
                pass
        return None

    # --- the end ---

    def remove(self):
        """Ends the agent and what it left, and deletes the folder; the log is kept beside the other logs if wanted."""
        if self.agent and self.agent.running():
            self.agent.stop(15)
        for number in (signal.SIGTERM, signal.SIGKILL):
            left = self.processes()
            for pid in left:
                kill(pid, number)
            limit = time.monotonic() + 15
            while any(alive(pid) for pid in left) and time.monotonic() < limit:
                time.sleep(0.05)
        keep = os.environ.get("TROVE_TEST_LOGS")
        if keep:
            place = pathlib.Path(keep)
            place.mkdir(parents=True, exist_ok=True)
            for log in [self.log, *self.root.rglob("*.err"), *self.root.rglob("mysqld.log")]:
                if log.is_file():
                    shutil.copy(log, place / f"{self.id[:8]}-{log.name}")
        subprocess.run(["umount", "-q", "-l", *map(str, self.mounts())], check=False) if self.mounts() else None
        shutil.rmtree(self.folder, ignore_errors=True)

    def mounts(self):
        """Mount points below our folder, deepest first."""
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as table:
            points = [line.split()[1] for line in table]
        return sorted((p for p in points if p.startswith(str(self.folder) + "/")), reverse=True)
