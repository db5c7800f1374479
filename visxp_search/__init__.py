"""VisXP search: find similar moments in video archives by picture and by sound.

Importing this package is instant: torch and Qdrant are loaded when an index is opened. The Python API is
`visxp_search.api`: `open_index(path)` gives an `Index` to `add` files to, to `search` and to iterate moments of.
"""

from visxp_search.errors import CheckpointError, CollectionError, DecodeError, ExchangeError, UsageError, VisxpError

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "CollectionError",
    "DecodeError",
    "ExchangeError",
    "UsageError",
    "VisxpError",
    "__version__",
]
