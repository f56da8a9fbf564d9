"""Where a model runs: a torch device by name, and its CPU threads."""

from typing import Final

import torch

from mitoray.errors import BadOption

KEEP_MEMORY: Final = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
}
"""A network's activations are some hundred MB. By default malloc gives them back after each layer, and the kernel
clears every page again for the next: kept, the shipped detector runs a third faster on a CPU. One arena, because in all
but the first malloc keeps no block beyond 64 MB, and Ray calls actors in a thread of its own."""


def placed(device: str, threads: int | None = None) -> torch.device:
    """The torch device "cpu", "cuda" or "cuda:1", after it was seen to be there.

    threads: CPU threads, for the whole process (torch has one setting); None leaves it.
    Raises BadOption for a device that is not there.
    """
    place = _device(device)
    if threads is not None:
        if threads < 1:
            raise BadOption(f"threads {threads} is below 1")
        torch.set_num_threads(threads)
    return place


def inference_dtype(device: torch.device) -> torch.dtype:
    """The type in which convolutions are fastest there at no loss: bfloat16 where the CPU multiplies it, else float32.

    Without the instructions (AVX512-BF16, AMX) bfloat16 would be slower. On a GPU float16, finer than bfloat16.
    """
    if device.type != "cpu":
        return torch.float16
    # Not public, and not there in every build.
    checks = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    return torch.bfloat16 if any(check is not None and check() for check in checks) else torch.float32


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadOption(f'device {name!r} is unknown; use "cpu", "cuda" or "cuda:0"') from error
    if device.type not in ("cpu", "cuda"):
        raise BadOption(f'device {name!r} is not supported; use "cpu" or "cuda"')
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadOption(f'device {name!r}: this machine has {torch.cuda.device_count()} GPUs; use "cpu" or fewer')
    return device
