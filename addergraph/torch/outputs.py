"""What a module calls its outputs: the keys of the dict, or the fields of the tuple, it returns."""

from __future__ import annotations

from typing import Any

from torch.utils import _pytree as pytree

from .site import word


def output_names(program: Any) -> list[str]:
    """A name for each output of an exported program, in order; none where a tensor, or a tuple or
    list without names, holds them. Parts of a path have a dot between them."""
    spec = program.call_spec.out_spec
    try:
        paths, _ = pytree.tree_flatten_with_path(
            pytree.tree_unflatten([*range(spec.num_leaves)], spec)
        )
    except ValueError:  # a class that was registered without saying what its parts are called
        return []
    if not all(path and isinstance(path[0], _NAMED) for path, _ in paths):
        return []
    return [word(".".join(map(_part, path))) for path, _ in paths]


_NAMED = (pytree.MappingKey, pytree.GetAttrKey)


def _part(key: Any) -> str:
    for name in ("key", "name", "idx"):
        if hasattr(key, name):
            return str(getattr(key, name))
    return str(key)
