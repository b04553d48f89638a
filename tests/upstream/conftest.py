"""One broker, one conductor and one upstream client for the whole run; guests are made and removed by the tests."""

import os
import pathlib
import shutil
import tempfile
import threading

import pytest

from peer.broker import Broker
from peer.cloud import Cloud
from peer.guest import AGENT, Guest


def pytest_sessionstart(session):
    if not AGENT.exists():
        pytest.exit(f"no agent at {AGENT}: cargo build --features sim,failpoints", returncode=2)


@pytest.fixture(scope="session")
def work():
    """A short folder that the database's user may enter."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tu-"))
    folder.chmod(0o755)
    yield folder
    keep = os.environ.get("TROVE_TEST_LOGS")
    if keep:
        for log in [*folder.rglob("*.log"), *folder.rglob("*.out")]:
            place = pathlib.Path(keep) / log.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, place)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def broker(work):
    """The broker most tests share: nobody may stop it."""
    node = Broker(work / "b")
    node.start()
    yield node
    node.stop()


@pytest.fixture(scope="session")
def cloud(work, broker):
    """Upstream's client and conductor on the shared broker."""
    plane = Cloud(work / "cloud", broker)
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


@pytest.fixture
def own_cloud(work):
    """Makes a broker and a control plane of its own, for a test that breaks the broker."""
    made = []

    def make(tls=False, default="", rabbit=None):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="c-", dir=work))
        folder.chmod(0o755)
        node = Broker(folder / "b", tls=tls)
        made.append(node)
        node.start()
        plane = Cloud(folder / "cloud", node, default=default, rabbit=rabbit(node) if rabbit else "")
        made.append(plane)
        plane.start()
        return plane

    yield make
    for thing in reversed(made):
        thing.stop()


def _remove(guests):
    """All at the same time: each waits for its database."""
    threads = [threading.Thread(target=guest.remove) for guest in guests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def new_guest(cloud):
    """Makes guests; `new_guest(cloud=…)` for one elsewhere. Not started."""
    made = []

    def make(cloud=cloud, key=True, **options):
        if "guest" not in options:
            options["guest"], options["key"] = cloud.new_instance(key=key)
        else:
            options["key"] = key
        guest = Guest(cloud, **options)
        made.append(guest)
        return guest

    yield make
    _remove(made)


@pytest.fixture(scope="module", params=["encrypted", "clear"])
def prepared(request, cloud):
    """A prepared guest, shared by the tests of a module, which leave it as they found it; once with a key, once without."""
    ident, key = cloud.new_instance(key=request.param == "encrypted")
    guest = Guest(cloud, ident, key)
    try:
        guest.start().prepare().healthy().logs_in()
        yield guest
    finally:
        guest.remove()
