# h5py types every item as a union of group, data set and more, so that no ordinary line passes a type checker.
# Files are checked at run time (errors.FormatError); here h5py counts as untyped.
from typing import Any

def __getattr__(name: str) -> Any: ...
