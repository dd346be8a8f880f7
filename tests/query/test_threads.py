"""At stake: CPU. With BLAS threads inside our scanning threads a query costs ten times as much."""

import subprocess
import sys

ASK = """
import cli.main, cli.runtime.embedded  # as a server starts
import ctypes, glob, os, numpy
found = glob.glob(os.path.join(os.path.dirname(numpy.__file__), "..", "numpy.libs", "*openblas*"))
assert found, "numpy has no OpenBLAS of its own here"
library = ctypes.CDLL(found[0])
names = ("scipy_openblas_get_num_threads64_", "openblas_get_num_threads")
print(next(getattr(library, name)() for name in names if hasattr(library, name)))
"""


def test_a_server_runs_blas_in_one_thread() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, check=False, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "1"
