"""The version of a release, and the lowest versions of its requirements."""

import configparser
import re
from pathlib import Path

from tests.lowest import lowest

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    version = config["metadata"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$"
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(heading, changes, re.M), "the CHANGELOG dates this version"


def test_the_lowest_version_of_a_requirement_is_its_lower_bound():
    assert lowest("keras>=3.15,<4\nnumpy\nx>=2.1; sys_platform != 'win32'\n") == [
        "keras==3.15",
        "x==2.1",
    ]
