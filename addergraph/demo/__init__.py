"""A page on which one draws a digit and a network reads it: its files, and a server for them."""

from .server import serve
from .site import require_readable, site, write

__all__ = ["require_readable", "serve", "site", "write"]
