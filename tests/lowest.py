"""Constraints for pip: the lowest versions that kseq requires (`make test-lowest`)."""

import configparser
import re
from pathlib import Path


def lowest(requirements):
    """Return each requirement with a lower bound as `name==bound`."""
    found = re.findall(r"^([\w-]+)>=([\d.]+)", requirements, re.M)
    return [f"{name}=={bound}" for name, bound in found]


if __name__ == "__main__":
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[1] / "setup.cfg")
    print("\n".join(lowest(config["options"]["install_requires"])))
