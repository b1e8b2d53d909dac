"""Wheel and sdist build and hold the package; its types are right."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def test_wheel_and_sdist(tmp_path):
    for target in ("sdist", "wheel"):
        subprocess.run(
            [sys.executable, "-c", "import sys; from hatchling.build import *; import os; os.chdir(sys.argv[1]);"
             f" build_{target}(sys.argv[2])", PACKAGE, tmp_path], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("state_cache-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("state_cache/__init__.py", "state_cache/py.typed", "state_cache/langgraph/aio.py"):
        assert name in names
    (sdist,) = tmp_path.glob("state_cache-*.tar.gz")
    assert any(name.endswith("/pyproject.toml") for name in tarfile.open(sdist).getnames())


def test_types(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path], cwd=PACKAGE, capture_output=True,
        text=True)
    assert done.returncode == 0, done.stdout + done.stderr
