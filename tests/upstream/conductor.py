"""Upstream's conductor, unmodified, and what it wrote.

    python conductor.py run --config-file trove.conf     the service itself (what `trove-conductor` runs)
    python conductor.py tables FOLDER [GUEST]            its database and its notifications, as JSON, for a person
"""

import datetime
import json
import pathlib
import re
import sqlite3
import sys


def rows(database, sql, *values):
    """Rows as dictionaries, read while the conductor writes."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
    try:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql, values)]
    finally:
        connection.close()


def tables(database, guest="%"):
    """What the conductor knows about a guest (a LIKE pattern)."""
    return {
        "status": rows(database, "SELECT * FROM service_statuses WHERE instance_id LIKE ?", guest),
        "faults": rows(database, "SELECT * FROM instance_faults WHERE instance_id LIKE ? ORDER BY created", guest),
        "root": rows(database, "SELECT * FROM root_enabled_history WHERE id LIKE ?", guest),
        "last_seen": rows(database, "SELECT * FROM conductor_lastseen WHERE instance_id LIKE ?", guest),
        "backups": rows(database, "SELECT * FROM backups WHERE instance_id LIKE ?", guest),
    }


NOTIFICATION = re.compile(r"oslo\.messaging\.notification\.(\S+) .*?(\{.*\})\s*$")


def notifications(log):
    """Every notification that the conductor emitted: its log driver writes each as one line of JSON."""
    found = []
    try:
        text = pathlib.Path(log).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return found
    for line in text.splitlines():
        match = NOTIFICATION.search(line)
        if match:
            found.append(json.loads(match.group(2)))
    return found


def main():
    if sys.argv[1:2] == ["run"]:
        del sys.argv[1]
        sys.argv[0] = "trove-conductor"
        from patience import patient
        from trove.cmd.conductor import main as conductor
        from trove.db.sqlalchemy import api

        patient(api)
        sys.exit(conductor())
    if sys.argv[1:2] == ["tables"] and len(sys.argv) in (3, 4):
        folder = pathlib.Path(sys.argv[2])
        shown = tables(folder / "trove.db", *sys.argv[3:])
        shown["notifications"] = notifications(folder / "conductor.log")
        shown["now"] = datetime.datetime.now(datetime.timezone.utc).isoformat()
        print(json.dumps(shown, indent=2, default=str))
        return
    sys.exit(__doc__)


if __name__ == "__main__":
    main()
