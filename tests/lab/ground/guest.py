"""One guest on its host: our agent in a folder of its own, with a real database."""

import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import time
import uuid

from peer.process import TOP, Process, alive, kill, tail, within

AGENT = pathlib.Path(os.environ.get("TROVE_TEST_AGENT", TOP / "target" / "debug" / "trove-guestagent"))
DATABASE = "mariadbd"
USER, SCHEMA = "lab", "lab"

GUEST_INFO = """\
[DEFAULT]
guest_id={guest}
datastore_manager=mariadb
datastore_version=10.11
"""

AGENT_CONF = """\
[DEFAULT]
transport_url = {transport_url}
control_exchange = trove
report_interval = 5

[mariadb]
volume_support = false
database_service_uname = mysql

[trove_guestagent]
root = {root}
supervisor = supervised
data_interface = eth1
management_interface = eth0

[datastore]
port = 3306
"""

# What a taskmanager renders, for a small machine.
MY_CNF = """\
[mysqld]
innodb_buffer_pool_size = 64M
innodb_log_file_size = 32M
max_connections = 200
performance_schema = OFF
skip-name-resolve
"""


class Guest:
    """`start` begins the agent; the end of all of it is the world's."""

    def __init__(self, world, host, transport_url, agent=AGENT):
        self.world, self.host, self.binary = world, host, agent
        self.id = str(uuid.uuid4())
        self.folder = world.folder / host
        self.root, self.conf, self.log = self.folder / "root", self.folder / "conf.d", self.folder / "agent.log"
        self.folder.mkdir(mode=0o755)
        self.root.mkdir()
        self.conf.mkdir(mode=0o700)
        texts = {
            "guest_info.conf": GUEST_INFO.format(guest=self.id),
            "trove-guestagent.conf": AGENT_CONF.format(transport_url=transport_url, root=self.root),
        }
        for name, text in texts.items():
            (self.conf / name).write_text(text, encoding="utf-8")
        self.agent = None

    def __str__(self):
        return self.host

    # --- the agent ---

    def start(self, abort_at=None, wait=True):
        """Starts the agent; with `wait` returns once it answers at its socket."""
        env = {k: v for k, v in os.environ.items() if k != "TROVE_GUESTAGENT_ABORT_AT"}
        if abort_at:
            env["TROVE_GUESTAGENT_ABORT_AT"] = abort_at
        with self.world.inside(self.host):
            self.agent = Process([self.binary, "--config-dir", self.conf], self.log, env=env)
        return self.wait_for_agent() if wait else self

    def wait_for_agent(self):
        within(30, lambda: f"the agent of {self} answers\n" + tail(self.log), self.answers)
        return self

    def answers(self):
        if not self.agent.running():
            raise AssertionError(f"the agent of {self} ended with {self.agent.child.returncode}\n{tail(self.log)}")
        try:
            return self.call("rpc_ping", seconds=2) is True
        except Refused:
            return False

    def running(self):
        return self.agent is not None and self.agent.running()

    def agent_pids(self):
        return [self.agent.pid] if self.running() else []

    def database_pid(self):
        return next(iter(self.world.processes(self.host, DATABASE)), None)

    def call(self, method, args=None, seconds=60):
        """A method of the agent at its local socket; answers what it answers."""
        done = subprocess.run(
            [str(self.binary), "call", method, "--json", "-", "--compact", "--timeout", str(seconds), "--config-dir", str(self.conf)],
            input=json.dumps(args or {}), capture_output=True, text=True, timeout=seconds + 10, check=False,
        )
        if done.returncode:
            raise Refused(f"{self}: {method}: {done.stderr.strip() or done.stdout.strip()}")
        return json.loads(done.stdout or "null")

    # --- what a taskmanager asks ---

    def prepare(self, databases=(), users=(), config=MY_CNF):
        """From nothing to a running server."""
        arguments = {
            "packages": "", "memory_mb": 512, "device_path": None, "mount_point": "/var/lib/mysql", "config_contents": config,
            "ds_version": "10.11", "databases": list(databases), "users": list(users),
        }
        self.call("prepare", arguments, seconds=120)
        return self

    def prepare_with_user(self, password, config=MY_CNF):
        """The same with the client's database and user."""
        return self.prepare(
            [{"_name": SCHEMA, "_character_set": "utf8mb4", "_collate": "utf8mb4_general_ci"}],
            [{"_name": USER, "_password": password, "_host": "%", "_databases": [{"_name": SCHEMA}]}],
            config,
        )

    # --- the database, past the agent and the network ---

    @property
    def socket(self):
        return self.root / "var/run/mysqld/mysqld.sock"

    def admin_file(self):
        """Option file with the login of the agent's own user."""
        found = sorted(self.root.glob("**/conf.d/os_admin.cnf"))
        return found[0] if found else self.root / "os_admin.cnf"

    def sql(self, text, seconds=30):
        """Rows of a statement as lists of texts, by the server's own client over its socket."""
        done = subprocess.run(
            ["mariadb", f"--defaults-file={self.admin_file()}", f"--socket={self.socket}", "--protocol=socket", "--batch", "--raw", "-N", "-e", text],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False,
        )
        if done.returncode:
            raise Refused(f"{self}: {text[:80]}: {done.stderr.strip()}")
        return [line.split("\t") for line in done.stdout.splitlines()]

    def value(self, text):
        """The one value that a statement answers."""
        return self.sql(text)[0][0]

    def holds(self, address):
        return address in self.world.addresses(self.host)

    # --- bad luck ---

    def kill_agent(self, number=signal.SIGKILL):
        """Sends it to the agent."""
        pids = self.agent_pids()
        for pid in pids:
            kill(pid, number)
        if number == signal.SIGKILL and self.agent:
            self.agent.child.wait(10)
        return pids

    def kill_database(self, number=signal.SIGKILL):
        pid = self.database_pid()
        if pid:
            kill(pid, number)
        return pid

    def freeze(self, on):
        """All processes of the host stand still, or go on."""
        return self.world.signal(self.host, signal.SIGSTOP if on else signal.SIGCONT)

    def power_off(self):
        """The host is gone, from one moment to the next: nothing that its kernel says about dying processes gets out."""
        for net in self.world.nets(self.host):
            self.world.link(self.host, net, False)
        self.world.kill_all(self.host)
        if self.agent:
            self.agent.child.wait(10)

    def power_on(self):
        """It boots: its network is as configured, what lies in /run is gone, the agent is started."""
        shutil.rmtree(self.root / "run", ignore_errors=True)
        shutil.rmtree(self.root / "var/run", ignore_errors=True)
        self.world.reboot_network(self.host)
        for net in self.world.nets(self.host):
            self.world.link(self.host, net, True)
        return self.start(wait=False)

    def wait_dead(self, pid, seconds=10):
        within(seconds, f"the end of process {pid}", lambda: not alive(pid), every=0.005)


class Refused(AssertionError):
    """A call or a statement was answered with an error."""


def password_file(folder):
    """A new password for the client, in a file of its own."""
    file = pathlib.Path(folder, "password")
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(12), encoding="ascii")
    return file


def settle(seconds):
    """A pause that is part of an episode, not a wait for anything."""
    time.sleep(seconds)
