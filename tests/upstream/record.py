"""Writes tests/fixtures/rpc/METHOD/request.json: what upstream's client really sends for each method that has a sample here.

    python record.py [METHOD...]

Nobody answers: the messages are taken from the exchange. The control plane's own ids and the context are left out.
"""

import json
import pathlib
import shutil
import sys
import tempfile

from peer.broker import Broker
from peer.cloud import Cloud
from peer.process import TOP
from peer.wire import Tap

DATABASE = {"_name": "app", "_character_set": "utf8mb4", "_collate": "utf8mb4_general_ci"}
REPLICA_INFO = {
    "master": {"host": "10.1.2.7", "port": 3306},
    "replica_conf": {
        "log_position": {"gtid_pos": "0-1-77"},
        "replication_user": {"name": "slave_1a2b3c4d", "password": "pa-ss_w0rd"},
    },
}
DATASET = {"datastore_manager": "mariadb", "dataset_size": 1.06, "volume_size": 9.84, "snapshot_id": "b1"}
REPLICA_CONFIG = "[mysqld]\nlog_bin = /var/lib/mysql/data/mariadb-bin.log\nread_only = true\n"
USER = {"_name": "alice", "_password": "pa-ss_w0rd", "_host": "%", "_databases": [{"_name": "app"}]}
NONE = {}

# By the client's name where that is another than the wire's.
SAMPLES = {
    "prepare": {
        "memory_mb": 2048, "packages": "", "databases": [DATABASE], "users": [USER], "device_path": "/dev/vdb",
        "mount_point": "/var/lib/mysql", "backup_info": None, "config_contents": "[mysqld]\nport = 3306\n",
        "root_password": None, "overrides": {"max_connections": 200}, "cluster_config": None, "snapshot": None,
        "modules": [], "ds_version": "10.11",
    },
    "restart": NONE,
    "stop_db": NONE,
    "start_db_with_conf_changes": {"config_contents": "[mysqld]\nport = 3306\n", "ds_version": "10.11"},
    "reset_configuration": {"configuration": {"config_contents": "[mysqld]\nport = 3306\n"}},
    "update_overrides": {"overrides": {"max_connections": 200, "sql_mode": "ANSI"}, "remove": False},
    "apply_overrides": {"overrides": {"wait_timeout": 100, "autocommit": True, "max_allowed_packet": "32M"}},
    "rpc_ping": NONE,
    "get_volume_info": NONE,
    "mount_volume": {"device_path": "/dev/vdb", "mount_point": "/var/lib/mysql"},
    "unmount_volume": {"device_path": "/dev/vdb", "mount_point": "/var/lib/mysql"},
    "resize_fs": {"device_path": "/dev/vdb", "mount_point": "/var/lib/mysql", "online": True},
    "get_hwinfo": NONE,
    "get_diagnostics": NONE,
    "create_database": {"databases": [DATABASE, {"_name": "bare"}]},
    "delete_database": {"database": DATABASE},
    "list_databases": {"limit": 20, "marker": "app", "include_marker": True},
    "create_user": {"users": [USER]},
    "delete_user": {"user": {"_name": "alice", "_host": "%"}},
    "get_user": {"username": "alice", "hostname": "%"},
    "list_users": {"limit": 1, "marker": "alice@%", "include_marker": True},
    "change_passwords": {"users": [{"name": "alice", "host": "%", "password": "another-1"}]},
    "update_attributes": {
        "username": "alice", "hostname": "%", "user_attrs": {"name": "bob", "host": "192.0.2.1", "password": None},
    },
    "grant_access": {"username": "alice", "hostname": "%", "databases": ["app", "bare"]},
    "revoke_access": {"username": "alice", "hostname": "%", "database": "app"},
    "list_access": {"username": "alice", "hostname": "%"},
    "enable_root": NONE,
    "enable_root_with_password": {"root_password": "chosen-One1"},
    "disable_root": NONE,
    "is_root_enabled": NONE,
    "backup_required_for_replication": NONE,
    "get_replication_snapshot": {
        "snapshot_info": {
            "name": "Replication snapshot for r1", "description": "Backup image used to initialize replication slave",
            "instance_id": "i1", "parent_id": None, "tenant_id": "p1", "state": "NEW", "datastore_version_id": "v1",
            "deleted": False, "replica_number": 1, "backup_info": {}, "storage_driver": "swift", "id": "b1",
            "datastore": "mariadb", "datastore_version": "10.11", "swift_url": "https://swift.example/v1/AUTH_p1",
        },
        "replica_source_config": "[mysqld]\nlog_bin = /var/lib/mysql/data/mariadb-bin.log\n",
    },
    "create_backup": {
        "backup_info": {
            "id": "0c2a6c1e-9a7b-4f3d-8b11-6f8b5f0a1d22", "name": "daily", "description": None, "instance_id": "i1",
            "backup_type": None, "checksum": None, "parent": None, "datastore": "mariadb", "datastore_version": "10.11",
            "storage_driver": "swift", "swift_container": None, "swift_url": "https://swift.example/v1/AUTH_p1",
        },
    },
    "pre_create_backup": NONE,
    "post_create_backup": NONE,
    "attach_replica": {"replica_info": REPLICA_INFO, "slave_config": REPLICA_CONFIG, "restart": True},
    "attach_replication_slave": {
        "snapshot": dict(REPLICA_INFO, dataset=DATASET, replication_strategy="MariaDBGTIDReplication"),
        "replica_config": REPLICA_CONFIG,
    },
    "detach_replica": {"for_failover": True},
    "get_replica_context": NONE,
    "make_read_only": {"read_only": True},
    "enable_as_master": {"replica_source_config": "[mysqld]\nlog_bin = /var/lib/mysql/data/mariadb-bin.log\n"},
    "demote_replication_master": NONE,
    "get_latest_txn_id": NONE,
    "get_last_txn": NONE,
    "wait_for_txn": {"txn": "0-1-77"},
    "get_txn_count": NONE,
    "cleanup_source_on_replica_detach": {"replica_info": {"replication_user": "slave_1a2b3c4d"}},
}


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tr-"))
    broker = Broker(folder / "b")
    broker.start()
    cloud = Cloud(folder / "cloud", broker)
    try:
        cloud.start()
        guest, _ = cloud.new_instance(key=False)
        for name in sys.argv[1:] or SAMPLES:
            with Tap(broker, f"guestagent.{guest}") as tap:
                cloud.send("call", guest=guest, method=name, kwargs=SAMPLES[name], timeout=1)
                _, _, _, message = tap.next()
            kept = {key: value for key, value in message.items() if not key.startswith("_")}
            kept["kind"] = "call" if "_msg_id" in message else "cast"
            place = TOP / "tests" / "fixtures" / "rpc" / message["method"]
            place.mkdir(parents=True, exist_ok=True)
            (place / "request.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            print(message["method"])
    finally:
        cloud.stop()
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
