"""Messages as they lie on the wire: recorded ones from tests/fixtures/wire, present ones from a tap or a raw caller."""

import json
import time

import amqp

from peer.process import TOP

FIXTURES = TOP / "tests" / "fixtures" / "wire"
# What upstream's recorder left out or the library adds by itself.
PROPERTIES = ("content_type", "content_encoding", "delivery_mode", "priority", "expiration", "headers")


def recorded(kind, name):
    """The messages of a recording (`clear` or `encrypted`)."""
    return json.loads((FIXTURES / kind / f"{name}.json").read_text(encoding="utf-8"))["messages"]


def inner(body):
    """The message in the envelope."""
    outer = json.loads(body)
    assert set(outer) == {"oslo.version", "oslo.message"}, outer
    assert outer["oslo.version"] == "2.0"
    return json.loads(outer["oslo.message"])


def unsealed(message, key):
    """The message with every sealed value opened, by upstream's own code."""
    from trove.common import crypto_utils as crypto

    def opened(text):
        return json.loads(crypto.decrypt_data(crypto.decode_data(text), key))

    plain = dict(message)
    if "args" in message:
        plain["args"] = {}
        for name, value in message["args"].items():
            sealed = json.loads(value) if value.startswith("{") else value
            plain["args"][name] = opened(sealed["entity"] if isinstance(sealed, dict) else sealed)
    if "_context_context" in message:
        plain["_context_context"] = opened(message["_context_context"])
    if message.get("result") is not None:
        plain["result"] = opened(message["result"])
    return plain


class Tap:
    """A queue of our own that gets a copy of everything published to the control exchange with a routing key."""

    def __init__(self, broker, *keys):
        self.connection = amqp.Connection(f"127.0.0.1:{broker.port}", userid="guest", password="guest")
        self.connection.connect()
        self.channel = self.connection.channel()
        self.channel.exchange_declare("trove", "topic", passive=True)
        self.queue = self.channel.queue_declare(exclusive=True).queue
        for key in keys:
            self.channel.queue_bind(self.queue, "trove", key)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def declare_reply(self, name):
        """The queue that a recorded request wants its answer in."""
        self.channel.queue_declare(name, auto_delete=True)

    def publish(self, key, body, **properties):
        """As upstream publishes a request."""
        message = amqp.Message(
            body, content_type="application/json", content_encoding="utf-8", delivery_mode=2, priority=0, **properties
        )
        self.channel.basic_publish(message, exchange="trove", routing_key=key)

    def next(self, wanted=lambda message: True, queue=None, seconds=20):
        """The next message that is wanted: (exchange, routing key, properties, inner message)."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            got = self.channel.basic_get(queue or self.queue, no_ack=True)
            if got is None:
                time.sleep(0.02)
                continue
            message = inner(got.body)
            if wanted(message):
                properties = {name: got.properties[name] for name in PROPERTIES if name in got.properties}
                properties.setdefault("headers", got.headers or {})
                info = got.delivery_info
                return info["exchange"], info["routing_key"], properties, message
        raise AssertionError(f"no such message within {seconds} s")
