"""The control plane of a lab: the broker on the management network, and the operator's command line beside it."""

import json
import os
import subprocess

from peer.broker import SCRIPT, Broker
from peer.process import Process

from ground.guest import AGENT, Refused

HOST, PORT = "bk", 5672


class Control(Broker):
    """A broker on its host; several may run at once, each is alone on its network."""

    def __init__(self, world, agent=AGENT):
        self.world, self.binary = world, agent
        self.folder = world.folder / "broker"
        self.port, self.tls_port = PORT, None
        self.conf = world.folder / "operator.conf"
        self.conf.write_text(
            f"[DEFAULT]\ntransport_url = {self.transport_url}\ncontrol_exchange = trove\nguest_id = operator\ndatastore_manager = none\n",
            encoding="utf-8",
        )
        self.conf.chmod(0o600)

    @property
    def transport_url(self):
        return f"rabbit://guest:guest@{self.world.address(HOST, 'm')}:{PORT}//"

    def _run(self, verb, *arguments, seconds=120):
        with self.world.inside(HOST):
            return super()._run(verb, *arguments, seconds=seconds)

    def begin(self):
        """Starts it and does not wait; `ready` does."""
        env = dict(os.environ, BROKER_ADDRESS=self.world.address(HOST, "m"))
        with self.world.inside(HOST):
            self.starting = Process([SCRIPT, "start", self.folder, PORT], self.world.folder / "broker.out", env=env)
        return self

    def ready(self):
        if self.starting.child.wait(120):
            raise AssertionError("the broker did not start: " + self.starting.log.read_text(encoding="utf-8"))
        return self

    # --- the operator ---

    def begin_cli(self, *words):
        """The same, without waiting for it."""
        argv = [str(self.binary), *map(str, words), "--config-file", str(self.conf)]
        with self.world.inside(HOST):
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def cli(self, *words, seconds=120, good=True):
        """Our command line on the operator's machine."""
        argv = [str(self.binary), *map(str, words), "--config-file", str(self.conf)]
        with self.world.inside(HOST):
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise Refused(f"{' '.join(map(str, words))}: no end within {seconds} s") from None
        if good and child.returncode:
            raise Refused(f"{' '.join(map(str, words))}: exit code {child.returncode}: {err.strip() or out.strip()}")
        return out

    def call(self, guest, method, args=None, seconds=60):
        """A method of a guest over the bus."""
        return json.loads(self.cli("call", method, "--guest", guest.id, "--json", json.dumps(args or {}), "--compact", "--timeout", seconds) or "null")
