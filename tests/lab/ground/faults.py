"""What goes wrong. Each fault names what it does, to whom, how it is healed, and what the pair owes while it lasts."""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable

# What a pair owes.
SERVES = "serves"  # writes go on, or come back, while the fault lasts
HEALS = "heals"  # writes may stop (docs/pair.md says when and why); they come back once the fault is over
OPERATOR = "operator"  # nothing is decided without a person, who then decides

# Operating systems start an agent that ended again.
RESPAWN = 0.4


@dataclasses.dataclass(frozen=True)
class Fault:
    """`act(episode)` does it and answers a function that heals it, or None."""

    name: str
    act: Callable
    owes: Callable  # of the mode
    shortest: float = 1.0  # seconds that it lasts at least
    longest: float = 8.0  # seconds in which the service must be back
    gap: float = 6.0  # longest time without a write, while it is owed
    applies: Callable = lambda mode: True
    # Whether acknowledged writes may be lost in a mode that does not promise more.
    loses: bool = False


FAULTS = {}


def fault(name, owes, **more):
    def register(act):
        FAULTS[name] = Fault(name, act, owes if callable(owes) else lambda mode: owes, **more)
        return act

    return register


def failover(mode):
    """The source is out of reach: who decides?"""
    return SERVES if mode.automatic else OPERATOR


def stands(mode):
    """The source cannot write but lives: automatic failover helps, otherwise it must be healed."""
    return SERVES if mode.automatic else HEALS


def without_replica(mode):
    """Nobody acknowledges: `durable` stops rather than lose; without a witness a source with a lease cannot tell whether it was replaced."""
    if mode.durability == "durable" or (mode.automatic and not mode.witness):
        return HEALS
    return SERVES


def source_alone(mode):
    return SERVES if mode.witness or not mode.automatic else HEALS


def later(seconds, act):
    thread = threading.Timer(seconds, act)
    thread.daemon = True
    thread.start()
    return thread


# --- processes of the source ---


@fault("database of the source killed", SERVES, gap=6.0, longest=12.0)
def _(ep):
    ep.source.kill_database()


@fault("database of the source stands still", HEALS, shortest=4.0, longest=15.0, gap=15.0)
def _(ep):
    pid = ep.source.kill_database(signal.SIGSTOP)
    return lambda: ep.signal(pid, signal.SIGCONT)


@fault("agent of the source killed, started again at once", SERVES)
def _(ep):
    ep.source.kill_agent()
    ep.respawn(ep.source, RESPAWN)


@fault("agent of the source killed", SERVES, shortest=3.0)
def _(ep):
    ep.source.kill_agent()
    return lambda: ep.source.start(wait=False)


@fault("agent of the source stands still", SERVES, shortest=4.0)
def _(ep):
    pids = ep.source.kill_agent(signal.SIGSTOP)
    return lambda: [ep.signal(pid, signal.SIGCONT) for pid in pids]


@fault("agent of the source stands still for a moment", SERVES, shortest=1.0)
def _(ep):
    pids = ep.source.kill_agent(signal.SIGSTOP)
    later(0.7, lambda: [ep.signal(pid, signal.SIGCONT) for pid in pids])


@fault("agent and database of the source killed", failover, shortest=3.0, loses=True)
def _(ep):
    ep.source.kill_agent()
    ep.source.kill_database()
    return lambda: ep.source.start(wait=False)


@fault("source frozen and thawed", stands, shortest=4.0)
def _(ep):
    ep.source.freeze(True)
    return lambda: ep.source.freeze(False)


@fault("source gone and back", failover, shortest=3.0, loses=True)
def _(ep):
    ep.source.power_off()
    return ep.source.power_on


# --- processes of the replica ---


@fault("database of the replica killed", SERVES, gap=8.0, longest=12.0)
def _(ep):
    ep.replica.kill_database()


@fault("database of the replica stands still", without_replica, shortest=3.0)
def _(ep):
    pid = ep.replica.kill_database(signal.SIGSTOP)
    return lambda: ep.signal(pid, signal.SIGCONT)


@fault("agent of the replica killed, started again at once", SERVES)
def _(ep):
    ep.replica.kill_agent()
    ep.respawn(ep.replica, RESPAWN)


@fault("agent of the replica killed", SERVES, shortest=3.0)
def _(ep):
    ep.replica.kill_agent()
    return lambda: ep.replica.start(wait=False)


@fault("agent of the replica stands still", source_alone, shortest=3.0)
def _(ep):
    pids = ep.replica.kill_agent(signal.SIGSTOP)
    return lambda: [ep.signal(pid, signal.SIGCONT) for pid in pids]


@fault("replica frozen and thawed", without_replica, shortest=3.0)
def _(ep):
    ep.replica.freeze(True)
    return lambda: ep.replica.freeze(False)


@fault("replica gone and back", without_replica, shortest=3.0)
def _(ep):
    ep.replica.power_off()
    return ep.replica.power_on


# --- cables ---


@fault("data cable of the source pulled", HEALS, shortest=4.0, loses=True)
def _(ep):
    ep.world.link(ep.source.host, "d", False)
    return ep.world.heal


@fault("management cable of the source pulled", SERVES, shortest=2.0, gap=2.0)
def _(ep):
    ep.world.link(ep.source.host, "m", False)
    return ep.world.heal


@fault("management cable of the replica pulled", SERVES, shortest=2.0, gap=2.0)
def _(ep):
    ep.world.link(ep.replica.host, "m", False)
    return ep.world.heal


@fault("both cables of the source pulled", stands, shortest=4.0, loses=True)
def _(ep):
    for net in "md":
        ep.world.link(ep.source.host, net, False)
    return ep.world.heal


@fault("black hole at the data port of the source", HEALS, shortest=4.0, loses=True)
def _(ep):
    ep.world.black_hole(ep.source.host, "d", True)
    return ep.world.heal


@fault("black hole at the data port of the replica", without_replica, shortest=4.0)
def _(ep):
    ep.world.black_hole(ep.replica.host, "d", True)
    return ep.world.heal


@fault("nothing arrives at the source", HEALS, shortest=4.0, loses=True)
def _(ep):
    ep.world.lose(ep.source.host, "d", True, True)
    return ep.world.heal


@fault("nothing leaves the source", HEALS, shortest=4.0, loses=True)
def _(ep):
    ep.world.lose(ep.source.host, "d", False, True)
    return ep.world.heal


@fault("nothing arrives at the replica", without_replica, shortest=4.0)
def _(ep):
    ep.world.lose(ep.replica.host, "d", True, True)
    return ep.world.heal


@fault("the two do not hear each other on the data network", without_replica, shortest=4.0, loses=True)
def _(ep):
    ep.world.apart(ep.source.host, ep.replica.host, "d", True)
    return ep.world.heal


@fault("the two do not hear each other at all", without_replica, shortest=4.0, loses=True)
def _(ep):
    for net in "md":
        ep.world.apart(ep.source.host, ep.replica.host, net, True)
    return ep.world.heal


# --- more than one thing ---


@fault("source gone while the broker is away", failover, shortest=3.0, loses=True, applies=lambda mode: mode.automatic)
def _(ep):
    ep.world.link("bk", "m", False)
    ep.source.power_off()

    def heal():
        ep.world.link("bk", "m", True)
        ep.source.power_on()

    return heal


@fault("database of the source killed while the broker is away", SERVES, longest=12.0, applies=lambda mode: mode.automatic)
def _(ep):
    ep.world.link("bk", "m", False)
    ep.source.kill_database()
    return lambda: ep.world.link("bk", "m", True)


@fault("both databases killed", HEALS, shortest=1.0)
def _(ep):
    ep.source.kill_database()
    ep.replica.kill_database()


@fault("both gone and back", HEALS, shortest=1.0)
def _(ep):
    ep.source.power_off()
    ep.replica.power_off()

    def heal():
        ep.source.power_on()
        ep.replica.power_on()

    return heal


@fault("keepalived of the source killed", SERVES, applies=lambda mode: mode.plane == "keepalived")
def _(ep):
    ep.world.signal(ep.source.host, signal.SIGKILL, "keepalived")


@fault("keepalived of the source stands still", SERVES, applies=lambda mode: mode.plane == "keepalived", shortest=3.0)
def _(ep):
    pids = ep.world.signal(ep.source.host, signal.SIGSTOP, "keepalived")
    return lambda: [ep.signal(pid, signal.SIGCONT) for pid in pids]


# --- planned ---


@fault("switchover", SERVES, shortest=0.3, gap=2.0)
def _(ep):
    ep.pair.switchover(ep.replica)


@fault("switchover there and back", SERVES, shortest=0.3, gap=2.0)
def _(ep):
    ep.pair.switchover(ep.replica)
    ep.pair.wait_whole(20)
    ep.pair.switchover(ep.source)


@fault("switchover, and the source dies in it", lambda mode: SERVES if mode.automatic else OPERATOR, shortest=3.0, loses=True)
def _(ep):
    source = ep.source
    later(ep.random.uniform(0.02, 0.4), source.power_off)
    ep.ask_switchover()
    time.sleep(0.6)
    return source.power_on


@fault("switchover, and the replica dies in it", without_replica, shortest=3.0)
def _(ep):
    replica = ep.replica
    later(ep.random.uniform(0.02, 0.4), replica.power_off)
    ep.ask_switchover()
    time.sleep(0.6)
    return replica.power_on


@fault("switchover, and the two lose each other in it", lambda mode: HEALS, shortest=3.0, loses=True)
def _(ep):
    def cut():
        for net in "md":
            ep.world.apart(ep.source.host, ep.replica.host, net, True)

    later(ep.random.uniform(0.02, 0.4), cut)
    ep.ask_switchover()
    time.sleep(0.6)
    return ep.world.heal


def abort(side, step):
    """The agent of one side ends at a step of a switchover, and is started again."""

    def act(ep):
        guest = ep.source if side == "source" else ep.replica
        ep.restart(guest, abort_at=step)
        ep.pair.wait_whole(30)
        asked = ep.ask_switchover()
        limit = time.monotonic() + 10
        while guest.running() and asked.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        if guest.running():
            ep.note(f"{step} was not reached")
            guest.kill_agent()
        ep.respawn(guest, RESPAWN)

    return act


# Steps of a switchover, by who does them.
CANDIDATE = ("check", "probe", "catch_up", "begin", "fence", "wait", "detach", "release", "open")
LEAVER = ()
for _side, _kind, _steps in (("replica", "switchover", CANDIDATE), ("source", "leave", LEAVER)):
    for _step in _steps:
        for _when in ("before", "after"):
            _name = f"{_kind}/{_step}/{_when}"
            FAULTS[f"agent of the {_side} aborts at {_name}"] = Fault(
                f"agent of the {_side} aborts at {_name}", abort(_side, _name), lambda mode: SERVES, shortest=1.0, longest=12.0, gap=9.0
            )
