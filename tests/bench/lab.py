"""What a measurement needs: the broker with its guests and peers, the raw caller, and what the kernel counts of a process."""

import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import types
import uuid

from peer.cloud import HERE, Cloud
from peer.guest import AGENT, Guest
from peer.process import TOP, Process, tail, within

RPC = pathlib.Path(os.environ["TROVE_BENCH_RPC"])
TICK = os.sysconf("SC_CLK_TCK")
IDS = {"_msg_id": "@MSG@", "_reply_q": "@REPLY@", "_unique_id": "@UNIQUE@"}


def say(text):
    print(text, file=sys.stderr, flush=True)


def cpu(pid):
    """Seconds that a process has used, user and system, its threads included (its children not)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid):
    """MiB: all resident pages, and those that are not of a file."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return tuple(int(re.search(rf"^{name}:\s+(\d+) kB", text, re.M)[1]) / 1024 for name in ("VmRSS", "RssAnon"))


def middle(values, form="{:.2f}"):
    """Median and range of some rounds."""
    values = [v for v in values if v is not None]
    if not values:
        return "none"
    text = form.format(statistics.median(values))
    if len(values) > 1:
        text += f" ({form.format(min(values))} to {form.format(max(values))})"
    return text


class Lab:
    """One broker, one control plane; `close` ends all of it."""

    def __init__(self, folder, broker):
        self.folder, self.broker = folder, broker
        self.cloud = Cloud(folder / "cloud", broker)
        self.open = []

    def start(self):
        self.cloud.start()

    @property
    def url(self):
        return f"amqp://guest:guest@127.0.0.1:{self.broker.port}/%2f"

    def close(self):
        for thing in reversed(self.open):
            (thing.remove if isinstance(thing, Guest) else thing.stop)()
        self.cloud.stop()

    # --- those who answer ---

    def agent(self, key=True, start=True, **options):
        """A guest with our agent; not prepared."""
        ident, secret = self.cloud.new_instance(key=key)
        guest = Guest(self.cloud, ident, secret, interval=options.pop("interval", 30), **options)
        self.open.append(guest)
        guest.name = "agent, " + ("encrypted" if key else "plain")
        guest.template = self.template(guest.id, guest.key, "ping")
        if start:
            guest.start()
        return guest

    def standin(self, key=True):
        """An oslo.messaging server in Python with the same methods."""
        ident, secret = self.cloud.new_instance(key=key)
        conf = self.folder / f"standin-{ident}.conf"
        conf.write_text(
            f"[DEFAULT]\ntransport_url = {self.broker.transport_url}\ncontrol_exchange = trove\nguest_id = {ident}\n"
            + (f"instance_rpc_encr_key = {secret}\n" if key else ""),
            encoding="utf-8",
        )
        peer = types.SimpleNamespace(id=ident, key=secret, name="stand-in, " + ("encrypted" if key else "plain"))
        peer.template = self.template(ident, secret, "ping")
        log = self.folder / f"standin-{ident}.out"

        def begin():
            peer.agent = Process([sys.executable, HERE / "standin.py", "--config-file", conf], log)
            self.open.append(peer.agent)
            return peer.agent

        peer.begin = begin
        begin()
        within(60, lambda: "the stand-in: " + tail(log), lambda: "ready\n" in tail(log))
        return peer

    def echo(self):
        """The bare consumer."""
        peer = types.SimpleNamespace(id=str(uuid.uuid4()), key=None, name="bare echo")
        peer.template = self.template(peer.id, None, "ping")
        peer.agent = Process([RPC, "echo", self.url, f"guestagent.{peer.id}"], self.folder / "echo.out")
        self.open.append(peer.agent)
        within(20, lambda: "echo: " + tail(peer.agent.log), lambda: "ready\n" in tail(peer.agent.log))
        return peer

    # --- those who ask ---

    def template(self, guest, key, name, **args):
        """A file with a recorded request of upstream's, addressed to a guest, to be filled in by the raw caller."""
        recorded = json.loads((TOP / "tests" / "fixtures" / "wire" / "clear" / f"{name}.json").read_text(encoding="utf-8"))
        message = json.loads(json.loads(recorded["messages"][0]["body"])["oslo.message"])
        message = {name: IDS.get(name, value) for name, value in message.items()}
        message["args"].update(args)
        if key:
            from trove.common import crypto_utils as crypto

            def seal(value):
                return crypto.encode_data(crypto.encrypt_data(json.dumps(value), key))

            inside = {n.removeprefix("_context_"): v for n, v in message.items() if n.startswith("_context_")}
            message = {n: v for n, v in message.items() if not n.startswith("_context_")}
            message["args"] = {n: seal(v) for n, v in message["args"].items()}
            message["_context_context"] = seal(inside)
        file = self.folder / f"{name}-{guest}.json"
        file.write_text(json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}), encoding="utf-8")
        return file

    def words(self, mode, peer, *more):
        return [str(w) for w in (RPC, mode, self.url, f"guestagent.{peer.id}", peer.template, *more)]

    def load(self, peer, count, in_flight):
        """Calls by the raw caller; its figures and the CPU seconds that answering cost per 1,000."""
        pid = peer.agent.pid
        before = cpu(pid)
        done = subprocess.run(
            self.words("load", peer, count, in_flight), stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False, text=True
        )
        assert done.returncode == 0, f"{peer.name}: {done.stderr}"
        found = json.loads(done.stdout)
        assert not found["failed"], f"{peer.name}: {found}"
        found["cpu"] = (cpu(pid) - before) * 1000 / count
        return found

    def upstream_load(self, peer, count, in_flight):
        """The same by upstream's own client."""
        found = self.cloud.order("pings", seconds=600, guest=peer.id, count=count, in_flight=in_flight)
        each = sorted(found["each"])
        return {
            "per_second": count / found["seconds"],
            "p50_ms": statistics.median(each) * 1000,
            "p99_ms": each[min(len(each) - 1, int(len(each) * 0.99))] * 1000,
        }


class Once:
    """A raw caller that is connected already and makes a call when told to."""

    def __init__(self, lab, peer):
        self.child = subprocess.Popen(
            lab.words("once", peer), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True, bufsize=1
        )
        self.wait("ready")

    def wait(self, wanted):
        line = self.child.stdout.readline().strip()
        assert line == wanted, f"the raw caller said '{line}', not '{wanted}'"

    def call(self):
        """Publishes; `wait("answered")` is for the answer."""
        self.child.stdin.write("\n")
        self.wait("sent")

    def stop(self):
        self.child.stdin.close()
        self.child.wait(10)


