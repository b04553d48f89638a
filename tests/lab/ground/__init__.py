"""The proving ground: hosts in network namespaces, a recording client, faults and a checker. Standard library only."""

import pathlib
import sys

TOP = pathlib.Path(__file__).resolve().parents[3]
# The processes, the waiting and the broker are those of the tests against upstream.
sys.path.insert(0, str(TOP / "tests" / "upstream"))
