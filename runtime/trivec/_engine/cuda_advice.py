"""Why CUDA does not start: what onnxruntime, the loader and the driver say, and what to type."""

import re
from collections.abc import Callable

INSTALL_GPU = 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "trivec[gpu]"'
_CUDNN = 'pip install "onnxruntime-gpu[cudnn]"'
_CUDA = 'pip install "onnxruntime-gpu[cuda,cudnn]"'
_DRIVERS = "CUDA 12 needs an NVIDIA driver from 525 on, CUDA 13 one from 580 on"
# What a shared library's name starts with (lib and .so.12 on Linux, 64_12.dll on Windows), and what it is a part of.
_LIBRARIES = {
    "cublas": "cuBLAS",
    "cudnn": "cuDNN",
    "cudart": "the CUDA runtime",
    "cufft": "cuFFT",
    "curand": "cuRAND",
    "nvrtc": "NVRTC",
    "nvjitlink": "nvJitLink",
    "nvinfer": "TensorRT",
    "nvonnxparser": "TensorRT",
}
_LINUX = re.compile(r"(lib(\w+)\.so(?:\.(\d+))?[\d.]*): cannot open shared object file")
_WINDOWS = re.compile(r'"((\w+?)(?:64)?_(\d+)\.dll)" which is missing', re.IGNORECASE)
_LOADED = re.compile(r"Failed to load ((?:lib)?(\w+?)(?:64)?(?:\.so\.|_)(\d+)\S*?):")  # preload_dlls of onnxruntime


def explain(messages: str, *, engine_cuda: str = "") -> str:
    """What is missing and what to type, by the messages of onnxruntime or the loader; "" where it is nothing known.

    Args:
        messages: one or several messages.
        engine_cuda: the CUDA version that onnxruntime was built with, where it tells ("12.8").
    """
    for pattern, advice in _ADVICE:
        if match := re.search(pattern, messages, re.IGNORECASE):
            return advice(match)
    for library in (_LINUX, _WINDOWS, _LOADED):
        if match := library.search(messages):
            return _missing(match, engine_cuda)
    return ""


def _missing(match: re.Match[str], engine_cuda: str) -> str:
    """What to say of a library that is not found."""
    file, stem, version = match[1], match[2].lower(), match[3]
    if stem == "cuda" or stem == "nvcuda":
        return f"{file} comes with the NVIDIA driver, which is not installed here or hidden from this container. {_SMI}"
    name = next((name for start, name in _LIBRARIES.items() if stem.startswith(start)), "a library")
    built = f" (it was built with CUDA {engine_cuda})" if engine_cuda else ""
    if name == "TensorRT":
        return (
            f"{file} of TensorRT is missing. Type: pip install tensorrt-cu12 (of the major version in that name), or "
            "leave TensorrtExecutionProvider out."
        )
    if name == "cuDNN":
        return f"{file} is missing: this onnxruntime needs cuDNN {version or 9}{built}. Type: {_CUDNN}"
    needs = f"{name} {version}" if version else name
    return (
        f"{file} is missing: this onnxruntime needs {needs}{built}, and another major version of CUDA does not do. "
        f"Type: {_CUDA}"
    )


_SMI = "See whether nvidia-smi lists it; in a container, start that with --gpus all."
NO_GPU = f"The NVIDIA driver shows this process no GPU. {_SMI} CUDA_VISIBLE_DEVICES may hide it."


def _ordinal(match: re.Match[str]) -> str:
    count = match.groupdict().get("count")
    there = f"There are {count} (cuda:0 to cuda:{int(count) - 1}). " if count and int(count) else ""
    return f"There is no such CUDA device. {there}nvidia-smi -L lists them, CUDA_VISIBLE_DEVICES hides and renumbers."


def _always(advice: str) -> Callable[[re.Match[str]], str]:
    return lambda _: advice


_ADVICE: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"Invalid device ID: \d+, must be between 0 \(inclusive\) and (?P<count>\d+)", _ordinal),
    (r"invalid device ordinal|CUDA failure 101\b", _ordinal),
    (
        r"driver version is insufficient|CUDA failure 35\b",
        _always(f"The NVIDIA driver is older than this CUDA wants: {_DRIVERS}. nvidia-smi shows it; update it."),
    ),
    (
        r"no CUDA-capable device|CUDA failure 100\b|CUDA_ERROR_NO_DEVICE",
        _always(NO_GPU),
    ),
    (
        r"no kernel image is available|CUDA failure 209\b",
        _always("This onnxruntime has no kernels for this GPU's compute capability. Install another version of it."),
    ),
    (
        r"CUDNN_STATUS_(\w*VERSION_MISMATCH|NOT_INITIALIZED|SUBLIBRARY\w*)",
        _always(
            "cuDNN is there in another version, or twice. Take folders with cuDNN out of LD_LIBRARY_PATH, and type: "
            f"{_CUDNN}"
        ),
    ),
    (
        r"undefined symbol|GLIBC\w*_[\d.]+' not found|version `[^']+' not found",
        _always(f"A library has another version than onnxruntime was linked with. Type: {INSTALL_GPU}"),
    ),
)
