"""Methods of both clients, whose signatures and words are those of the calls that they make."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

M = TypeVar("M", bound=Callable[..., Any])


def named(method: M, call: Callable[..., Any]) -> M:
    """`method` as `help` and editors are to show it: as `call`, which has no client and answers a `Call`."""
    own = inspect.signature(call)
    client = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    (answer,) = own.return_annotation.__args__
    shown = own.replace(parameters=[client, *own.parameters.values()], return_annotation=answer)
    method.__name__ = call.__name__
    method.__doc__ = call.__doc__
    setattr(method, "__signature__", shown)
    return method
