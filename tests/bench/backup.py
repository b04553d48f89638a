"""The figures of backups; see backup.sh and README.md. Progress goes to standard error, the table to standard output."""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

FULL = sys.argv[1:] == ["full"]
PIPE = os.environ["TROVE_BENCH_PIPE"]
DATA_MB, ROUNDS, LONG_GB = (2000, 5, 50) if FULL else (300, 5, 5)
WORK_SECONDS = 30 if FULL else 12
# Bytes a second the backup is held to beside the workload.
RATE = 24 << 20
TABLE, RAW = [], {}
# What upstream's runner does with the stream (trove-contract 9.3): read in 64 KiB, MD5, a temporary file per segment.
SEGMENTS = """
import hashlib, sys
digest, out, taken, number = hashlib.md5(), None, 0, 0
while chunk := sys.stdin.buffer.read(65536):
    if out is None or taken + len(chunk) > 2147483648:
        out, taken, number = open(f"{sys.argv[1]}_{number:08d}", "wb"), 0, number + 1
    digest.update(chunk)
    out.write(chunk)
    taken += len(chunk)
out.close()
"""


def say(text):
    print(text, file=sys.stderr, flush=True)


def row(name, here, target="", beside="", good=None):
    TABLE.append((name, here, target, beside, {None: "", True: "yes", False: "NO"}[good]))
    say(f"   {name}: {here}   {beside}")


def spread(values, digits=0):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


class Server:
    """A MariaDB of its own: no network, the caller is its root."""

    def __init__(self, folder, data):
        self.folder, self.data = folder, data
        self.socket = folder / f"{data.name}.sock"
        self.child = None

    def options(self):
        return [
            "--no-defaults", f"--datadir={self.data}", f"--socket={self.socket}", "--skip-networking", "--user=root",
            f"--pid-file={self.folder}/{self.data.name}.pid", "--innodb-buffer-pool-size=256M", "--innodb-log-file-size=256M",
            "--innodb-flush-log-at-trx-commit=2",
        ]

    def start(self):
        with open(self.folder / f"{self.data.name}.log", "ab") as log:
            self.child = subprocess.Popen(["mariadbd", *self.options()], stdout=log, stderr=log)
        until = time.monotonic() + 120
        while self.ask("SELECT 1", check=False) != "1":
            if self.child.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the server does not answer, see {self.folder}")
            time.sleep(0.05)
        return self

    def ask(self, text, check=True, database=""):
        words = ["mariadb", "--no-defaults", f"--socket={self.socket}", "-N", "-B", "-e", text] + ([database] if database else [])
        done = subprocess.run(words, capture_output=True, text=True, check=check, timeout=1800)
        return done.stdout.strip()

    def stop(self):
        if self.child and self.child.poll() is None:
            self.child.terminate()
            self.child.wait(120)

    def backup(self):
        return ["mariadb-backup", "--no-defaults", "--backup", "--stream=xbstream", f"--datadir={self.data}", f"--socket={self.socket}", "--user=root", f"--target-dir={self.folder}/tmp"]


def load(server):
    """Tables as sysbench makes them: digits in groups, about 250 bytes a row."""
    groups = lambda n: "CONCAT_WS('-'," + ",".join(["LPAD(FLOOR(RAND()*1e11),11,'0')"] * n) + ")"
    rows, tables = DATA_MB * 1_000_000 // 250, 4
    for table in range(1, tables + 1):
        server.ask(
            f"CREATE TABLE sbtest{table} (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL DEFAULT 0, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY (k));"
            f"INSERT INTO sbtest{table} (k, c, pad) SELECT FLOOR(RAND()*{rows}), {groups(10)}, {groups(5)} FROM seq_1_to_{rows // tables}",
            database="bench",
        )
    server.ask(
        "DELIMITER //\nCREATE PROCEDURE work(IN seconds INT) BEGIN DECLARE n, i INT DEFAULT 0; DECLARE t CHAR(120); DECLARE stop DATETIME(6) DEFAULT NOW(6) + INTERVAL seconds SECOND; "
        f"WHILE SYSDATE(6) < stop DO SET i = FLOOR(RAND()*{rows // tables}) + 1; SELECT c INTO t FROM sbtest1 WHERE id = i; "
        "UPDATE sbtest1 SET k = k + 1 WHERE id = i; SELECT COUNT(*) INTO @x FROM sbtest2 WHERE id BETWEEN i AND i + 20; SET n = n + 1; END WHILE; SELECT n; END//\n",
        database="bench",
    )
    say(f"   {sum(f.stat().st_size for f in server.data.rglob('*') if f.is_file()) / 1e6:.0f} MB in the data directory")


def piped(first, *rest, out=None, env=None):
    """Runs the stages as a pipe; the answer is the seconds and the last one's output. Each stage must succeed."""
    began = time.monotonic()
    stages = [subprocess.Popen(first, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)] if first else []
    for number, words in enumerate(rest):
        last = number == len(rest) - 1
        stages.append(
            subprocess.Popen(
                words, stdin=stages[-1].stdout if stages else None, stdout=(out or subprocess.PIPE) if last else subprocess.PIPE,
                stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})},
            )
        )
        if len(stages) > 1:
            stages[-2].stdout.close()
    said = stages[-1].stdout.read().decode() if stages[-1].stdout else ""
    codes = [stage.wait() for stage in stages]
    if any(codes):
        raise RuntimeError(f"{[s.args[0] for s in stages]}: exit codes {codes}")
    return time.monotonic() - began, said


def by_shell(server, folder):
    with open(folder / "shell.zst", "wb") as out:
        return piped(server.backup(), ["zstd", "-q", "-T2"], out=out)[0]


def by_upstream(server, folder):
    return piped(server.backup(), ["gzip"], [sys.executable, "-c", SEGMENTS, str(folder / "upstream")])[0]


def by_us(server, folder, sealed, env=None):
    seconds, said = piped(server.backup(), [PIPE, "send", "-", str(folder)] + (["sealed"] if sealed else []), env=env)
    facts = json.loads(said)
    RAW.setdefault("ours", []).append(facts)
    return seconds, facts


def throughput(server, folder):
    seconds = {"shell": [], "ours": [], "sealed": [], "upstream": []}
    memory, stored = [], {}
    for number in range(ROUNDS + 1):
        taken = {"shell": by_shell(server, folder)}
        stored["shell"] = (folder / "shell.zst").stat().st_size
        for name, sealed in (("ours", False), ("sealed", True)):
            taken[name], facts = by_us(server, folder, sealed)
            memory.append(facts["over_idle_mib"])
            stored[name] = facts["stored"]
            plain = facts["plain"]
            keep = number == ROUNDS and not sealed
            if keep:
                RAW["kept"] = facts["id"]
            else:
                for path in folder.glob(f"{facts['id']}.*"):
                    path.unlink()
        if number < 3:
            taken["upstream"] = by_upstream(server, folder)
            for path in folder.glob("upstream_*"):
                path.unlink()
        say(f"   round {number}: " + ", ".join(f"{name} {value:.2f} s" for name, value in taken.items()))
        # The first one warms the caches.
        for name, value in taken.items() if number else ():
            seconds[name].append(value)
    RAW["seconds"] = seconds
    rate = {name: [plain / value / 1e6 for value in values] for name, values in seconds.items()}
    mid = {name: statistics.median(values) for name, values in rate.items()}
    sizes = ", ".join(f"{name} {size / plain:.3f}" for name, size in stored.items())
    row("bare shell pipe, mariadb-backup | zstd -T2, MB/s", spread(rate["shell"]), "", f"stored / plain: {sizes}")
    for name, words, least in (("ours", "full backup, MB/s", 0.9), ("sealed", "full backup, encrypted, MB/s", 0.8)):
        ratio = mid[name] / mid["shell"]
        row(words, spread(rate[name]), f">= {least}x the shell pipe", f"{ratio:.2f}x", ratio >= least)
    ratio = mid["ours"] / mid["upstream"]
    row("upstream's pipe, gzip and MD5 and segments, MB/s", spread(rate["upstream"], 1), "ours >= 8x", f"ours is {ratio:.1f}x", ratio >= 8)
    row("memory over idle while backing up, MiB", spread(memory, 1), "<= 32", "", max(memory) <= 32)


def restored(folder, name, unpack):
    """Seconds until a server on the restored data answers."""
    data = folder / name
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    began = time.monotonic()
    unpack(data)
    subprocess.run(["mariadb-backup", "--no-defaults", "--prepare", f"--target-dir={data}", "--use-memory=256M"], check=True, stderr=subprocess.DEVNULL)
    server = Server(folder, data)
    try:
        server.start()
        count = server.ask("SELECT COUNT(*) FROM sbtest3", database="bench")
        return time.monotonic() - began, count
    finally:
        server.stop()
        shutil.rmtree(data, ignore_errors=True)


def restores(server, folder):
    unpack = lambda data: ["mbstream", "-x", "-C", str(data)]
    ways = {
        "shell": lambda data: piped(["zstd", "-dqc", str(folder / "shell.zst")], unpack(data)),
        "ours": lambda data: piped([PIPE, "open", str(folder), RAW["kept"]], unpack(data)),
    }
    seconds = {name: [] for name in ways}
    wanted = server.ask("SELECT COUNT(*) FROM sbtest3", database="bench")
    for number in range(4):
        for name, way in ways.items():
            took, count = restored(folder, f"restored-{name}", way)
            if count != wanted:
                raise RuntimeError(f"{count} rows instead of {wanted}")
            seconds[name].extend([took] if number else [])
    RAW["restore"] = seconds
    ratio = statistics.median(seconds["shell"]) / statistics.median(seconds["ours"])
    row("restore to \"answers queries\", s", spread(seconds["ours"], 2), ">= 0.9x the shell pipe", f"shell {spread(seconds['shell'], 2)}, {ratio:.2f}x", ratio >= 0.9)


def constant(folder):
    """The same memory for 100 MB and for a stream of any length."""
    for words, length in (("100 MB", 100_000_000), (f"{LONG_GB} GB", LONG_GB * 1_000_000_000)):
        space = shutil.disk_usage(folder).free
        if length * 2 // 3 > space - (4 << 30):
            row(f"memory over idle, synthetic {words}, MiB", "not measured", "<= 32", f"needs more than the {space >> 30} GiB that are free", False)
            continue
        _, said = piped(None, [PIPE, "send", f"synthetic:{length}", str(folder), "sealed"])
        facts = json.loads(said)
        for path in folder.glob(f"{facts['id']}.*"):
            path.unlink()
        over = facts["over_idle_mib"]
        row(f"memory over idle, synthetic {words}, MiB", f"{over:.1f}", "<= 32", f"{facts['mb_s']:.0f} MB/s, encrypted", over <= 32)


def work(server, beside=None):
    """Turns of the workload per second by two connections, while something else runs or not."""
    words = ["mariadb", "--no-defaults", f"--socket={server.socket}", "-N", "-B", "-e", f"CALL work({WORK_SECONDS})", "bench"]
    workers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    if beside:
        beside()
    return sum(int(worker.communicate()[0]) for worker in workers) / WORK_SECONDS


def cost(server, folder):
    alone, throttled, free = [], [], []

    def backup(env):
        # As long as the workload lasts, and no longer.
        def run():
            tool = subprocess.Popen(["nice", "-n", "10", *server.backup()], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            pipe = subprocess.Popen([PIPE, "send", "-", str(folder)], stdin=tool.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **env})
            tool.stdout.close()
            try:
                pipe.wait(WORK_SECONDS)
            except subprocess.TimeoutExpired:
                pipe.terminate()
                tool.terminate()
            pipe.wait()
            tool.wait()
        return run

    for _ in range(3):
        alone.append(work(server))
        throttled.append(work(server, backup({"RATE": str(RATE)})))
        free.append(work(server, backup({})))
    RAW["cost"] = {"alone": alone, "throttled": throttled, "free": free}
    lost = 100 * (1 - statistics.median(throttled) / statistics.median(alone))
    unheld = 100 * (1 - statistics.median(free) / statistics.median(alone))
    row(f"cost to the workload, held to {RATE >> 20} MiB/s, %", f"{lost:.1f}", "<= 15", f"not held: {unheld:.1f} %; alone {spread(alone)} turns/s", lost <= 15)


def stage(name, act, *args):
    say(f"== {name} ({time.strftime('%H:%M:%S')})")
    try:
        act(*args)
    except Exception as error:
        traceback.print_exc()
        TABLE.append((name, f"BROKEN: {str(error).splitlines()[0][:200]}", "", "", "NO"))


def main():
    began, load_then = time.monotonic(), os.getloadavg()[1]
    # Not /tmp, which may be memory.
    top = pathlib.Path(os.environ.get("TROVE_BENCH_FOLDER", os.environ.get("CARGO_TARGET_DIR", ".")))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-backup-", dir=top))
    server = Server(folder, folder / "data")
    try:
        subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={server.data}", "--user=root", "--skip-test-db"], check=True, stdout=subprocess.DEVNULL)
        server.start().ask("CREATE DATABASE bench")
        stage("data", load, server)
        stage("throughput", throughput, server, folder)
        stage("restore", restores, server, folder)
        stage("cost to the workload", cost, server, folder)
        server.stop()
        stage("memory", constant, folder)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"\n{'full' if FULL else 'quick'} run of {time.strftime('%Y-%m-%d %H:%M')}, {(time.monotonic() - began) / 60:.0f} min, {os.cpu_count()} cores, "
        f"load average {load_then:.1f} at the beginning and {os.getloadavg()[1]:.1f} at the end\n"
    )
    print("| figure | here | target | beside it | met |\n|---|---|---|---|---|")
    for line in TABLE:
        print("| " + " | ".join(line) + " |")
    (top / "bench-backup.json").write_text(json.dumps({"table": TABLE, "raw": RAW}, indent=1), encoding="utf-8")
    return 1 if any(line[4] == "NO" for line in TABLE) else 0


if __name__ == "__main__":
    sys.exit(main())
