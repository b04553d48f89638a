"""Upstream's own taskmanager, unmodified, without the cloud around it: its promote, eject, detach and create-replica.

What is put in its place: nova, neutron and cinder (servers, networks and volumes that are simply there), Swift (an account that
answers), and the cast to another taskmanager that deletes a backup (done at once by the same code). Everything else is upstream's:
the order of calls, the templates, the tables, the states it writes, what it deletes at the end.
"""

import functools

from patience import patient


class Fake:
    """Has what it is given, and nothing else."""

    def __init__(self, **known):
        self.__dict__.update(known)


class Both(dict):
    """A flavor is asked either way."""

    __getattr__ = dict.__getitem__


FLAVOR = Both(id="1", ram=512, name="tiny", vcpus=1)
SERVER = Fake(status="ACTIVE", id="server", addresses={})
NOVA = Fake(
    flavors=Fake(get=lambda _id: FLAVOR),
    servers=Fake(get=lambda _id: SERVER),
    server_groups=Fake(list=lambda: []),
)
SWIFT = Fake(url="http://swift.example/v1/AUTH_p1", get_account=lambda: ({}, []))


@functools.cache
def stubs():
    """Puts the cloud's parts in place, once."""
    from trove.backup import models as backup_models
    from trove.common import cfg, clients
    from trove.common import server_group
    from trove.db import get_db_api
    from trove.instance import models
    from trove.taskmanager import api, manager
    from trove.taskmanager import models as tasks

    def load_instance(cls, context, id, needs_server=False, include_deleted=False):
        info = models.get_db_info(context, id, include_deleted=include_deleted)
        info.server_status = "ACTIVE"
        info.addresses = []
        status = models.InstanceServiceStatus.find_by(instance_id=id)
        return cls(context, info, SERVER, status)

    models.load_instance = load_instance
    models.BaseInstance.nova_client = property(lambda self: NOVA)
    server_group.create_nova_client = lambda *_args, **_more: NOVA
    clients.swift_client = clients.create_swift_client = lambda *_args, **_more: SWIFT
    fresh = tasks.FreshInstanceTasks
    fresh._prepare_networks_for_instance = lambda *_args, **_more: []
    fresh.get_injected_files = lambda *_args, **_more: {}
    fresh._create_server_volume = lambda *_args, **_more: {"device_path": None, "mount_point": "/var/lib/mysql"}
    tasks.NotifyMixin.send_usage_event = lambda *_args, **_more: None
    api.API.delete_backup = lambda self, backup_id: tasks.BackupTasks.delete_backup(self.context, backup_id)
    assert backup_models.api.API is api.API
    patient(get_db_api())
    cfg.CONF.set_override("usage_sleep_time", 1)
    cfg.CONF.set_override("trove_dns_support", False)
    return manager.Manager


@functools.cache
def version():
    """The rows of the datastore and of the version that the instances' rows name."""
    from trove.datastore import models
    from trove.db import get_db_api

    store, row = models.DBDatastore(), models.DBDatastoreVersion()
    store.id, store.name = "d1", "mariadb"
    get_db_api().save(store)
    row.id, row.datastore_id, row.name, row.version = "v1", "d1", "10.11", "10.11"
    row.manager, row.image_id, row.packages, row.active = "mariadb", "i1", "", True
    row.registry_ext, row.repl_strategy = "ext", "MariaDBGTIDReplication"
    get_db_api().save(row)


def run(context, order):
    """Does `order["task"]` to the instance `order["guest"]`; answers the states upstream wrote."""
    from trove.instance.models import DBInstance

    manager = stubs()
    version()
    task = order["task"]
    this = manager.__new__(manager)
    guests = order["guest"] if isinstance(order["guest"], list) else [order["guest"]]
    for guest in [*guests, *filter(None, [order.get("source")])]:
        row = DBInstance.find_by(id=guest)
        row.compute_instance_id, row.flavor_id = "server", "1"
        if task == "create_replica" and guest in guests:
            row.slave_of_id = order["source"]
        row.save()
    if task == "create_replica":
        this._create_replication_slave(
            context, guests, "replica", FLAVOR, "i1", [], [], "mariadb", "", 1, "nova", [None] * len(guests), None, None,
            order["source"], None, None, [], ds_version="10.11",
        )
    else:
        getattr(this, {"promote": "promote_to_replica_source", "eject": "eject_replica_source", "detach": "detach_replica"}[task])(
            context, guests[0]
        )
    return {row.id: [row.task_status.action, row.slave_of_id] for row in DBInstance.find_all(deleted=False)}


def backup(order):
    """A backup of the user's own. Completed: nothing that is done to replicas may touch it. New: as the API leaves it for the guest."""
    from trove.backup.models import DBBackup

    version()
    row = DBBackup.create(
        name="mine", tenant_id="p1", state=order.get("state", "COMPLETED"), instance_id=order["guest"], datastore_version_id="v1",
        deleted=False, storage_driver="swift",
        **({} if order.get("state") == "NEW" else {
            "location": "http://swift.example/v1/AUTH_p1/database_backups/mine.xbstream.gz", "backup_type": "full", "size": 1.0,
        }),
    )
    return row.id

