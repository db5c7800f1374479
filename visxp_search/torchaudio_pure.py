"""torchaudio's pure-torch transforms, also beside a CPU-only torch.

The torchaudio wheel of the package index links CUDA libraries, so importing it fails where torch has none. Its
transforms need no native code: where the native part cannot be loaded, a stub takes the place of
`torchaudio._extension` before the first import. All of this project imports torchaudio from here: `from
visxp_search.torchaudio_pure import torchaudio`.
"""

import importlib
import sys
import types


def _import_torchaudio() -> types.ModuleType:
    try:
        return importlib.import_module("torchaudio")
    except OSError:  # a shared library of CUDA is missing
        # A copy, as other threads (visxp ui) may be importing.
        for name in [name for name in list(sys.modules) if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
    stub = types.ModuleType("torchaudio._extension")
    stub.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        fail_if_no_align=_needs_native_code,
        _check_cuda_version=lambda: None,
    )
    sys.modules["torchaudio._extension"] = stub
    return importlib.import_module("torchaudio")


def _needs_native_code(function: object) -> object:
    """Stand in for torchaudio's decorator of functions that need native code; this project calls none of them."""
    return function


torchaudio = _import_torchaudio()
