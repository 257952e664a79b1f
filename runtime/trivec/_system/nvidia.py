"""What NVIDIA's driver says, without any CUDA library."""

import ctypes
import os


def cuda_count() -> int | None:
    """CUDA devices that the driver shows this process (CUDA_VISIBLE_DEVICES counts); None where it cannot be asked."""
    count = ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return None
    return 0 if failed else count.value


def cuda_name(index: int) -> str | None:
    """What the driver calls a device, such as "NVIDIA H100 80GB HBM3"; None where it cannot be asked."""
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index)
        failed = failed or driver.cuDeviceGetName(name, len(name), device)
    except (OSError, AttributeError):
        return None
    return None if failed else name.value.decode("utf-8", "replace")
