"""What the binary is made of and what its build needs: bytes per crate, crates in the tree, a cold build."""

import collections
import os
import re
import resource
import shutil
import subprocess
import tempfile
import time

from peer.process import TOP

# First part of a demangled path, behind references, pointers and the like.
PATH = re.compile(r"(?:[&*<(\[ ]|mut |const |dyn |for<'a> |impl )*([A-Za-z_][A-Za-z0-9_]*)::")
# Symbols without a path belong to the one large C library, or to C's run-time and the compiler.
AWS = re.compile(r"aws_lc|_?(?:p256|p384|p521|curve25519|ml_kem|mlkem|mldsa|fiat|ecp_nistz|OPENSSL|CRYPTO|EVP|EC_|BN_|bn_|gcm|aes|sha\d|rsaz|vpaes|ChaCha|x25519|bignum|RSA|ASN1|CBS|CBB|ERR_|kPrime)")
INSIDE = {"core", "alloc", "std", "hashbrown", "gimli", "addr2line", "rustc_demangle", "object", "miniz_oxide", "compiler_builtins"}


def account(unstripped, top=15):
    """(size of the stripped file, [(crate, bytes)] of the largest, bytes that belong to no symbol)."""
    with tempfile.NamedTemporaryFile() as stripped:
        subprocess.run(["strip", "-o", stripped.name, unstripped], check=True)
        total = os.path.getsize(stripped.name)
    listing = subprocess.run(
        ["nm", "--print-size", "--size-sort", "--demangle", unstripped], check=True, capture_output=True, text=True, errors="replace"
    ).stdout
    crates, seen = collections.Counter(), set()
    for line in listing.splitlines():
        address, size, kind, name = line.split(" ", 3)
        if kind in "bB" or address in seen:
            continue  # takes no room in the file; another name of the same bytes
        seen.add(address)
        found = PATH.match(name)
        if found:
            owner = owner_of(name, found[1])
        else:
            owner = "aws-lc (C)" if AWS.match(name) else "C run-time, tables, literals"
        crates[owner] += int(size, 16)
    return total, crates.most_common(top), total - sum(crates.values())


def owner_of(name, first):
    """Generic code of the standard library belongs to the first crate it was made for."""
    if first not in INSIDE:
        return first
    for other in re.findall(r"([A-Za-z_][A-Za-z0-9_]*)::", name):
        if other not in INSIDE and other.islower() and other in ROOTS:
            return other
    return "std"


def roots():
    """Names of all crates in the tree, as code spells them."""
    return {line.split()[0].replace("-", "_") for line in tree("systemd")}


def tree(features=""):
    """The crates that the agent is built from, each once."""
    words = ["cargo", "tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--package", "trove-guestagent"]
    out = subprocess.run([*words, "--features", features], cwd=TOP, check=True, capture_output=True, text=True).stdout
    return {" ".join(line.split()[:2]) for line in out.splitlines() if line.strip()}


ROOTS = roots()


def cold_build():
    """(seconds, CPU seconds) of what the quickstart builds, from nothing."""
    folder = tempfile.mkdtemp(prefix="cold-", dir=os.environ.get("CARGO_TARGET_DIR", TOP / "target"))
    try:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(
            ["cargo", "build", "--locked", "--quiet", "--profile", "quick", "--bin", "trove-guestagent"],
            cwd=TOP, check=True, env=dict(os.environ, CARGO_TARGET_DIR=folder, CARGO_INCREMENTAL="0"), stdin=subprocess.DEVNULL,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.monotonic() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    finally:
        shutil.rmtree(folder, ignore_errors=True)
