"""What a figure was measured on: this computer and these versions, without naming anybody."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from leuko.support.parallel import worker_count

__all__ = ["machine", "versions"]


def machine() -> dict[str, Any]:
    """Describe this computer without naming it.

    Returns
    -------
    dict
        System, processor, cores and Python.
    """
    processor = platform.processor() or platform.machine()
    with_model = Path("/proc/cpuinfo")
    if with_model.exists():
        for line in with_model.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cores": worker_count(None),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of what a result depends on.

    Returns
    -------
    dict of str to str
        By package name; packages that are not installed are left out.
    """
    names = ("leuko", "keras", "tensorflow", "tensorflow-cpu", "numpy", "onnxruntime",
             "opencv-python-headless", "simplejpeg", "pillow")  # fmt: skip
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
