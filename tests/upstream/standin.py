"""A guest without a database: upstream's own server code answering a few methods, for the client's tests and the benchmark.

    python standin.py --config-file guest.conf

It stands where upstream's agent would (which is never run: it would change the machine): oslo.messaging, eventlet,
upstream's serializers, upstream's conductor client.
"""

import sys
import time

import trove.cmd  # noqa: F401  makes the interpreter green, before anything else is imported
import oslo_messaging as messaging


class Guest:
    """The methods that the benchmark and the harness's own test call."""

    target = messaging.Target(version="1.3")

    def rpc_ping(self, context):
        return True

    def get_filesystem_stats(self, context, fs_path):
        return {"block_size": 4096, "total_blocks": 10, "free_blocks": 5, "avail_blocks": 5, "total": 0.01, "free": 5, "used": 0.01}

    def get_replica_context(self, context):
        from trove.common import exception

        raise exception.TroveError("the stand-in has no replica")

    def list_users(self, context, limit=None, marker=None, include_marker=False):
        return [], None

    def prepare(self, context, **arguments):
        from trove.common.notification import EndNotification
        from trove.conductor import api
        from trove.common import cfg

        guest = cfg.CONF.guest_id
        with EndNotification(context, instance_id=guest):
            for status in ("building", "healthy"):
                api.API(context).heartbeat(guest, {"service_status": status}, sent=time.time())


def main():
    from oslo_log import log as logging
    from trove.common import cfg, debug_utils

    cfg.parse_args(sys.argv)
    logging.setup(cfg.CONF, None)
    debug_utils.setup()
    from trove import rpc
    from trove.guestagent.api import API

    rpc.init(cfg.CONF)
    guest = cfg.CONF.guest_id
    target = messaging.Target(topic="guestagent." + guest, server=guest, version=API.API_LATEST_VERSION)
    server = rpc.get_server(target, [Guest()], key=cfg.CONF.instance_rpc_encr_key)
    server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.wait()


if __name__ == "__main__":
    main()
