"""OpenStack Swift itself, all in one: a proxy, an account, a container and an object server on the loopback.

    VENV/bin/python serve.py DIR PORT      PORT is the proxy's; the three others listen on the next ports

One replica on a plain folder in DIR, log in DIR/log, process ids in DIR/NAME.pid. Each server is a process of its own,
forked after the imports, which are most of the time that Swift takes to start.
"""

import os
import pathlib
import pwd
import signal
import sys
import tempfile

# What Swift imports while it starts, taken before the fork.
from swift.account import server as _account  # noqa: F401
from swift.common.middleware import bulk, copy, dlo, slo, tempauth  # noqa: F401
from swift.common.middleware.s3api import s3api  # noqa: F401
from swift.common.ring.builder import RingBuilder
from swift.common.wsgi import run_wsgi
from swift.container import server as _container  # noqa: F401
from swift.obj import server as _object  # noqa: F401
from swift.proxy import server as _proxy  # noqa: F401

SERVERS = ["proxy", "account", "container", "object"]

COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {dir}
devices = {devices}
mount_check = false
workers = 0
disable_fallocate = true
fallocate_reserve = 0
log_level = INFO
log_name = {name}
client_timeout = 120
conn_timeout = 20
node_timeout = 120
container_update_timeout = 120
"""

BACKEND = """
[pipeline:main]
pipeline = {name}-server

[app:{name}-server]
use = egg:swift#{name}
log_requests = false
recon_cache_path = {dir}/cache
replication_server = false
conn_timeout = 20
node_timeout = 120
"""

# One slow answer must not take the only node out of use, hence the large error limit.
PROXY = """
[pipeline:main]
pipeline = faults catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth copy slo dlo proxy-logging proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
node_timeout = 120
recoverable_node_timeout = 120
conn_timeout = 20
error_suppression_limit = 1000000000
concurrent_gets = false

[filter:faults]
paste.filter_factory = faults:faults

[filter:cache]
paste.filter_factory = faults:cache

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:gatekeeper]
use = egg:swift#gatekeeper

[filter:healthcheck]
use = egg:swift#healthcheck

[filter:listing_formats]
use = egg:swift#listing_formats

[filter:bulk]
use = egg:swift#bulk

[filter:s3api]
use = egg:swift#s3api
location = us-east-1
dns_compliant_bucket_names = false
# Small parts, so that objects of many parts are quickly sent.
min_segment_size = 1

[filter:tempauth]
use = egg:swift#tempauth
user_trove_tester = testing .admin
user_trove_nobody = testing
user_other_tester = testing .admin

[filter:copy]
use = egg:swift#copy

[filter:slo]
use = egg:swift#slo

[filter:dlo]
use = egg:swift#dlo

[filter:proxy-logging]
use = egg:swift#proxy_logging
"""


def disk(folder):
    """A place whose file system keeps extended attributes: DIR's own, if it does."""
    for place in (folder, pathlib.Path("/var/tmp"), pathlib.Path("/dev/shm")):
        made = pathlib.Path(tempfile.mkdtemp(prefix="swift-disk-", dir=place))
        try:
            os.setxattr(made, "user.swift.test", b"kept")
        except OSError as error:
            print(f"{place} does not keep extended attributes: {error}", file=sys.stderr)
            made.rmdir()
            continue
        if place != folder:
            (folder / "elsewhere").write_text(f"{made}\n")
        return made
    sys.exit("no folder here keeps extended attributes, which Swift's object server needs")


def configure(folder, first):
    devices = disk(folder)
    for made in (devices / "d1", folder / "cache"):
        made.mkdir(parents=True, exist_ok=True)
    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = test\nswift_hash_path_prefix = test\n")
    user = pwd.getpwuid(os.geteuid()).pw_name
    for number, name in enumerate(SERVERS):
        port = first + number
        text = COMMON + (PROXY if name == "proxy" else BACKEND)
        (folder / f"{name}.conf").write_text(text.format(port=port, user=user, dir=folder, name=name, devices=devices))
        if name != "proxy":
            ring = RingBuilder(1, 1, 1)
            ring.add_dev({"region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1", "port": port, "device": "d1", "meta": "",
                          "replication_ip": "127.0.0.1", "replication_port": port})
            ring.rebalance()
            ring.get_ring().save(str(folder / f"{name}.ring.gz"))


def serve(folder, name):
    """One server in a process of its own; its id is in a file when this returns."""
    child = os.fork()
    if child:
        (folder / f"{name}.pid").write_text(f"{child}\n")
        return child
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    code = 1
    try:
        code = run_wsgi(str(folder / f"{name}.conf"), f"{name}-server", verbose=True)
    finally:
        os._exit(code)


def main():
    folder, first = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2])
    if len(sys.argv) > 3:  # one that was ended is wanted again
        serve(folder, sys.argv[3])
        return
    configure(folder, first)
    children = [serve(folder, name) for name in SERVERS]

    def end(*_):
        for child in children:
            try:
                os.kill(child, signal.SIGTERM)
            except ProcessLookupError:
                pass

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


main()
