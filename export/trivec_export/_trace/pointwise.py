"""Norms and activations as single onnxruntime ops where torch would write several.

Nothing is recognised by name: a module is replaced only where a probe shows that the op gives the numbers of the
module's own forward. Otherwise it is traced as it stands, which is slower and as right.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import activations

from trivec_export._temporary import Swaps


def swap_norms(model: nn.Module, swaps: Swaps) -> None:
    """Give every RMSNorm (arXiv:1910.07467) the node SimplifiedLayerNormalization, which torch does not write."""
    for module in model.modules():
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.LayerNorm) or not isinstance(epsilon, float) or not isinstance(weight, nn.Parameter):
            continue
        offset = _norm_offset(module, weight, epsilon)
        if offset is not None:
            if offset:
                swaps.buffer(module, "scale", weight.detach() + offset)
            swaps.set(module, "forward", _norm_forward(module, "scale" if offset else "weight", epsilon))


def _norm_offset(module: nn.Module, weight: Tensor, epsilon: float) -> float | None:
    """0 or 1 (Gemma stores weight - 1) where the module is a root-mean-square norm, None where it is not."""
    if weight.dim() != 1:
        return None
    x = torch.randn(3, weight.shape[0], generator=torch.Generator().manual_seed(0))  # (3, H)
    try:
        came = module(x)
    except (RuntimeError, TypeError):  # not a function of one (.., H) tensor
        return None
    for offset in (0.0, 1.0):
        expected = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * (weight + offset)  # (3, H)
        if isinstance(came, Tensor) and came.shape == x.shape and torch.allclose(came, expected, rtol=1e-5, atol=1e-6):
            return offset
    return None


def _norm_forward(module: nn.Module, scale: str, epsilon: float) -> Callable[[Tensor], Tensor]:
    """A forward that writes the node."""

    def forward(x: Tensor) -> Tensor:
        return torch.onnx.ops.symbolic(
            "SimplifiedLayerNormalization",
            [x, getattr(module, scale)],
            {"axis": -1, "epsilon": epsilon, "stash_type": 1},
            dtype=x.dtype,
            shape=x.shape,
        )

    return forward


def swap_gelu(model: nn.Module, swaps: Swaps) -> None:
    """Give every spelling of GELU's tanh form (arXiv:1606.08415, section 2) the one that becomes one Gelu node."""
    x = torch.linspace(-6, 6, 241)  # (241,) the exact and the tanh form differ by up to 5e-4 on it
    for module in model.modules():
        if type(module).__module__ == activations.__name__:
            y = module(x)
            if isinstance(y, Tensor) and torch.allclose(y, gelu(x, approximate="tanh"), rtol=0, atol=2e-6):
                swaps.set(module, "forward", _tanh_gelu)


def _tanh_gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, as torch writes it."""
    return gelu(x, approximate="tanh")
