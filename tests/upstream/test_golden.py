"""Recorded requests are sent again, byte for byte; what our agent sends is compared with what upstream's sent.

Ids, times and figures differ and are masked; keys, types, properties and classes of failures must not.
"""

import json
import re

import pytest

from peer import wire

# The identities of the recordings (see tests/fixtures/wire/README.md).
GUESTS = {
    "encrypted": ("5a3ae000-0000-4000-8000-000000000001", "interop-guest-key-0123456789abcd"),
    "clear": ("5a3ae000-0000-4000-8000-000000000002", None),
}
ANSWERED = ["ping", "volume_info", "error_missing_argument", "error_no_such_method", "error_unsupported_version"]


@pytest.fixture(scope="module", params=list(GUESTS))
def recorded_guest(request, cloud):
    """Our agent in the place of the recorded one."""
    from peer.guest import Guest
    from peer.process import tail, within

    ident, key = GUESTS[request.param]
    guest = Guest(cloud, ident, key)
    guest.kind = request.param
    (guest.root / "var/lib/mysql").mkdir(parents=True)
    guest.start(wait=False)
    within(30, lambda: "the queue\n" + tail(guest.log), lambda: cloud.broker.has_queue(f"guestagent.{ident}"))
    yield guest
    guest.remove()


def shape(value):
    """Types and keys without the values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    if isinstance(value, bool) or value is None:
        return value
    return "number" if isinstance(value, (int, float)) else type(value).__name__


@pytest.mark.parametrize("name", ANSWERED)
def test_an_answer_is_like_upstreams(recorded_guest, cloud, name):
    request, *answers = wire.recorded(recorded_guest.kind, name)
    answer = next(m for m in answers if m["exchange"] == "")
    if name == "error_no_such_method":
        # The recorded call was of a method that ours does have.
        absent = wire.inner(request["body"])["method"]
        request, answer = (dict(m, body=m["body"].replace(absent, "no_such_method")) for m in (request, answer))
    asked, said = wire.inner(request["body"]), wire.inner(answer["body"])
    with wire.Tap(cloud.broker) as tap:
        tap.declare_reply(asked["_reply_q"])
        tap.publish(request["routing_key"], request["body"], expiration=request["properties"]["expiration"])
        exchange, key, properties, ours = tap.next(queue=asked["_reply_q"])
    assert (exchange, key) == (answer["exchange"], answer["routing_key"])
    assert properties == answer["properties"]
    assert set(ours) == set(said)
    assert ours["_msg_id"] == asked["_msg_id"] and ours["ending"] is True
    assert re.fullmatch("[0-9a-f]{32}", ours["_unique_id"])
    if said["failure"]:
        theirs, mine = json.loads(said["failure"]), json.loads(ours["failure"])
        assert set(mine) == set(theirs)
        assert (mine["class"], mine["module"]) == (theirs["class"], theirs["module"])
        assert isinstance(mine["tb"], list) and all(isinstance(line, str) for line in mine["tb"])
        if name != "error_missing_argument":
            assert mine["message"] == theirs["message"]
            assert mine["args"] == theirs["args"]
        assert mine["kwargs"] == theirs["kwargs"]
    else:
        assert ours["failure"] is None
        if recorded_guest.key:
            assert isinstance(ours["result"], str)
            ours, said = wire.unsealed(ours, recorded_guest.key), wire.unsealed(said, recorded_guest.key)
        assert shape(ours["result"]) == shape(said["result"])


def conductor_message(tap, guest, method, key):
    """The next message of ours to the conductor, opened."""

    def wanted(message):
        ident = message.get("_context_csz-instance-id") or message["args"].get("instance_id")
        if method == "heartbeat" and not key and ident != guest:
            return False
        return message["method"] == method

    return tap.next(wanted)


@pytest.mark.parametrize("method, name", [("heartbeat", "conductor_heartbeat"), ("notify_exc_info", "conductor_notify_exc_info")])
def test_a_report_is_like_upstreams(recorded_guest, cloud, method, name):
    recording = wire.recorded(recorded_guest.kind, name)[0]
    said = wire.inner(recording["body"])
    with wire.Tap(cloud.broker, "trove-conductor") as tap:
        # What makes it report both: a prepare that must fail (there is nothing to restore).
        request = wire.recorded(recorded_guest.kind, "prepare")[0]
        body = request["body"]
        if not recorded_guest.key:
            message = wire.inner(body)
            message["_unique_id"] = f"{abs(hash(name)):032x}"[:32]
            message["args"]["backup_info"] = {"id": "b"}
            body = json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)})
        tap.publish(request["routing_key"], body)
        exchange, routing, properties, ours = conductor_message(tap, recorded_guest.id, method, recorded_guest.key)
    assert (exchange, routing) == (recording["exchange"], recording["routing_key"])
    assert properties == recording["properties"]
    clear = [k for k in said if not k.startswith("_context_")]
    assert {k for k in ours if not k.startswith("_context_")} == set(clear)
    assert ours["version"] == said["version"]
    assert set(said["args"]) == set(ours["args"])
    if recorded_guest.key:
        assert {k for k in ours if k.startswith("_context_")} == {"_context_context", "_context_csz-instance-id"}
        assert ours["_context_csz-instance-id"] == recorded_guest.id
        for value in ours["args"].values():
            sealed = json.loads(value)
            assert set(sealed) == {"entity", "csz-instance-id"} and sealed["csz-instance-id"] == recorded_guest.id
        ours, said = wire.unsealed(ours, recorded_guest.key), wire.unsealed(said, recorded_guest.key)
    else:
        assert {k for k in ours if k.startswith("_context_")} <= {k for k in said if k.startswith("_context_")}
    if method == "heartbeat":
        assert shape(ours["args"]) == shape(said["args"])
    else:
        assert isinstance(ours["args"]["exception"], list) and all(isinstance(line, str) for line in ours["args"]["exception"])
        assert isinstance(ours["args"]["message"], str)
        assert ours["args"]["serialized_notification"]["instance_id"] == recorded_guest.id
        assert ours["args"]["serialized_notification"]["server_type"] == "guest"


def test_our_own_caller_sends_what_upstreams_sends(recorded_guest, cloud, tmp_path):
    recording = wire.recorded(recorded_guest.kind, "ping")[0]
    said = wire.inner(recording["body"])
    key = []
    if recorded_guest.key:
        (tmp_path / "key").write_text(recorded_guest.key, encoding="utf-8")
        key = ["--key-file", str(tmp_path / "key")]
    with wire.Tap(cloud.broker, recording["routing_key"]) as tap:
        out = recorded_guest.cli("call", "rpc_ping", "--guest", recorded_guest.id, "--timeout", "15", *key)
        assert json.loads(out) is True
        exchange, routing, properties, ours = tap.next()
    assert (exchange, routing) == (recording["exchange"], recording["routing_key"])
    assert properties == recording["properties"]
    plain = {k for k in said if not k.startswith("_context_")}
    assert {k for k in ours if not k.startswith("_context_")} == plain
    assert ours["version"] == said["version"] and ours["_timeout"] is None
    if recorded_guest.key:
        assert {k for k in ours if k.startswith("_context_")} == {"_context_context"}
