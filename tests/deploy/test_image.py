"""The image, built where no container engine is: every step of the Dockerfile, and a server in a container of it."""

from __future__ import annotations

import os

import pytest

from tests.conftest import Require
from tests.deploy.tools import DEPLOY, find, run


@pytest.mark.kit
@pytest.mark.timeout(1800)
def test_image_is_built_and_its_server_is_healthy(require: Require) -> None:
    require("root", os.geteuid() == 0)
    for each in ("buildah", "debootstrap"):
        require(each, find(each) is not None)
    told = run("bash", DEPLOY / "docker" / "check.sh")
    for line in ("uid=10001(artcafe)", "writes /data only", "healthy", "ended with 0 after SIGTERM"):
        assert line in told
