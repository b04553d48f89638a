"""Two filters of our own in the pipeline of the Swift used by the tests: a cache inside the process (Swift would want
memcached), and faults that a test asks for over HTTP.

    POST /faults   {"method": "PUT", "path": "/v1/AUTH_trove/box/", "do": "status", "status": 503, "skip": 2, "times": 1}
    GET /faults/ID     {"hits": n}        DELETE /faults/ID     ends it (so does `times`, default 1; 0 = for ever)

`path` is a regular expression that must match the start of path?query, so that tests in containers of their own do not meet;
`skip` lets that many matching requests pass first. What `do` does:

    status    answers `status` (and `body`) after reading `after` bytes of the request
    drop      closes the connection without an answer after reading `after` bytes of the request
    lose      does what is asked for, then closes the connection without an answer
    cut       closes the connection after `after` bytes of the answer's body
    flip      changes the byte at `after` of the request's body (PUT, POST) or of the answer's (GET)
    stall     waits `seconds`, then does what is asked for
    freeze    sends `after` bytes of the answer's body, then waits `seconds`, then goes on
    header    does what is asked for, with the answer's header `name` set to `value`
"""

import json
import re
import socket
import time
import uuid

import eventlet


class Memory:
    """What Swift expects of `swift.cache`, for one process."""

    def __init__(self):
        self.kept = {}

    def get(self, key, raise_on_error=False):
        value, until = self.kept.get(key, (None, None))
        if until is not None and until < time.time():
            self.kept.pop(key, None)
            return None
        return value

    # Times beyond a month are points in time, as in memcached.
    def set(self, key, value, serialize=True, time=0, min_compress_len=0, raise_on_error=False):
        self.kept[key] = (value, until(time))

    def delete(self, key, server_key=None):
        self.kept.pop(key, None)

    def incr(self, key, delta=1, time=0):
        value = max(0, int(self.get(key) or 0) + int(delta))
        self.set(key, value, time=time)
        return value

    def decr(self, key, delta=1, time=0):
        return self.incr(key, -int(delta), time)

    def set_multi(self, mapping, server_key, serialize=True, time=0, min_compress_len=0):
        for key, value in mapping.items():
            self.set(key, value, time=time)

    def get_multi(self, keys, server_key):
        return [self.get(key) for key in keys]


def until(seconds):
    if not seconds:
        return None
    return seconds if seconds > 30 * 24 * 3600 else time.time() + seconds


def cache(global_conf, **conf):
    memory = Memory()

    def wrap(app):
        def call(env, start_response):
            env["swift.cache"] = memory
            return app(env, start_response)
        return call
    return wrap


class Changed:
    """A request body with one byte changed."""

    def __init__(self, body, at):
        self.body, self.at, self.seen = body, at, 0

    def through(self, data):
        data = change(data, self.at - self.seen)
        self.seen += len(data)
        return data

    def read(self, *size):
        return self.through(self.body.read(*size))

    def readline(self, *size):
        return self.through(self.body.readline(*size))

    def __getattr__(self, name):
        return getattr(self.body, name)


def change(data, at):
    if not 0 <= at < len(data):
        return data
    return data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1:]


class Faults:
    def __init__(self, app):
        self.app, self.rules = app, {}

    def __call__(self, env, start_response):
        path = env["PATH_INFO"]
        if path == "/faults" or path.startswith("/faults/"):
            return self.control(env, path, start_response)
        rule = self.find(env)
        if not rule:
            return self.app(env, start_response)
        env["faults.input"] = env["wsgi.input"]  # Swift wraps it
        env["eventlet.minimum_write_chunk_size"] = 1  # what was sent before a cut arrives
        return getattr(self, "do_" + rule["do"])(rule, env, start_response)

    def find(self, env):
        whole = env["PATH_INFO"] + ("?" + env["QUERY_STRING"] if env.get("QUERY_STRING") else "")
        for rule in self.rules.values():
            if rule.get("method", env["REQUEST_METHOD"]) != env["REQUEST_METHOD"] or not re.match(rule["path"], whole):
                continue
            rule["seen"] += 1
            times = rule.get("times", 1)
            if rule["seen"] <= rule.get("skip", 0) or (times and rule["hits"] >= times):
                continue
            rule["hits"] += 1
            return rule
        return None

    def control(self, env, path, start_response):
        method, key = env["REQUEST_METHOD"], path[len("/faults/"):]
        answer, status = {}, "200 OK"
        if method == "POST":
            rule = json.loads(env["wsgi.input"].read(int(env["CONTENT_LENGTH"])))
            if not hasattr(self, "do_" + rule["do"]):
                status = "400 Bad Request"
            key = uuid.uuid4().hex
            self.rules[key] = dict(rule, seen=0, hits=0)
            answer = {"id": key}
        elif method == "DELETE":
            self.rules.pop(key, None)
        else:
            answer = {"hits": self.rules.get(key, {}).get("hits", 0), "seen": self.rules.get(key, {}).get("seen", 0)}
        body = json.dumps(answer).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    @staticmethod
    def eat(rule, env):
        left = rule.get("after", 0)
        while left > 0:
            data = env["wsgi.input"].read(min(left, 65536))
            if not data:
                return
            left -= len(data)

    @staticmethod
    def hang_up(env):
        env["faults.input"].get_socket().shutdown(socket.SHUT_RDWR)

    def do_status(self, rule, env, start_response):
        self.eat(rule, env)
        body = rule.get("body", "injected").encode()
        start_response(f"{rule['status']} Injected", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [] if env["REQUEST_METHOD"] == "HEAD" else [body]

    def do_drop(self, rule, env, start_response):
        self.eat(rule, env)
        self.hang_up(env)
        return self.do_status({"status": 500}, env, start_response)

    def do_lose(self, rule, env, start_response):
        for _ in self.app(env, lambda *_: None):
            pass
        self.hang_up(env)
        return self.do_status({"status": 500}, env, start_response)

    def do_cut(self, rule, env, start_response):
        left = rule.get("after", 0)
        for data in self.app(env, start_response):
            if len(data) >= left:
                yield data[:left]
                self.hang_up(env)
                return
            left -= len(data)
            yield data

    def do_flip(self, rule, env, start_response):
        at = rule.get("after", 0)
        if env["REQUEST_METHOD"] in ("PUT", "POST"):
            env["wsgi.input"] = Changed(env["wsgi.input"], at)
            return self.app(env, start_response)
        return self.flipped(at, env, start_response)

    def flipped(self, at, env, start_response):
        for data in self.app(env, start_response):
            yield change(data, at)
            at -= len(data)

    def do_stall(self, rule, env, start_response):
        eventlet.sleep(rule["seconds"])
        return self.app(env, start_response)

    def do_freeze(self, rule, env, start_response):
        left = rule.get("after", 0)
        for data in self.app(env, start_response):
            if 0 <= left <= len(data):
                yield data[:left]
                eventlet.sleep(rule["seconds"])
                data = data[left:]
                left = -1
            elif left > 0:
                left -= len(data)
            yield data

    def do_header(self, rule, env, start_response):
        def answer(status, headers, *rest):
            headers = [pair for pair in headers if pair[0].lower() != rule["name"].lower()]
            return start_response(status, headers + [(rule["name"], rule["value"])], *rest)
        return self.app(env, answer)


def faults(global_conf, **conf):
    return Faults
