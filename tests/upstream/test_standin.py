"""The harness itself: upstream's client and conductor with a guest made of upstream's own server code."""

import sys

import pytest

from peer.cloud import HERE, Refused
from peer.process import Process, tail, within


@pytest.fixture(params=[True, False], ids=["encrypted", "clear"])
def standin(request, cloud, work):
    guest, key = cloud.new_instance(key=request.param)
    conf = work / f"{guest}.conf"
    conf.write_text(
        f"[DEFAULT]\ntransport_url = {cloud.broker.transport_url}\ncontrol_exchange = trove\nguest_id = {guest}\n"
        + (f"instance_rpc_encr_key = {key}\n" if key else ""),
        encoding="utf-8",
    )
    process = Process([sys.executable, HERE / "standin.py", "--config-file", conf], work / f"{guest}.out")
    within(60, lambda: "the stand-in: " + tail(process.log), lambda: "ready\n" in tail(process.log))
    yield guest
    process.stop()


def test_upstreams_own_code_passes_what_ours_must_pass(cloud, standin):
    assert cloud.call(standin, "rpc_ping") is True
    with pytest.raises(Refused, match="Endpoint does not support RPC method get_hwinfo") as refused:
        cloud.call(standin, "get_hwinfo")
    assert refused.value.kind == "GuestError"
    cloud.call(
        standin, "prepare", notification="DBaaSInstanceCreate", memory_mb=512, packages="", databases=[], users=[]
    )
    cloud.expect(standin, "healthy", 20)
    within(10, "the notification", lambda: [e for e, _ in cloud.notifications(standin) if e == "dbaas.instance_create.end"])
