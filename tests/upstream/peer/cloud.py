"""The control plane of a test: upstream's client and conductor over one broker, one sqlite database between them."""

import contextlib
import itertools
import json
import os
import pathlib
import queue
import sqlite3
import subprocess
import sys
import threading
import uuid

import conductor as tables_of
from peer.process import TOP, Process, tail, within

HERE = TOP / "tests" / "upstream"

CONF = """\
[DEFAULT]
transport_url = {transport_url}
control_exchange = trove
trove_conductor_workers = 1
report_interval = 3600
inst_rpc_key_encr_key = the-key-that-keeps-the-keys
log_file = {log}
use_syslog = false
debug = false
{default}
[database]
connection = sqlite:///{folder}/trove.db?timeout=30
sqlite_synchronous = false

[oslo_messaging_notifications]
driver = log

[oslo_messaging_rabbit]
{rabbit}
"""


class Refused(AssertionError):
    """Upstream's client raised: `kind` is the class, the text is what a person would read."""

    def __init__(self, error):
        super().__init__(f"{error['class']}: {error['text']}")
        self.kind = error["class"]
        self.text = error["text"]


class Cloud:
    """`folder` holds the database, the configuration and the logs."""

    def __init__(self, folder, broker, default="", rabbit=""):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.broker = broker
        self.database = self.folder / "trove.db"
        self.rabbit = rabbit
        for name in ("client", "conductor"):
            (self.folder / f"{name}.conf").write_text(
                CONF.format(
                    transport_url=broker.transport_url,
                    folder=self.folder,
                    log=self.folder / f"{name}.log",
                    default=default,
                    rabbit=rabbit,
                ),
                encoding="utf-8",
            )
        self.client = self.conductor = None
        self.ids = itertools.count(1)
        self.waiting = {}

    def start(self):
        """Client first: it makes the tables."""
        env = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", PYTHONWARNINGS="ignore")
        self.client = Process(
            [sys.executable, HERE / "client.py", "--config-file", self.folder / "client.conf"],
            self.folder / "client.out",
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        ready = self.waiting[0] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._answer(ready, 120)
        # Readers and one writer at the same time; stays with the file.
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            database.execute("PRAGMA journal_mode = WAL")
        self.start_conductor()

    def start_conductor(self):
        env = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", PYTHONWARNINGS="ignore")
        self.conductor = Process(
            [sys.executable, HERE / "conductor.py", "run", "--config-file", self.folder / "conductor.conf"],
            self.folder / "conductor.out",
            env=env,
        )
        within(60, lambda: "the conductor: " + tail(self.folder / "conductor.out"), lambda: self.broker.has_queue("trove-conductor"))

    def stop(self):
        for process in (self.client, self.conductor):
            if process:
                process.stop(5)

    def _read(self):
        for line in self.client.child.stdout:
            answer = json.loads(line)
            self.waiting.pop(answer["id"]).put(answer)
        for left in list(self.waiting.values()):
            left.put({"error": {"class": "ClientDied", "text": tail(self.folder / "client.out")}})

    def _answer(self, box, seconds):
        try:
            answer = box.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(
                f"upstream's client gave no answer within {seconds} s\n" + tail(self.folder / "client.out")
            ) from None
        if "error" in answer:
            raise Refused(answer["error"])
        return answer.get("result")

    def send(self, op, **order):
        """Gives an order and returns a function that waits for its answer."""
        number = next(self.ids)
        box = self.waiting[number] = queue.Queue()
        order.update(id=number, op=op)
        self.client.child.stdin.write((json.dumps(order) + "\n").encode())
        self.client.child.stdin.flush()
        return lambda seconds=200: self._answer(box, seconds)

    def order(self, op, seconds=200, **order):
        return self.send(op, **order)(seconds)

    def call(self, guest, method, notification=None, timeout=None, **kwargs):
        """A method of upstream's API class."""
        return self.order("call", guest=guest, method=method, kwargs=kwargs, notification=notification, timeout=timeout)

    def raw(self, guest, method, **more):
        return self.order("raw", guest=guest, method=method, **more)

    def new_instance(self, key=True):
        """Rows for a new instance; returns its id and key."""
        made = self.order("instance", guest=str(uuid.uuid4()), key=key)
        return made["id"], made["key"]

    def tables(self, guest):
        return tables_of.tables(self.database, guest)

    def notifications(self, guest=None):
        """(event, payload) of all that the conductor emitted about a guest."""
        found = tables_of.notifications(self.folder / "conductor.log")
        return [
            (n["event_type"], n["payload"]) for n in found if guest is None or n["payload"].get("instance_id") == guest
        ]

    def status(self, guest):
        return self.tables(guest)["status"][0]["status_description"]

    def expect(self, guest, wanted, seconds=60):
        """Waits for one of the statuses (text or tuple)."""
        wanted = (wanted,) if isinstance(wanted, str) else wanted

        def look():
            now = self.status(guest)
            return now if now in wanted else None

        def why():
            return f"status {wanted}, it is {self.status(guest)}; faults {[f['message'] for f in self.tables(guest)['faults']]}"

        return within(seconds, why, look, every=0.1)

    def heartbeat_after(self, guest, moment, seconds=60):
        """Waits for a heartbeat that was sent after `moment` (seconds since the epoch) and returns the status."""

        def look():
            seen = [r for r in self.tables(guest)["last_seen"] if r["method_name"] == "heartbeat"]
            return seen and float(seen[0]["sent"]) > moment

        within(seconds, "a newer heartbeat", look)
        return self.status(guest)
