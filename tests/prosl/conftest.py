"""Fixtures of the tests that start several processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def run_processes() -> Callable[..., list[subprocess.CompletedProcess[str]]]:
    """Run `python FILE TASK FOLDER` in several processes to their end, in the environment that torchrun makes.

    Unlike torchrun it does not end the others when one fails, which is what the tests are after. A process that hangs
    is a `TimeoutExpired`.
    """

    def run(
        file: str, task: str, folder: Path, world: int, timeout: float = 120, **arguments: object
    ) -> list[subprocess.CompletedProcess[str]]:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(arguments, folder / "arguments.pt")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        shared |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        shared |= {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
        command = [sys.executable, file, task, str(folder)]
        processes = []
        for number in range(world):
            own = shared | {"RANK": str(number), "LOCAL_RANK": str(number)}
            pipe = subprocess.PIPE
            processes.append(subprocess.Popen(command, env=own, stdout=pipe, stderr=subprocess.STDOUT, text=True))
        try:
            outputs = [process.communicate(timeout=timeout)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        return [
            subprocess.CompletedProcess(command, process.returncode, output)
            for process, output in zip(processes, outputs, strict=True)
        ]

    return run
