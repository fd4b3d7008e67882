"""A page on which one draws a digit and a network reads it, and learns signs: its files, and a
server for them."""

from .server import serve
from .site import require_readable, site, write
from .teacher import Teacher, teacher_of

__all__ = ["Teacher", "require_readable", "serve", "site", "teacher_of", "write"]
