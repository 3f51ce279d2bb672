# pandas types most results as a union of table, column and number, so that ordinary lines do not pass a type checker.
# Tables are checked at run time; here pandas counts as untyped.
from typing import Any

def __getattr__(name: str) -> Any: ...
