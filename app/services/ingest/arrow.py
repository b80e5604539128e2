"""pyarrow ships no types: its modules enter here, once, as `Any`, so that the strict checker can read the rest. They
are loaded when something in them is first asked for: together they take 40 MB and a tenth of a second, and who answers
in JSON alone has no use for them.

pyarrow also imports pandas (a third of a second, 60 MB) with the first array it builds, if pandas is there. It asks but
once: here, while the import is barred. `to_pandas` asks again and still works.
"""

import sys
import threading
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any


class _Bar(MetaPathFinder):
    """Says that there is no pandas."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)
        return None


_loading = threading.Lock()


class _Later:
    """A module that is not loaded yet. What was asked for once is found without coming here again."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        with _loading:
            if "pyarrow" not in sys.modules:
                bar = _Bar()
                sys.meta_path.insert(0, bar)
                try:
                    import_module("pyarrow").array([0])
                finally:
                    sys.meta_path.remove(bar)
            found = getattr(import_module(self._name), attribute)
        setattr(self, attribute, found)
        return found


pa: Any = _Later("pyarrow")
pc: Any = _Later("pyarrow.compute")
csv: Any = _Later("pyarrow.csv")
json: Any = _Later("pyarrow.json")
parquet: Any = _Later("pyarrow.parquet")
types: Any = _Later("pyarrow.types")


def load() -> None:
    """Load all that a reader of tables takes, where there is time for it."""
    for module, name in ((csv, "open_csv"), (parquet, "ParquetFile"), (pc, "cast"), (types, "is_text")):
        getattr(module, name, None)


Column = Any  # a pyarrow.ChunkedArray


def is_text(kind: Any) -> bool:
    """Whether an Arrow type holds text, dictionaries of text included."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def is_number(kind: Any) -> bool:
    """Whether an Arrow type holds numbers; booleans do not count."""
    return types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)


def plain(column: Column) -> Column:
    """The column without dictionary encoding; text as one type, 64-bit offsets, so that nothing overflows at 2 GB."""
    kind = column.type
    if types.is_dictionary(kind):
        column = column.cast(pa.large_string() if is_text(kind) else kind.value_type)
    elif types.is_string_view(kind):
        column = column.cast(pa.large_string())
    return column
