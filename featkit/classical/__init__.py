"""A picture to a vector, or many to many, without networks: histograms, colours and learned patches.

`to_sklearn` is offered here, beside what makes the vectors that its pipelines take. It is about models, so its home is
`featkit.learning`, above this room, and it is loaded from there when it is first asked for; nothing here depends on it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name != "to_sklearn":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("featkit.learning.export").to_sklearn
