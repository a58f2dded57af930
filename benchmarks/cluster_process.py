"""Workers that train a few steps in a network of their own, where the bytes that they send can be counted.

``python -m benchmarks.cluster_process WORKERS STEPS FOLDER`` leaves the host's network, starts this file under msrun,
and leaves ``counted.json`` in the folder.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000  # clone(2)
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # netdevice(7)
_MODEL, _SIDE, _BATCH, _CLASSES = "xcit_nano_12_p16_224", 32, 2, 10
_QUIET_SECONDS = 0.5  # after a barrier, until nobody sends


def leave_the_network() -> bool:
    """Move this process and its children into a network with nothing but a loopback device; False where it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK) and libc.unshare(_NEW_NETWORK | _NEW_USER):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(asking, _GET_FLAGS, request))[1]
        fcntl.ioctl(asking, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | _UP))
    return True


def sent() -> int:
    """Return the bytes that went over the loopback device of this process's network."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == "lo":
            return int(figures.split()[8])
    raise RuntimeError("there is no loopback device")


def launch(workers: int, steps: int, folder: str) -> int:
    """Start the workers, and return msrun's exit code."""
    alone = leave_the_network()
    together = ["--worker_num", str(workers), "--local_worker_num", str(workers), "--join", "True"]
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": places, "GLOG_v": "3", "XCIT_HUB_ALONE": str(int(alone))}
    port = str(8118 if alone else 10_000 + os.getpid() % 20_000)
    command = [sys.executable, "-m", "mindspore.parallel.cluster.run", *together, "--master_port", port]
    command += ["--log_dir", str(Path(folder) / "logs"), __file__, "worker", str(steps), folder]
    return subprocess.run(command, check=False, env=environment).returncode


def work(steps: int, folder: str) -> None:
    """Train ``steps`` steps with the other workers; the first one counts what all of them send meanwhile."""
    import mindspore
    import numpy as np
    from mindspore import Tensor, ops

    from xcit_hub.models import create_model
    from xcit_hub.training import device
    from xcit_hub.training.recipe import Recipe
    from xcit_hub.training.step import TrainStep

    recipe = Recipe.model_validate(
        {"model": _MODEL, "dialect": "paper", "mode": 1, "num_classes": _CLASSES, "distribute": True}
    )
    worker = device.prepare(recipe, distribute=True)
    step = TrainStep(create_model(_MODEL, num_classes=_CLASSES), recipe, worker=worker)
    rng = np.random.default_rng(worker.rank)
    images = Tensor(rng.standard_normal((_BATCH, 3, _SIDE, _SIDE), np.float32))
    targets = Tensor(np.eye(_CLASSES, dtype=np.float32)[:_BATCH])
    reduce = ops.AllReduce()

    def together() -> None:
        """Wait for the others, and until what they sent has come."""
        reduce(Tensor(np.ones(1, np.float32))).asnumpy()
        time.sleep(_QUIET_SECONDS)

    float(step(images, targets, 1e-4).loss)
    together()
    before, began = sent(), time.monotonic()
    together()
    idle = (sent() - before) / (time.monotonic() - began)  # the token of the barrier, and the scheduler's signs of life
    before, began = sent(), time.monotonic()
    for _ in range(steps):
        float(step(images, targets, 1e-4).loss)
    together()
    bytes_sent = sent() - before - idle * (time.monotonic() - began)
    if worker.rank == 0:
        counted = {
            "workers": worker.count,
            "steps": steps,
            "gradient_bytes": 4 * sum(entry.size for entry in step.optimizer.weights),
            "sent_a_step": bytes_sent / steps,
            "alone": os.environ.get("XCIT_HUB_ALONE") == "1",
            "mindspore": mindspore.__version__,
        }
        (Path(folder) / "counted.json").write_text(json.dumps(counted))
    together()
    device.leave()
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work(int(sys.argv[2]), sys.argv[3])
    sys.exit(launch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
