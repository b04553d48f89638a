"""What upstream's own oslo.config and options make of configuration files, as fixtures for our reader.

    python config_golden.py                         writes tests/fixtures/config/golden, always the same
    python config_golden.py --check                 fails if those files are not what upstream answers today
    python config_golden.py --seed 7 --out DIR      other random files; TROVE_CONFIG_GOLDEN=DIR cargo nextest run --test config golden

A line of each file is a case: `parse.jsonl` the sections of a text (null if it is refused), `types.jsonl` a value read by a
type, `values.jsonl` files of a guest and the value, or the refusal, of each option (the first line has all, the others what differs).
"""

import argparse
import json
import logging
import os
import pathlib
import random
import sys
import tempfile
import warnings

warnings.simplefilter("ignore")
logging.disable()
from oslo_config import cfg, types  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parent / "fixtures" / "config" / "golden"


# --- parse: the dialect ------------------------------------------------------------------------------------------------

HAND = [
    "", "\n", "[DEFAULT]", "[DEFAULT]\n", "a = 1\n", "# c\n; c\n[DEFAULT]\na=1\n", "[DEFAULT]\na = b # no comment\n",
    "[DEFAULT]\na=b=c:d\n", "[DEFAULT]\na:b=c\n", "[DEFAULT]\n a = 1\n", "[DEFAULT]\na = 1\n  two\n\tthree  \n",
    "[DEFAULT]\na = 1\n\n  two\n", "[DEFAULT]\na = 1\n# c\n  two\n", "[DEFAULT]\na = 1\n   \n  two\n", "[DEFAULT]\na =\n  only\n",
    "[DEFAULT]\na = \"quoted # ;\"\n", "[DEFAULT]\na = 'it''s'\n", "[DEFAULT]\na = \"\n", "[DEFAULT]\na = \"\"\n", "[DEFAULT]\na = 'x\"\n",
    "[DEFAULT]\na = \" x \"\n  \" y \"\n", "[DEFAULT]\n= 1\n", "[DEFAULT]\n : 1\n", "[DEFAULT]\na\n", "[]\na=1\n", "[DEFAULT\na=1\n",
    "[DEFAULT] # c\na=1\n", "[DEFAULT] \na=1\n", "[ spaced ]\na=1\n", "[a]]\nb=1\n", "[[a]\nb=1\n", "[MySQL]\na=1\n[mysql]\na=2\n",
    "[default]\na=1\n[DEFAULT]\na=2\n", "[DEFAULT]\na=1\na=2\n[s]\nb=1\n[DEFAULT]\na=3\n", "[DEFAULT]\r\na=1\r\nb=2\r\n",
    "[DEFAULT]\ra=1\rb=2", "[DEFAULT]\na=1\x0b\nb=\x0c2\n", "[DEFAULT]\na=\x1cx\x1f\n", "[DEFAULT]\na=\u00a0x\u2003\n",
    "[DEFAULT]\na=x\u2028y\n", "[DEFAULT]\na=x\x85y\x85\n", "\ufeff[DEFAULT]\na=1\n", "[DEFAULT]\na=\x00\n", "[\u00c4\u0130]\na=1\n",
    "[DEFAULT]\nA=1\na=2\nsome-name=3\n", "[DEFAULT]\na b = 1\n", "[DEFAULT]\nkey = rabbit://u:p%40@h:5672/?ssl=1\n",
    "[DEFAULT]\n\ufeffa = 1\n", "[DEFAULT]\n\x0b\na=1\n", "[DEFAULT]\n\x0ba=1\n", "[DEFAULT]\n\u00a0a=1\n",
]
PIECES = [
    "[DEFAULT]", "[oslo_messaging_rabbit]", "[MariaDB]", "[mariadb]", "[", "]", "[]", "[x", "a", "b", "key", "=", ":", " = ", " : ",
    "=", "\n", "\n", "\n", "\n", "\n\n", "\r\n", " ", "  ", "\t", "#", ";", "# c", "'", '"', "value", "1", "x,y", "$a", "$$", "${b}",
    "\\", "\u00e9", "\u3000", "\x1c", "rabbit://u:p@h/", "true",
]


def random_text(rng):
    head = rng.choice(["", "", "[DEFAULT]\n", "[DEFAULT]\n", "[s]\n", "# c\n[DEFAULT]\n"])
    if rng.random() < 0.3:
        return head + "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 25)))
    lines = []
    for _ in range(rng.randint(1, 10)):
        value = "".join(rng.choice(PIECES).replace("\n", " ").replace("\r", " ") for _ in range(rng.randint(0, 4)))
        assignment = f"{rng.choice('abc')}{rng.choice(['=', ' = ', ':', ' : '])}{value}"
        lines.append(rng.choice([assignment] * 6 + [f"{assignment}\n  {value}", f"# {value}", "", "[S]"]))
    return (head or "[s]\n") + "\n".join(lines) + rng.choice(["", "\n"])


def parse(text, folder):
    path = pathlib.Path(folder) / "f.conf"
    path.write_bytes(text.encode())
    sections, normalized = {}, {}
    parser = cfg.ConfigParser(str(path), sections)
    parser._add_normalized(normalized)
    try:
        parser.parse()
    except cfg.ParseError:
        return None
    return normalized


# --- types -------------------------------------------------------------------------------------------------------------

ATOMS = ["1", "0", "5", "007", "-3", "+4", "1_0", "_1", "1__0", "1_", "0x1", "1.5", ".5", "5.", "1e3", "1e", "-", "", " ", "true", "TRUE",
         "Yes", "on", "off", "No", "maybe", "a", "b", "a:b", "a:b:c", ":", "a:", ":b", " a : b ", "x y", "\u00a0", "\x1f", "9" * 30]
TYPES = {
    "bool": types.Boolean(),
    "int": types.Integer(),
    "float": types.Float(),
    "list": types.List(),
    "dict": types.Dict(),
}


def random_value(rng):
    if rng.random() < 0.5:
        return rng.choice(ATOMS)
    return rng.choice([",", ", ", " ,", ",,"]).join(rng.choice(ATOMS) for _ in range(rng.randint(1, 4))) + rng.choice(["", "", ","])


def typed(kind, text):
    try:
        value = TYPES[kind](text)
    except ValueError:
        return {"error": True}
    # A whole number beyond 64 bits is none of ours.
    if kind == "int" and value is not None and not -(2**63) <= value < 2**63:
        return {"error": True}
    return {"value": list(value.items()) if kind == "dict" else value}


# --- values: the options that upstream's guest really has ---------------------------------------------------------------

INTS, BOOLS = ["5", "007", " 12 ", "1_5", "x", "1.5", '"9"', "$num_tries", "${num_tries}"], ["true", "0", "YES", "off", "2", "", "$debug"]
TEXTS = ["plain", "two words", "'quoted'", "a$$b", "a\\$b", "$conductor_queue", "${report_interval}s", "$nothing", "${mariadb.mount_point}/x",
         "$debug", "1$ 2", "$control_exchange", "a\n  b"]
LISTS = ["a", "a,b", " a , b ,", "", ",,", "a,,b", "$conductor_queue,b"]
OPTIONS = {
    ("DEFAULT", "report_interval"): INTS, ("DEFAULT", "num_tries"): INTS, ("DEFAULT", "state_change_wait_time"): INTS,
    ("DEFAULT", "control_exchange"): TEXTS, ("DEFAULT", "conductor_queue"): TEXTS, ("DEFAULT", "mount_options"): TEXTS,
    ("DEFAULT", "volume_fstype"): ["ext3", "xfs", "EXT4", "zfs", " ext4 "], ("DEFAULT", "debug"): BOOLS,
    ("DEFAULT", "root_grant"): LISTS, ("DEFAULT", "root_grant_option"): BOOLS, ("DEFAULT", "hostname_require_valid_ip"): BOOLS,
    ("DEFAULT", "datastore_registry_ext"): ["mariadb:a.b.C", "mariadb:a,x:b", "mariadb:a:b", "mariadb", ":", "mariadb:1,mariadb:2"],
    ("DEFAULT", "log_file"): ["/a/$guest_id.log", "/b"],
    ("mariadb", "mount_point"): ["/data", "/$guest_id", "/$$"], ("mariadb", "volume_support"): BOOLS,
    ("mariadb", "ignore_users"): LISTS, ("mariadb", "ignore_dbs"): LISTS, ("mariadb", "default_password_length"): ["20", "x", "008"],
    ("oslo_messaging_rabbit", "ssl"): BOOLS, ("oslo_messaging_rabbit", "amqp_durable_queues"): BOOLS,
    ("oslo_messaging_rabbit", "amqp_auto_delete"): BOOLS,
    ("oslo_messaging_rabbit", "kombu_missing_consumer_retry_timeout"): INTS,
    ("oslo_messaging_rabbit", "rabbit_login_method"): ["PLAIN", "plain", "EXTERNAL"],
}
OLD = {
    ("DEFAULT", "hostname_require_ipv4"): BOOLS, ("DEFAULT", "logfile"): ["/old"], ("DEFAULT", "ignore_users"): LISTS,
    ("DEFAULT", "ignore_dbs"): LISTS, ("oslo_messaging_rabbit", "kombu_reconnect_timeout"): INTS,
    ("mysql", "default_password_length"): ["22", "0_30"], ("service_credentials", "region_name"): TEXTS,
    ("MARIADB", "ignore_users"): LISTS,
}


def random_files(rng):
    files = ["[DEFAULT]\nguest_id = g1\ndatastore_manager = mariadb\n"]
    known = list((OPTIONS | OLD).items())
    for _ in range(rng.randint(1, 3)):
        lines, section = [], None
        for (group, name), values in sorted(rng.sample(known, rng.randint(1, 9)), key=lambda item: item[0][0]):
            if group != section:
                section = group
                lines.append(f"[{group}]")
            lines.append(f"{name} = {rng.choice(values)}")
        files.append("\n".join(lines) + "\n")
    env = {}
    if rng.random() < 0.3:
        (group, name), values = rng.choice(list(OPTIONS.items()))
        env[f"OS_{group.upper()}__{name.upper()}"] = rng.choice(values)
    return files, env


def upstream_values(files, env, folder):
    """A process of its own would be cleaner and a hundred times slower: the options are registered anew for each case."""
    from oslo_log import _options
    from oslo_messaging import transport
    from oslo_messaging._drivers import amqp, impl_rabbit
    from trove.common import cfg as trove

    conf = cfg.ConfigOpts()
    conf.register_opts(trove.common_opts)
    conf.register_opts(trove.mysql_opts, "mysql")
    conf.register_opts(trove.mariadb_opts, "mariadb")
    conf.register_opts(transport._transport_opts)
    conf.register_opts(amqp.amqp_opts + impl_rabbit.rabbit_opts, "oslo_messaging_rabbit")
    conf.register_opts(_options.common_cli_opts + _options.logging_cli_opts)
    arguments = []
    for number, text in enumerate(files):
        path = pathlib.Path(folder) / f"{number}.conf"
        path.write_text(text)
        arguments += ["--config-file", str(path)]
    before = dict(os.environ)
    os.environ.update(env)
    values = {}
    try:
        conf(arguments, default_config_files=[], default_config_dirs=[])
        for group, name in OPTIONS:
            try:
                value = conf._get(name) if group == "DEFAULT" else conf._get(name, conf._get_group(group))
                values[f"{group}.{name}"] = {"value": list(value.items()) if isinstance(value, dict) else value}
            # Also what it does not mean to raise, as for a reference to itself.
            except (cfg.Error, ValueError, AttributeError, RecursionError):
                values[f"{group}.{name}"] = {"error": True}
    finally:
        os.environ.clear()
        os.environ.update(before)
    return values


# --- all ----------------------------------------------------------------------------------------------------------------


def cases(seed):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        texts = HAND + [random_text(rng) for _ in range(400)]
        yield "parse.jsonl", [{"text": text, "sections": parse(text, folder)} for text in texts]
        values = [(kind, text) for kind in TYPES for text in ATOMS] + [(rng.choice(list(TYPES)), random_value(rng)) for _ in range(400)]
        yield "types.jsonl", [{"type": kind, "text": text} | typed(kind, text) for kind, text in values]
        # To be short: the defaults once, then what differs from them.
        defaults = upstream_values([], {}, folder)
        found = [{"files": [], "env": {}, "values": defaults}]
        for _ in range(250):
            files, env = random_files(rng)
            values = upstream_values(files, env, folder)
            values = {name: value for name, value in values.items() if value != defaults[name]}
            found.append({"files": files, "env": env, "values": values})
        yield "values.jsonl", found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path, default=GOLDEN)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    stale = []
    args.out.mkdir(parents=True, exist_ok=True)
    for name, lines in cases(args.seed):
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        path = args.out / name
        if args.check and (not path.exists() or path.read_text() != text):
            stale.append(name)
        elif not args.check:
            path.write_text(text)
            print(f"{path}: {len(lines)} cases, {len(text)} bytes")
    if stale:
        sys.exit(f"upstream answers otherwise: {', '.join(stale)}")


main()
