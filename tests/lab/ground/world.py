"""Hosts as network namespaces on two bridges, and everything that can be done to their cables.

    sw                the bridges: management (10.76.0.0/24) and data (10.77.0.0/24, fd77::/64)
    bk                broker and operator, management only
    gw, cl            gateway and client, data only
    wt                the witness, both
    g1, g2, g3        guests, both: eth0 is management, eth1 is data

A namespace is called `<lab>-<host>`, a lab `tgl<process id><letter>`, its folder `/tmp/<lab>`: what a lab that crashed left behind is found by that
name and taken down by the next one. A process belongs to a host if it is in its namespace, so no other one is ever touched.
"""

import contextlib
import ctypes
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

from peer.process import alive, kill, within

NETNS = pathlib.Path("/run/netns")
NAME = re.compile(r"(tgl(\d+)[a-z])-(\w+)")
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)

# Number in every network, and whether there is a management and a data NIC.
HOSTS = {
    "gw": (1, False, True),
    "bk": (2, True, False),
    "g1": (11, True, True),
    "g2": (12, True, True),
    "g3": (13, True, True),
    "wt": (50, True, True),
    "cl": (100, False, True),
}
NICS = {"m": "eth0", "d": "eth1"}
LETTERS = itertools.count()


def run(argv, text=None):
    """Runs one of the system's tools and answers what it printed."""
    done = subprocess.run(
        [str(a) for a in argv], input=text, stdin=None if text else subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, argv))}: exit code {done.returncode}\n{done.stderr or done.stdout}\n{text or ''}")
    return done.stdout


def start_time(pid):
    """When a process began, in clock ticks after boot; None if there is none."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def in_namespace(namespace):
    """Ids of the processes in a network namespace."""
    try:
        wanted = (NETNS / namespace).stat().st_ino
    except OSError:
        return []
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}/ns/net").st_ino == wanted and alive(name) and int(name) != os.getpid():
                    found.append(int(name))
    return found


def destroy(lab):
    """Ends every process of a lab and removes its namespaces and its folder."""
    namespaces = [n.name for n in NETNS.glob(f"{lab}-*")] if NETNS.exists() else []
    limit = time.monotonic() + 20
    while pids := [pid for namespace in namespaces for pid in in_namespace(namespace)]:
        for pid in pids:
            kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if time.monotonic() > limit:
            raise AssertionError(f"processes of {lab} do not end: {pids}")
        time.sleep(0.02)
    for namespace in namespaces:
        subprocess.run(["ip", "netns", "del", namespace], check=False)
    shutil.rmtree(f"/tmp/{lab}", ignore_errors=True)


def sweep():
    """Takes down what labs left whose process is gone."""
    labs = {m[1]: int(m[2]) for n in (NETNS.iterdir() if NETNS.exists() else ()) if (m := NAME.fullmatch(n.name))}
    for lab, pid in labs.items():
        try:
            owner = json.loads(pathlib.Path(f"/tmp/{lab}/owner").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            owner = None
        began = start_time(pid)
        if began is None or (owner and owner["start"] != began):
            destroy(lab)


class World:
    """One set of hosts. `up`, and `down` whatever happened between."""

    def __init__(self, hosts=tuple(HOSTS)):
        self.hosts = hosts
        self.name = f"tgl{os.getpid()}{chr(ord('a') + next(LETTERS) % 26)}"
        # Open to the database's user, and short: a socket's path may have 107 bytes.
        self.folder = pathlib.Path("/tmp", self.name)
        self.cuts, self.holes = set(), set()

    def __enter__(self):
        self.up()
        return self

    def __exit__(self, *_):
        self.down()

    def ns(self, host):
        return f"{self.name}-{host}"

    def up(self):
        """All of it in some 0.2 s."""
        self.folder.mkdir(mode=0o755)
        (self.folder / "owner").write_text(json.dumps({"start": start_time(os.getpid())}), encoding="utf-8")
        run(["ip", "-batch", "-"], "".join(f"netns add {self.ns(host)}\n" for host in ("sw", *self.hosts)))
        lines = [f"link add br-{net} up type bridge mcast_snooping 0 forward_delay 0" for net in NICS]
        for host in self.hosts:
            for net in self.nets(host):
                lines += [
                    f"link add {net}-{host} type veth peer name {NICS[net]} address {self.mac(host, net)} netns {self.ns(host)}",
                    f"link set {net}-{host} up master br-{net}",
                ]
        run(["ip", "-n", self.ns("sw"), "-batch", "-"], "\n".join(lines) + "\n")
        for host in self.hosts:
            lines = ["link set lo up"]
            for net in self.nets(host):
                lines.append(f"link set {NICS[net]} up")
                lines += [f"address add {a} dev {NICS[net]}" + (" nodad" if ":" in a else "") for a in self.prefixes(host, net)]
            run(["ip", "-n", self.ns(host), "-batch", "-"], "\n".join(lines) + "\n")
        for host in {"gw", "cl"} & set(self.hosts):
            # Neighbours that were learned once are believed for an hour, as many a gateway does.
            with self.inside(host):
                for family in ("ipv4", "ipv6"):
                    pathlib.Path(f"/proc/sys/net/{family}/neigh/eth1/base_reachable_time_ms").write_text("3600000", encoding="ascii")

    def down(self):
        destroy(self.name)

    # --- names and numbers ---

    @staticmethod
    def nets(host):
        return [net for net, has in zip("md", HOSTS[host][1:]) if has]

    @staticmethod
    def mac(host, net="d"):
        return f"02:00:00:{'76' if net == 'm' else '77'}:00:{HOSTS[host][0]:02x}"

    @staticmethod
    def address(host, net="d"):
        return f"10.{'76' if net == 'm' else '77'}.0.{HOSTS[host][0]}"

    @classmethod
    def prefixes(cls, host, net):
        """The host's own addresses on a network."""
        return [f"{cls.address(host, net)}/24"] + ([f"fd77::{HOSTS[host][0]}/64"] if net == "d" else [])

    # --- being on a host ---

    @contextlib.contextmanager
    def inside(self, host):
        """This thread is on that host: its sockets, and the processes that it starts."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(NETNS / self.ns(host), "rb") as there:
            if LIBC.setns(there.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"could not enter {self.ns(host)}")
            try:
                yield
            finally:
                if LIBC.setns(home.fileno(), CLONE_NEWNET):
                    os._exit(70)  # on the wrong network for ever: nothing sensible can follow

    def processes(self, host, name=None):
        """Ids of the processes on a host, by the kernel's name for them if given."""
        found = in_namespace(self.ns(host))
        if name is None:
            return found
        named = []
        for pid in found:
            with contextlib.suppress(OSError):
                if pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == name:
                    named.append(pid)
        return named

    def signal(self, host, number, name=None):
        """Sends a signal to them; answers whom it was sent to."""
        pids = self.processes(host, name)
        for pid in pids:
            kill(pid, number)
        return pids

    def kill_all(self, host):
        """As a power cut ends them, without a word to anybody: the cables are pulled first by who calls this."""
        within(20, f"the end of all processes on {host}", lambda: not self.signal(host, signal.SIGKILL), every=0.01)

    # --- cables ---

    def link(self, host, net, up):
        """The cable: the host sees that it has no carrier."""
        run(["ip", "-n", self.ns("sw"), "link", "set", f"{net}-{host}", "up" if up else "down"])

    def black_hole(self, host, net, on):
        """The switch forwards nothing of this port any more; nobody is told."""
        (self.holes.add if on else self.holes.discard)((host, net))
        with self.inside("sw"):
            run(["bridge", "link", "set", "dev", f"{net}-{host}", "state", "0" if on else "3"])

    def lose(self, host, net, to_host, on):
        """Loses what goes to the host, or what comes from it; the other direction works."""
        self._rule(f'{"oifname" if to_host else "iifname"} "{net}-{host}" drop', on)

    def apart(self, one, other, net, on):
        """Two hosts do not hear each other; everybody else hears both."""
        self._rule(f'iifname "{net}-{one}" oifname "{net}-{other}" drop', on)
        self._rule(f'iifname "{net}-{other}" oifname "{net}-{one}" drop', on)

    def _rule(self, rule, on):
        (self.cuts.add if on else self.cuts.discard)(rule)
        rules = "\n".join(sorted(self.cuts))
        text = f"table bridge lab\ndelete table bridge lab\ntable bridge lab {{\nchain f {{\ntype filter hook forward priority 0\n{rules}\n}}\n}}\n"
        with self.inside("sw"):
            run(["nft", "-f", "-"], text)

    def heal(self):
        """All cables as they were in the beginning."""
        self.cuts.clear()
        self._rule("", False)
        for host in self.hosts:
            for net in self.nets(host):
                self.link(host, net, True)
        for host, net in tuple(self.holes):
            self.black_hole(host, net, False)

    def reboot_network(self, host):
        """What a reboot leaves of a host's network: its own addresses and no packet filter."""
        with self.inside(host):
            run(["nft", "flush", "ruleset"])
        for net in self.nets(host):
            lines = [f"address flush dev {NICS[net]}", f"route flush dev {NICS[net]}"]
            lines += [f"address add {a} dev {NICS[net]}" + (" nodad" if ":" in a else "") for a in self.prefixes(host, net)]
            # Its IPv6 link-local address comes back with the link.
            lines += [f"link set {NICS[net]} down", f"link set {NICS[net]} up"]
            lines += [f"address replace {a} dev {NICS[net]} nodad" for a in self.prefixes(host, net) if ":" in a]
            run(["ip", "-n", self.ns(host), "-batch", "-"], "\n".join(lines) + "\n")

    # --- what is seen from outside ---

    def addresses(self, host, net="d"):
        """The addresses on a NIC, without prefix."""
        found = json.loads(run(["ip", "-n", self.ns(host), "-json", "address", "show", "dev", NICS[net]]))
        return [a["local"] for link in found for a in link.get("addr_info", []) if a.get("scope") == "global"]

    def neighbour(self, host, address):
        """The MAC that a host believes an address to have, or None."""
        for row in json.loads(run(["ip", "-n", self.ns(host), "-json", "neigh", "show", address]) or "[]"):
            if row.get("dst") == address:
                return row.get("lladdr")
        return None

    def ping(self, host, address, seconds=1.0):
        """Asks an address once, and waits for its answer; also what primes a neighbour cache."""
        six = ":" in address
        kind, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
        packet = struct.pack("!BBHHH", 128 if six else 8, 0, 0, os.getpid() & 0xFFFF, next(LETTERS) & 0xFFFF)
        if not six:  # the kernel sums up version 6 by itself
            total = sum(struct.unpack("!4H", packet))
            packet = packet[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + packet[4:]
        with self.inside(host):
            probe = socket.socket(kind, socket.SOCK_RAW, protocol)
        limit = time.monotonic() + seconds
        with probe:
            try:
                probe.sendto(packet, (address, 0))
                while (left := limit - time.monotonic()) > 0:
                    probe.settimeout(left)
                    answer = probe.recv(2048)
                    body = answer if six else answer[(answer[0] & 15) * 4 :]
                    if body[0] == (129 if six else 0) and body[4:8] == packet[4:8]:
                        return True
            except OSError:
                pass
        return False
