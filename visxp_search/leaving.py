"""How the program `visxp` ends: as it stands, without taking apart what it has loaded.

Python would look through the million objects of torch once more, and the engine of an embedded index has the system
forget the files that it closes, which the next search would read from the disk again. Processes that live on, such as
the page or whoever uses `visxp_search.api`, close what they open.
"""

import atexit
import os
import sys
import threading
from typing import NoReturn

_is_program = False
_only_reads = False


def expect_to_leave() -> None:
    """Say that this process is the program `visxp`, which ends with `leave` as soon as its command is done."""
    global _is_program
    _is_program = True


def expect_to_read_once() -> None:
    """Say that the command opens an index once, to read it, and is then done: no watching, no moving of files."""
    global _only_reads
    _only_reads = True


def is_about_to_leave() -> bool:
    """Whether what was only read need not be closed."""
    return _is_program and _only_reads


def leave(code: int) -> NoReturn:
    """End the process at once; what is registered for its end is done, and threads that go on are waited for."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
