"""Upstream's own guest client, unmodified, as a process that takes orders.

    python client.py --config-file trove.conf          # lines of JSON on standard input, answers on standard output
    python client.py --config-file trove.conf GUEST METHOD ['{"kwarg": 1}']     # one call, for a person

It runs as trove-api and trove-taskmanager do: their configuration, their database (sqlite here), eventlet. Orders:

    {"id": 2, "op": "instance", "guest": ID, "key": true}       an instance's rows; answers its key
    {"id": 3, "op": "call", "guest": ID, "method": "rpc_ping", "kwargs": {}, "notification": "DBaaSUserCreate", "timeout": 5}
    {"id": 4, "op": "raw", "guest": ID, "method": M, "kwargs": {}, "version": "1.9", "key": null, "cast": false}
    {"id": 5, "op": "template", "guest": ID, "ram": 512}        the configuration file a taskmanager would render
    {"id": 6, "op": "catalogue"}            every method of the client: wire name, kind, version, names of the arguments
    {"id": 8, "op": "pings", "guest": ID, "count": 100, "in_flight": 1}      for the benchmark
    {"id": 9, "op": "task", "task": "promote", "guest": ID}     the taskmanager's own code, see taskmanager.py
    {"id": 10, "op": "backup", "guest": ID, "state": "NEW"}     a backup's row, completed unless said otherwise; answers its id
    {"id": 7, "op": "status", "guest": ID, "status": "RESTARTING"}      what a taskmanager writes beside the conductor

Orders run at the same time; an answer is {"id", "seconds", "result"} or {"id", "seconds", "error": {"class", "text"}}.
"""

import json
import sys
import time
import types

import trove.cmd  # noqa: F401  makes the interpreter green, before anything else is imported
import eventlet
from eventlet import tpool
from trove.cmd.common import initialize

MISSING = object()


def context(order):
    """A user's request context, with the notification that the real caller would attach."""
    from trove.common import notification
    from trove.common.context import TroveContext

    ctxt = TroveContext(user_id="u1", project_id="p1", auth_token=order.get("token", "token-of-the-user"), is_admin=False, roles=["member"])
    if order.get("notification"):
        request = types.SimpleNamespace(remote_addr="203.0.113.7", host="192.0.2.10:8779")
        cls = getattr(notification, order["notification"])
        ctxt.notification = cls(ctxt, request=request, **order.get("traits", {}))
        ctxt.notification.payload["server_type"] = "taskmanager"
    return ctxt


def instance(conf, order):
    from trove.instance import models, tasks
    from trove.instance.service_status import ServiceStatuses

    row = models.DBInstance.create(
        id=order["guest"], name=order.get("name", "test"), tenant_id="p1", flavor_id="1", volume_size=1,
        task_status=tasks.InstanceTasks.BUILDING, datastore_version_id="v1", region_id="RegionOne",
    )
    if not order.get("key", True):
        row.encrypted_key = None
    # The model makes up its own id; the guest's is given.
    row.id = order["guest"]
    row.save()
    models.InstanceServiceStatus.create(instance_id=row.id, status=ServiceStatuses.NEW)
    return {"id": row.id, "key": row.key.decode() if isinstance(row.key, bytes) else row.key}


def status(_conf, order):
    from trove.instance import models
    from trove.instance.service_status import ServiceStatuses

    row = models.InstanceServiceStatus.find_by(instance_id=order["guest"])
    row.set_status(getattr(ServiceStatuses, order["status"]))
    row.save()


def call(_conf, order):
    from trove.guestagent.api import API

    api = API(context(order), order["guest"])
    if order.get("timeout"):
        api.agent_low_timeout = api.agent_high_timeout = api.agent_snapshot_timeout = order["timeout"]
    return getattr(api, order["method"])(*order.get("args", []), **order.get("kwargs", {}))


def raw(_conf, order):
    """Past the API class but still upstream's client and serializers: other versions, names, arguments and keys."""
    import oslo_messaging as messaging
    from trove import rpc
    from trove.instance.models import get_instance_encryption_key

    key = order.get("key", MISSING)
    if key is MISSING:
        key = get_instance_encryption_key(order["guest"])
    target = messaging.Target(topic="guestagent." + order["guest"], version="1.3")
    client = rpc.get_client(target, key=key).prepare(version=order.get("version", "1.0"), timeout=order.get("timeout", 10))
    client.version_cap = None
    send = client.cast if order.get("cast") else client.call
    return send(context(order), order["method"], **order.get("kwargs", {}))


def pings(_conf, order):
    """So many rpc_ping of one API object, so many at a time: seconds of each, and of all."""
    from trove.guestagent.api import API

    api = API(context({}), order["guest"])

    def one(_number):
        started = time.monotonic()
        assert api.rpc_ping() is True
        return time.monotonic() - started

    started = time.monotonic()
    each = list(eventlet.GreenPool(order["in_flight"]).imap(one, range(order["count"])))
    return {"each": each, "seconds": time.monotonic() - started}


def catalogue(_conf, _order):
    """Calls every public method of the API class with placeholders and notes what it would send."""
    import inspect
    from trove.guestagent.api import API

    sent = []

    class Recorder(API):
        def get_client(self, *_args, **_kwargs):
            return types.SimpleNamespace(can_send_version=lambda version: True)

        def _create_guest_queue(self):
            pass

        def _call(self, method_name, timeout_sec, version, **kwargs):
            sent.append((method_name, "call", version, sorted(kwargs)))

        def _cast(self, method_name, version, **kwargs):
            sent.append((method_name, "cast", version, sorted(kwargs)))

    placeholders = {"snapshot": {"master": {"id": "x"}}, "backup_info": {"id": "x"}, "packages": ""}
    api = Recorder(context({}), "x")
    for name, function in inspect.getmembers(API, inspect.isfunction):
        if name.startswith("_") or name == "get_client":
            continue
        wanted = [
            p.name for p in inspect.signature(function).parameters.values()
            if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"
        ]
        getattr(api, name)(**{word: placeholders.get(word) for word in wanted})
    return [dict(zip(("name", "kind", "version", "args"), item)) for item in sent]


def template(_conf, order):
    from trove.common.template import SingleInstanceConfigTemplate

    version = types.SimpleNamespace(
        datastore_name=order.get("manager", "mariadb"), manager=order.get("manager", "mariadb"),
        name=order.get("version", "10.11"), version=order.get("version", "10.11"),
    )
    return SingleInstanceConfigTemplate(version, {"ram": order.get("ram", 512)}, order["guest"]).render()


def task(_conf, order):
    import taskmanager

    name = {"create_replica": "Create"}.get(order["task"], order["task"].capitalize())
    return taskmanager.run(context({"notification": f"DBaaSInstance{name}", **order}), order)


def backup(_conf, order):
    import taskmanager

    return taskmanager.backup(order)


OPS = {f.__name__: f for f in (instance, status, call, raw, pings, catalogue, template, task, backup)}


def carry_out(conf, order):
    started = time.monotonic()
    answer = {"id": order.get("id")}
    try:
        for attempt in range(20):
            try:
                answer["result"] = OPS[order["op"]](conf, order)
                break
            except Exception as error:
                # sqlite's only: the conductor writes the same file.
                if attempt == 19 or order["op"] == "task" or "database is locked" not in str(error):
                    raise
                time.sleep(0.2)
    except Exception as error:  # every kind is an answer here
        answer["error"] = {"class": type(error).__name__, "text": str(error)}
    answer["seconds"] = round(time.monotonic() - started, 4)
    sys.stdout.write(json.dumps(answer, default=str) + "\n")
    sys.stdout.flush()
    return answer


def tables():
    """Makes the tables by upstream's migrations (what `trove-manage db_sync` does first); initialize() reads them."""
    from trove.common import cfg
    from trove.db import get_db_api

    cfg.parse_args(sys.argv)
    get_db_api().db_sync(cfg.CONF)


def main():
    words = [a for a in sys.argv[1:]]
    conf_words, rest = words[:2], words[2:]
    sys.argv[1:] = conf_words
    tables()
    conf = initialize()
    if rest:
        kwargs = json.loads(rest[2]) if len(rest) > 2 else {}
        answer = carry_out(conf, {"op": "call", "guest": rest[0], "method": rest[1], "kwargs": kwargs})
        sys.exit(1 if "error" in answer else 0)
    sys.stdout.write(json.dumps({"id": 0, "result": "ready"}) + "\n")
    sys.stdout.flush()
    pool = eventlet.GreenPool(200)
    while True:
        line = tpool.execute(sys.stdin.readline)
        if not line:
            break
        pool.spawn_n(carry_out, conf, json.loads(line))
    pool.waitall()


if __name__ == "__main__":
    main()
