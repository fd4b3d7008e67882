"""The README as an index of packages shows it; pyproject.toml has all the rest.

An index has no files beside the README, so links to them would be dead. The project has no public
address yet: links keep their text, which names the file. Once `[project.urls]` has a `Source`, they
lead to the files there.
"""

import re
import tomllib
from pathlib import Path

RELATIVE = re.compile(r"\[([^]]*)\]\((?!\w+:|#)([^)\s]+)\)")


def for_index(readme: str, source: str | None) -> str:
    """`readme` with links to files below `source`, or without them where that is not known."""
    return RELATIVE.sub(r"\1" if source is None else rf"[\1]({source}/\2)", readme)


if __name__ == "__main__":
    from setuptools import setup

    here = Path(__file__).parent
    project = tomllib.loads((here / "pyproject.toml").read_text())["project"]
    text = for_index((here / "README.md").read_text(), project.get("urls", {}).get("Source"))
    setup(long_description=text, long_description_content_type="text/markdown")
