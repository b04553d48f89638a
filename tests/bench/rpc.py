"""The figures of the agent's main job beside their targets and peers, as one table. Started by rpc.sh; see README.md."""

import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import binary
from lab import AGENT, Lab, Once, Process, cpu, memory, middle, say
from peer.broker import Broker
from peer.process import TOP, free_port, tail, within
from peer.wire import Tap

FULL = sys.argv[1:] == ["full"]
#                    quick, full
ROUNDS = (3, 7)[FULL]
ONE_BY_ONE = (500, 3000)[FULL]
MANY = (3000, 15000)[FULL]
SLOW = (100, 400)[FULL]  # for what Python answers or asks
STARTS = (5, 10)[FULL]
IDLE_SECONDS = (60, 600)[FULL]
RESTARTS = (5, 20)[FULL]
CASTS, KILLS, CAST_EVERY_MS = ((300, 6, 40), (1000, 20, 50))[FULL]
PREPARES = (2, 5)[FULL]
IN_FLIGHT = 32
SETTINGS = "[mysqld]\ninnodb_buffer_pool_size = 64M\nmax_connections = 50\n"

TABLE = []
RAW = {}


def row(name, ours, target="", peers="", good=None):
    """One line of the table; `good` tells whether the target is met, None where there is none."""
    TABLE.append((name, ours, target, peers, {True: "yes", False: "NO", None: ""}[good]))
    say(f"   {name}: {ours}  [{target}]  {peers}")


def stage(name, function, *arguments):
    """A stage that fails becomes a line of the table; the others go on."""
    say(f"== {name} ({time.strftime('%H:%M:%S')}, load {os.getloadavg()[0]:.1f})")
    try:
        return function(*arguments)
    except Exception as error:  # of any kind: it is a line of the table
        row(name, f"failed: {str(error).splitlines()[0][:120] if str(error) else type(error).__name__}", good=False)
        say(str(error))
        return None


def mid(rounds, key):
    return statistics.median(r[key] for r in rounds)


# --- calls --------------------------------------------------------------------------------------------------------


def calls(lab):
    """Rounds in turn over all who answer; then the same by upstream's client."""
    agent, plain, echo, standin, standin_plain = peers = [
        lab.agent(), lab.agent(key=False), lab.echo(), lab.standin(), lab.standin(key=False)
    ]
    one, many = {p.name: [] for p in peers}, {p.name: [] for p in peers}
    rusty = (agent, plain, echo)
    for peer in peers:  # nobody's first call is counted
        lab.load(peer, 200, IN_FLIGHT)
    for number in range(ROUNDS):
        say(f"   round {number + 1} of {ROUNDS}")
        for peer in peers[number % len(peers) :] + peers[: number % len(peers)]:
            one[peer.name].append(lab.load(peer, ONE_BY_ONE if peer in rusty else SLOW, 1))
            many[peer.name].append(lab.load(peer, MANY if peer in rusty else SLOW * 3, IN_FLIGHT))
    slow_one, slow_many = {p.name: [] for p in peers}, {p.name: [] for p in peers}
    for number in range(ROUNDS):
        say(f"   upstream's client, round {number + 1} of {ROUNDS}")
        for peer in (agent, standin) if number % 2 else (standin, agent):
            slow_one[peer.name].append(lab.upstream_load(peer, SLOW, 1))
            slow_many[peer.name].append(lab.upstream_load(peer, SLOW * 3, IN_FLIGHT))
    RAW.update(one=one, many=many, upstream_one=slow_one, upstream_many=slow_many)

    def others(rounds, key, form):
        return "; ".join(
            f"{p.name} {middle([r[key] for r in rounds[p.name]], form)}" for p in peers if p not in (agent, plain) and rounds[p.name]
        )

    floor_p50, floor_rate = mid(one[echo.name], "p50_ms"), mid(many[echo.name], "per_second")
    slow_rate = mid(many[standin.name], "per_second")
    for peer in (agent, plain):
        who = peer.name
        row(f"rpc_ping p50, 1 in flight, ms ({who})", middle([r["p50_ms"] for r in one[who]], "{:.3f}"),
            f"<= {1.3 * floor_p50:.3f} (1.3x echo)", others(one, "p50_ms", "{:.3f}"), mid(one[who], "p50_ms") <= 1.3 * floor_p50)
        row(f"rpc_ping p99, 1 in flight, ms ({who})", middle([r["p99_ms"] for r in one[who]], "{:.3f}"), "",
            others(one, "p99_ms", "{:.3f}"))
        rate = mid(many[who], "per_second")
        wanted = max(0.7 * floor_rate, 10 * slow_rate)
        row(f"calls/s, {IN_FLIGHT} in flight ({who})", middle([r["per_second"] for r in many[who]], "{:.0f}"),
            f">= {0.7 * floor_rate:.0f} (0.7x echo), >= {10 * slow_rate:.0f} (10x stand-in)", others(many, "per_second", "{:.0f}"),
            rate >= wanted)
        row(f"p99, {IN_FLIGHT} in flight, ms ({who})", middle([r["p99_ms"] for r in many[who]], "{:.2f}"), "",
            others(many, "p99_ms", "{:.2f}"))
        for name, rounds in (("1", one), (str(IN_FLIGHT), many)):
            used = mid(rounds[who], "cpu")
            row(f"CPU s per 1,000 pings, {name} in flight ({who})", middle([r["cpu"] for r in rounds[who]], "{:.3f}"), "<= 0.08",
                others(rounds, "cpu", "{:.3f}"), used <= 0.08)
    row("upstream's client, p50 ms, 1 in flight", middle([r["p50_ms"] for r in slow_one[agent.name]]), "",
        "stand-in " + middle([r["p50_ms"] for r in slow_one[standin.name]]))
    row(f"upstream's client, calls/s, {IN_FLIGHT} in flight", middle([r["per_second"] for r in slow_many[agent.name]], "{:.0f}"), "",
        "stand-in " + middle([r["per_second"] for r in slow_many[standin.name]], "{:.0f}"))
    row("RSS after the load, MiB (of it not of files)", "{:.1f} ({:.1f})".format(*memory(agent.agent.pid)), "",
        "; ".join("{} {:.1f} ({:.1f})".format(p.name, *memory(p.agent.pid)) for p in (echo, standin)))
    return agent, standin


# --- start --------------------------------------------------------------------------------------------------------


def starts(lab, agent, standin):
    """From the start of the process to the answer of a call that waits in the queue."""
    RAW["start_ms"] = {}
    for peer, count in ((agent, STARTS), (standin, 3)):
        taken = RAW["start_ms"][peer.name] = []
        caller = Once(lab, peer)
        for _ in range(count):
            peer.agent.stop()
            time.sleep(0.3)
            caller.call()
            began = time.monotonic()
            if peer is agent:
                peer.start(wait=False)
            else:
                peer.begin()
            caller.wait("answered")
            taken.append((time.monotonic() - began) * 1000)
        caller.stop()
    ours, theirs = RAW["start_ms"].values()
    row("process start to first answered RPC, ms", middle(ours, "{:.0f}"), "<= 100", "stand-in " + middle(theirs, "{:.0f}"),
        statistics.median(ours) <= 100)


# --- idle ---------------------------------------------------------------------------------------------------------


class Idle:
    """A prepared guest that is left alone from now on, while other guests are measured."""

    def __init__(self, lab):
        self.guest = lab.agent(interval=5)
        self.guest.prepare(config_contents=SETTINGS, databases=[], users=[]).healthy()
        self.after_prepare = memory(self.guest.agent.pid)
        self.guest.agent.stop()
        self.guest.configure("report_interval = 5", "report_interval = 30")
        self.guest.start()
        time.sleep(15)
        self.began, self.used = time.monotonic(), cpu(self.guest.agent.pid)

    def finish(self):
        left = IDLE_SECONDS - (time.monotonic() - self.began)
        if left > 0:
            say(f"   {left:.0f} s are left")
            time.sleep(left)
        seconds, pid = time.monotonic() - self.began, self.guest.agent.pid
        share, (rss, anon) = 100 * (cpu(pid) - self.used) / seconds, memory(pid)
        RAW["idle"] = {"seconds": seconds, "cpu_percent": share, "rss": rss, "anon": anon, "after_prepare": self.after_prepare}
        row("idle RSS, MiB (of it not of files)", f"{rss:.1f} ({anon:.1f})", "<= 10",
            "after prepare, same process: {:.1f} ({:.1f})".format(*self.after_prepare), rss <= 10)
        row(f"idle CPU, % of a core over {seconds:.0f} s", f"{share:.3f}", "<= 0.05", "", share <= 0.05)
        self.guest.remove()


# --- broken -------------------------------------------------------------------------------------------------------


def recoveries(lab, agent, standin):
    """The broker is stopped and started; from the moment its port takes connections to the first good answer."""
    RAW["recover_ms"] = ours, theirs = [], []
    for number in range(RESTARTS):
        lab.broker.stop()
        askers = [
            subprocess.Popen(lab.words("recover", p), stdout=subprocess.PIPE, text=True, start_new_session=True) for p in (agent, standin)
        ]
        time.sleep(random.uniform(0, 1))
        lab.broker.run()
        for asker, taken in zip(askers, (ours, theirs)):
            out, _ = asker.communicate(timeout=200)
            taken.append(json.loads(out.splitlines()[-1])["ms"])
        say(f"   restart {number + 1} of {RESTARTS}: agent {ours[-1]} ms, stand-in {theirs[-1]} ms")
    row(f"first good RPC after the broker is back, ms ({RESTARTS}x)", middle(ours, "{:.0f}"), "<= 1000",
        "stand-in " + middle(theirs, "{:.0f}"), statistics.median(ours) <= 1000)


def casts(lab):
    """Confirmed casts of a change while the agent is killed again and again."""
    guest = lab.agent(key=False, interval=5)
    guest.prepare(config_contents=SETTINGS, databases=[], users=[]).healthy()
    # Upstream's client made the queue as itself is configured; from here on it is a durable one.
    guest.agent.stop()
    lab.broker.delete_queue(f"guestagent.{guest.id}")
    guest.configure("[oslo_messaging_rabbit]", "[oslo_messaging_rabbit]\namqp_durable_queues = true")
    guest.start()
    guest.template = lab.template(guest.id, None, "create_database",
                                  databases=[{"_name": "bench_@N@", "_character_set": "utf8mb4", "_collate": None}])
    sender = subprocess.Popen(lab.words("cast", guest, CASTS, CAST_EVERY_MS), stdout=subprocess.PIPE, text=True, start_new_session=True)
    for _ in range(KILLS):
        time.sleep(random.uniform(0.3, 1.7) * CASTS * CAST_EVERY_MS / 1000 / KILLS)
        guest.agent.kill()
        guest.start(wait=False)
    confirmed = json.loads(sender.communicate(timeout=300)[0])["confirmed"]

    def made():
        return {p.name for p in guest.root.rglob("bench_*") if p.is_dir()}

    try:
        within(240, "all databases", lambda: len(made()) == confirmed, every=0.5)
    except AssertionError:
        say(tail(guest.log))
    RAW["casts"] = {"confirmed": confirmed, "made": len(made())}
    row(f"confirmed casts lost over {KILLS} agent kills", f"{confirmed - len(made())} of {confirmed}", "0", "",
        confirmed == CASTS and len(made()) == confirmed)
    guest.remove()


# --- prepare ------------------------------------------------------------------------------------------------------


def prepares(lab):
    """An empty MariaDB by the agent, and by hand; in turn."""
    RAW["prepare_s"] = ours, theirs = [], []
    for number in range(PREPARES):
        for how in (by_agent, by_hand) if number % 2 else (by_hand, by_agent):
            (ours if how is by_agent else theirs).append(how(lab))
        say(f"   round {number + 1} of {PREPARES}: agent {ours[-1]:.2f} s, by hand {theirs[-1]:.2f} s")
    limit = statistics.median(theirs) + 0.3
    row("prepare of an empty MariaDB, s", middle(ours), f"<= {limit:.2f} (by hand + 0.3)", "by hand " + middle(theirs),
        statistics.median(ours) <= limit)


def by_agent(lab):
    guest = lab.agent(key=False)
    try:
        arguments = guest.prepare_args(config_contents=SETTINGS, databases=[], users=[])

        def healthy(message):
            args = message.get("args", {})
            return args.get("instance_id") == guest.id and args.get("payload", {}).get("service_status") == "healthy"

        with Tap(lab.broker, "trove-conductor") as tap:
            began = time.monotonic()
            lab.cloud.call(guest.id, "prepare", notification="DBaaSInstanceCreate", **arguments)
            tap.next(healthy, seconds=120)
            return time.monotonic() - began
    finally:
        guest.remove()


def by_hand(_lab):
    """What a person would type: the installer, then the server, until it answers a query."""
    import pymysql

    folder = pathlib.Path(tempfile.mkdtemp(prefix="tg-"))
    shutil.chown(folder, "mysql") if os.geteuid() == 0 else None
    option_file, data, socket = folder / "my.cnf", folder / "data", folder / "s"
    option_file.write_text(SETTINGS, encoding="utf-8")
    option_file.chmod(0o644)
    user = ["--user=mysql"] if os.geteuid() == 0 else []
    server = None
    try:
        began = time.monotonic()
        subprocess.run(["mariadb-install-db", f"--defaults-file={option_file}", f"--datadir={data}", *user],
                       check=True, capture_output=True, timeout=120)
        server = Process(
            ["/usr/sbin/mariadbd", f"--defaults-file={option_file}", f"--datadir={data}", f"--socket={socket}",
             f"--port={free_port()}", "--bind-address=127.0.0.1", f"--pid-file={folder}/pid", *user],
            folder / "log",
        )

        def answers():
            try:
                pymysql.connect(unix_socket=str(socket), user="root" if user else None).close()
            except pymysql.MySQLError:
                return False
            return True

        within(60, lambda: tail(folder / "log"), answers, every=0.01)
        return time.monotonic() - began
    finally:
        if server:
            server.stop(20)
        shutil.rmtree(folder, ignore_errors=True)


# --- binary -------------------------------------------------------------------------------------------------------


def the_binary():
    total, crates, rest = binary.account(AGENT)
    RAW["binary"] = {"bytes": total, "crates": crates, "rest": rest}
    parts = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in crates)
    row("stripped release binary, MB", f"{total / 1e6:.1f}", "<= 16", f"of which: {parts}; not in symbols {rest / 1e6:.2f}", total <= 16e6)
    small, large = len(binary.tree()), len(binary.tree("systemd"))
    row("crates in the tree", f"{small} (quickstart), {large} (package, with systemd)", "low")


def cold_build():
    seconds, used = binary.cold_build()
    RAW["cold_build"] = {"seconds": seconds, "cpu": used}
    row("cold build of what the quickstart needs, s", f"{seconds:.0f} ({used:.0f} CPU s)", "<= 480",
        f"on {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}", seconds <= 480)


# --- all ----------------------------------------------------------------------------------------------------------


def show(out):
    heads = ("figure", "agent", "target", "peers", "met")
    out.write("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads) + "\n")
    for line in TABLE:
        out.write("| " + " | ".join(line) + " |\n")
    missed = [line[0] for line in TABLE if line[4] == "NO"]
    out.write(f"\n{sum(line[4] == 'yes' for line in TABLE)} figures met, {len(missed)} missed\n")
    return len(missed)


def main():
    began, load = time.monotonic(), os.getloadavg()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tb-"))
    folder.chmod(0o755)
    broker = Broker(folder / "b")
    lab = Lab(folder, broker)
    stage("the binary", the_binary)
    try:
        broker.start()
        lab.start()
        idle = stage("an idle guest", Idle, lab)
        pair = stage("calls", calls, lab)
        if pair:
            stage("starts", starts, lab, *pair)
        stage("prepare", prepares, lab)
        stage("casts", casts, lab)
        if idle:
            stage("idle", idle.finish)
        if pair:
            stage("recovery", recoveries, lab, *pair)
    finally:
        lab.close()
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)
    if FULL:
        stage("cold build", cold_build)
    took = time.monotonic() - began
    print(f"\n{'full' if FULL else 'quick'} run of {time.strftime('%Y-%m-%d %H:%M')}, {took / 60:.0f} min, {os.cpu_count()} cores, "
          f"load average {load[0]:.1f} at the beginning and {os.getloadavg()[1]:.1f} at the end\n")
    missed = show(sys.stdout)
    place = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "bench.json"
    place.write_text(json.dumps({"table": TABLE, "raw": RAW}, indent=1, default=str), encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
