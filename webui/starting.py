"""What keeps the start short: Gradio without the stub files that it writes, and no collecting of garbage meanwhile.

Gradio renders a `.pyi` of each of its classes whenever it is imported, compares it with the one in its own folder and
writes what differs: help for editors, of no use here, 0.9 s of 2.1 s, and two processes that start together write the
same files. Almost nothing that is imported is ever garbage, yet Python looks through all of it again and again (0.2 s).
"""

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

OWNER, WRITER = "gradio.component_meta", "create_or_modify_pyi"
"""The module of Gradio 6 that writes stub files, and its function that does."""


class _WithoutWriter(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        if hasattr(module, WRITER):
            setattr(module, WRITER, lambda *_: None)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != OWNER:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _WithoutWriter(spec.loader.name, spec.loader.path)
        return spec


@contextmanager
def quick_import() -> Iterator[None]:
    """Imports within it are quicker, that of Gradio above all; a Gradio that writes no stubs is imported as it is.

    What exists at the end is left out of all later collections.
    """
    finder, was_enabled = _Finder(), gc.isenabled()
    sys.meta_path.insert(0, finder)
    gc.disable()
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if was_enabled:
            gc.enable()
            gc.freeze()
