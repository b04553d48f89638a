"""The agent is killed: at every journaled step of prepare, and beside a running database."""

import concurrent.futures
import functools
import subprocess
import time

import pytest

from peer.guest import AGENT, Guest
from peer.process import tail, within

# The server is started and installed by the guests, so two at a time keep two cores busy.
AT_ONCE = 3


@functools.cache
def abort_points():
    """Every name the binary can abort at during prepare, printed by the binary itself."""
    done = subprocess.run([str(AGENT), "methods", "--steps", "mariadb"], capture_output=True, text=True, check=True)
    steps = done.stdout.split()
    assert "begin" in steps and "ready" in steps, steps
    # Those of every operation come from the journal.
    steps += [name for name in ("accept", "started", "finish", "answered") if name not in steps]
    return [f"prepare/{step}/{side}" for step in steps for side in ("before", "after")]


def survive(cloud, point):
    """One guest that aborts at `point`, is started again and must end healthy or failed."""
    guest = Guest(cloud)
    try:
        guest.start(abort_at=point)
        guest.prepare()
        within(60, lambda: f"the abort\n{tail(guest.log)}", lambda: not guest.agent.running())
        assert guest.agent.child.returncode == -6, f"ended with {guest.agent.child.returncode}\n{tail(guest.log)}"
        guest.start(wait=False)
        end = cloud.expect(guest.id, ("healthy", "failed to spawn"), 90)
        assert end == "healthy", f"{end}\n{cloud.tables(guest.id)['faults']}\n{tail(guest.log, 60)}"
        guest.logs_in()
        return None
    except AssertionError as error:
        return f"{point}: {error}\n{tail(guest.log, 60)}"
    finally:
        guest.remove()


def test_an_abort_at_any_step_of_prepare_never_leaves_it_building(cloud):
    points = abort_points()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        failed = [text for text in pool.map(lambda point: survive(cloud, point), points) if text]
    print(f"{len(points) - len(failed)} of {len(points)} abort points survived")
    assert not failed, f"{len(failed)} of {len(points)}:\n" + "\n\n".join(failed)


def test_the_agents_death_is_not_the_databases(new_guest, cloud):
    guest = new_guest().start().prepare().healthy().logs_in()
    server = guest.database_pid()
    with guest.connect() as connection, connection.cursor() as cursor:
        guest.agent.kill()
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
        moment = time.time()
        guest.start()
        assert cloud.heartbeat_after(guest.id, moment) == "healthy"
        cursor.execute("SELECT 2")
    assert guest.database_pid() == server, "the running server was not adopted"
    # It is really watched: a restart through the agent replaces it.
    cloud.call(guest.id, "restart")
    assert guest.database_pid() != server
    guest.logs_in()


def test_a_polite_stop_leaves_the_database_running(new_guest, cloud):
    guest = new_guest().start().prepare().healthy().logs_in()
    server = guest.database_pid()
    assert guest.agent.stop(15) == 0
    guest.logs_in()
    moment = time.time()
    guest.start()
    assert cloud.heartbeat_after(guest.id, moment) == "healthy"
    assert guest.database_pid() == server


def test_a_killed_database_is_told_truthfully_and_comes_back(new_guest, cloud):
    guest = new_guest().start().prepare().healthy().logs_in()
    from peer.process import kill

    server = guest.database_pid()
    kill(server)
    moment = time.time()
    status = cloud.heartbeat_after(guest.id, moment, 10)
    assert status in ("crashed", "shutdown", "healthy"), status
    if status == "healthy":
        assert guest.database_pid() not in (None, server), "healthy was reported with no server"
    cloud.expect(guest.id, "healthy", 60)
    assert guest.database_pid() != server
    guest.logs_in()


def test_a_database_that_cannot_come_back_is_reported_dead(new_guest, cloud):
    guest = new_guest().start().prepare().healthy().logs_in()
    from peer.process import kill

    data = guest.root / "var/lib/mysql/data"
    data.rename(data.with_name("gone"))
    kill(guest.database_pid())
    killed = time.monotonic()
    cloud.expect(guest.id, ("crashed", "shutdown"), 15)
    print(f"reported after {time.monotonic() - killed:.1f} s")
    # And it stays so.
    time.sleep(4)
    assert cloud.status(guest.id) in ("crashed", "shutdown")
    assert cloud.call(guest.id, "rpc_ping") is True
