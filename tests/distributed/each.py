"""Run by both ranks: several workers one after another, in one process group and with one import of everything.

    each.py WORKER ARGUMENT … -- WORKER ARGUMENT …

The first that fails ends the process, and its launcher the other rank's.
"""

import runpy
import sys
from itertools import groupby


workers = [list(group) for is_end, group in groupby(sys.argv[1:], key="--".__eq__) if not is_end]
for worker in workers:
    sys.argv = worker
    runpy.run_path(worker[0], run_name="__main__")
