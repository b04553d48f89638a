"""Every method of upstream's client: known to us with the same version and kind, answered or refused in upstream's words."""

import json
import time

import pytest

from peer.cloud import Refused
from peer.process import within

# What each method needs to be called at all; the rest take no arguments.
ARGUMENTS = {
    "rebuild": {"ds_version": "10.11"},
    "upgrade": {"upgrade_info": {"datastore_version": "10.12"}},
    "post_upgrade": {"upgrade_info": {}},
    "create_backup": {"backup_info": {"id": "b1"}},
    "attach_replication_slave": {"snapshot": {"master": {"id": "m"}}},
    "attach_replica": {"replica_info": {}, "slave_config": ""},
    "make_read_only": {"read_only": True},
    "enable_as_master": {"replica_source_config": ""},
    "wait_for_txn": {"txn": "0-1-1"},
    "cleanup_source_on_replica_detach": {"replica_info": {}},
    "guest_log_action": {"log_name": "general", "enable": True, "disable": False, "publish": False, "discard": False},
    "module_list": {"include_contents": False},
    "module_apply": {"modules": []},
    "module_remove": {"module": {}},
    "ssl_action": {"mode": "basic", "container": None, "enable": True, "disable": False},
}


def ours(guest):
    return {row["name"]: row for row in json.loads(guest.cli("methods", "--json"))}


def test_the_table_is_upstreams(prepared, cloud):
    table = ours(prepared)
    sent = {row["name"]: row for row in cloud.order("catalogue")}
    assert len(sent) == 61
    assert {name for name, row in table.items() if row["origin"] == "upstream"} == set(sent)
    for name, row in sent.items():
        assert (table[name]["version"], table[name]["kind"]) == (row["version"], row["kind"]), name
        if table[name]["args"] is not None:
            assert set(row["args"]) <= set(table[name]["args"]), name


def test_what_is_not_built_is_refused_in_upstreams_words(prepared, cloud):
    absent = [row for row in ours(prepared).values() if row["state"] == "not supported" and row["origin"] == "upstream"]
    wrong = []
    for row in absent:
        name = row["name"]
        if row["kind"] == "cast":
            continue
        try:
            answer = cloud.call(prepared.id, name, timeout=10, **ARGUMENTS.get(name, {}))
            wrong.append(f"{name}: answered {answer!r}")
        except Refused as refused:
            text = f"The '{name}' operation is not supported for the 'mariadb' datastore."
            if refused.kind != "GuestError" or text not in refused.text:
                wrong.append(f"{name}: {refused}")
    assert not wrong, "\n".join(wrong)


def test_casts_that_are_not_built_leave_the_agent_well(prepared, cloud):
    before = len(cloud.tables(prepared.id)["faults"])
    for row in ours(prepared).values():
        if row["state"] == "not supported" and row["kind"] == "cast" and row["origin"] == "upstream":
            cloud.call(prepared.id, row["name"], notification="DBaaSInstanceUpgrade", **ARGUMENTS.get(row["name"], {}))
    within(20, "a fault", lambda: len(cloud.tables(prepared.id)["faults"]) > before)
    assert "not supported" in cloud.tables(prepared.id)["faults"][-1]["message"]
    assert cloud.call(prepared.id, "rpc_ping") is True
    assert cloud.heartbeat_after(prepared.id, time.time()) == "healthy"


def test_figures(prepared, cloud):
    volume = cloud.call(prepared.id, "get_volume_info")
    assert set(volume) >= {"block_size", "total_blocks", "free_blocks", "avail_blocks", "total", "free", "used", "mgr_extra_info"}
    assert 0 < volume["used"] <= volume["total"]
    hardware = cloud.call(prepared.id, "get_hwinfo")
    assert hardware["mem_total"] > 100_000 and hardware["num_cpus"] >= 1
    diagnostics = cloud.call(prepared.id, "get_diagnostics")
    assert set(diagnostics) == {"version", "fd_size", "vm_size", "vm_peak", "vm_rss", "vm_hwm", "threads"}
    assert diagnostics["vm_rss"] > 0


@pytest.mark.parametrize(
    "order, said",
    [
        ({"version": "1.9"}, "Endpoint does not support RPC version 1.9. Attempted method: rpc_ping"),
        ({"version": "2.0"}, "Endpoint does not support RPC version 2.0. Attempted method: rpc_ping"),
        ({"method": "no_such_method"}, "Endpoint does not support RPC method no_such_method"),
        ({"method": "_private"}, "_private"),
        ({"kwargs": {"colour": "red"}}, "colour"),
        ({"method": "get_user", "kwargs": {"hostname": "%"}}, "username"),
        ({"method": "get_user", "kwargs": {"username": 7, "hostname": "%"}}, "username"),
        ({"method": "list_users", "kwargs": {"limit": "many"}}, "limit"),
        ({"method": "make_" + "x" * 3000}, "too long"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_a_bad_request_gets_a_clear_failure(prepared, cloud, order, said):
    method = order.get("method", "rpc_ping")
    with pytest.raises(Refused) as refused:
        cloud.raw(prepared.id, method, **{k: v for k, v in order.items() if k != "method"})
    assert said in refused.value.text
    assert refused.value.kind != "MessagingTimeout"
    assert cloud.call(prepared.id, "rpc_ping") is True


def test_a_wrong_key_and_no_key_are_refused(prepared, cloud):
    # A guest without a key cannot tell; one with a key refuses, where upstream's runs the method.
    for attempt in [{"key": "a-key-that-is-not-the-guests-0000"}, {"key": None}] if prepared.key else [{"key": "some-key"}]:
        if prepared.key:
            with pytest.raises(Refused) as refused:
                cloud.raw(prepared.id, "rpc_ping", timeout=5, **attempt)
            assert refused.value.kind != "MessagingTimeout", "no answer at all"
        cloud.raw(prepared.id, "create_database", kwargs={"databases": [{"_name": "intruder"}]}, cast=True, **attempt)
    assert cloud.call(prepared.id, "rpc_ping") is True
    assert "intruder" not in str(cloud.call(prepared.id, "list_databases"))


def test_four_megabytes_of_arguments(prepared, cloud):
    big = "".join(f"# {number:060d}\n" for number in range(65_000))
    assert len(big) > 4_000_000
    with pytest.raises(Refused, match="longer than"):
        cloud.call(prepared.id, "reset_configuration", configuration={"config_contents": big}, timeout=60)
    with pytest.raises(Refused, match="ballast"):
        cloud.raw(prepared.id, "rpc_ping", kwargs={"ballast": big})
    # As many databases as fit in such a message: taken, and done in order.
    many = [{"_name": "mysql", "_collate": None, "_character_set": "x" * 4000} for _ in range(1000)]
    cloud.call(prepared.id, "create_database", notification="DBaaSDatabaseCreate", databases=many)
    assert cloud.call(prepared.id, "rpc_ping") is True
    within(20, "a fault", lambda: cloud.tables(prepared.id)["faults"])


def test_many_calls_at_once(prepared, cloud):
    answers = [cloud.send("call", guest=prepared.id, method="rpc_ping") for _ in range(100)]
    assert all(answer() is True for answer in answers)
