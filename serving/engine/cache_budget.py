"""How many tokens of keys and values a machine has room for."""

from __future__ import annotations

from pathlib import Path

import torch

CPU_SHARE = 0.25
"""Of the memory that is free; several replicas and Ray share a machine."""
GPU_SHARE = 0.8
"""Of the memory that is free once the weights are loaded; the rest is for activations."""
_CGROUP = Path("/sys/fs/cgroup")


def token_budget(
    bytes_per_token: int, device: torch.device, *, most: int, gpu_part: float = 1.0
) -> int:
    """Tokens that fit into the free memory's share; at most `most`, at least 1.

    `gpu_part`: of the GPU, what this process may count on; others fill the rest later.
    """
    if device.type == "cuda":
        room = torch.cuda.mem_get_info(device)[0] * GPU_SHARE * gpu_part
    else:
        room = free_memory() * CPU_SHARE
    return max(1, min(most, int(room) // bytes_per_token))


def free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> int:
    """Bytes that this process may still take: the machine's, or its container's if less."""
    available = [
        int(line.split()[1]) * 1024
        for line in meminfo.read_text().splitlines()
        if line.startswith("MemAvailable:")
    ]
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
        available.append(max(0, int(text) - int(used.read_text())))
    return min(available)
