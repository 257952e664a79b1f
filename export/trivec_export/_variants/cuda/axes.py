"""Which axes of a tensor run over texts and over tokens, followed from node to node.

An axis is "B" (texts), "S" (their tokens) or "." (neither). What stands at a place of a tensor with the axes
("B", "S", ...) may depend on that token alone, and on what attention hands it: a node that mixes tokens in any other
way has no rule here, and whoever asks is told so.
"""

from collections.abc import Callable, Mapping

import onnx

from trivec_export._variants.cuda.view import Sized, UnsuitableError, View

Axes = tuple[str, ...]
TOKENS: Axes = ("B", "S")
# fmt: off
_ELEMENTWISE = (
    "Abs", "Add", "And", "BiasGelu", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp",
    "FastGelu", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN",
    "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "Pow",
    "QuickGelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub",
    "Sum", "Swish", "Tanh", "ThresholdedRelu", "Where", "Xor",
)
# fmt: on
_FROM_AXIS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
_ALONG_AXIS = ("LogSoftmax", "LpNormalization", "Softmax")
_REDUCTIONS = tuple(f"Reduce{name}" for name in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum"))


class Rules:
    """The axes of every tensor that depends on the ids, as far as nodes have been followed."""

    def __init__(self, view: View, sized: Mapping[str, Sized]) -> None:
        self.view, self.sized = view, sized
        self._axes: dict[str, Axes] = {view.ids: TOKENS}
        self._rules: dict[str, Callable[[onnx.NodeProto], Axes]] = {
            "Concat": self._concat,
            "CumSum": self._cumulated,
            "Expand": self._expand,
            "FusedMatMul": self._product,
            "Gather": self._gather,
            "GatherElements": self._gather_elements,
            "MatMul": self._product,
            "MultiHeadAttention": self._attention,
            "Reshape": self._reshape,
            "RotaryEmbedding": self._rotary,
            "Slice": self._slice,
            "Split": lambda node: self._kept(node, [integer(node, "axis", 0)]),
            "Squeeze": self._squeeze,
            "Transpose": self._transpose,
            "Unsqueeze": self._unsqueeze,
        }
        self._rules |= dict.fromkeys(_ELEMENTWISE, self._elementwise)
        self._rules |= dict.fromkeys(_FROM_AXIS, self._norm)
        self._rules |= dict.fromkeys(_ALONG_AXIS, lambda node: self._kept(node, [integer(node, "axis", -1)]))
        self._rules |= dict.fromkeys(_REDUCTIONS, self._reduction)

    def follow(self, node: onnx.NodeProto) -> Axes:
        """Note and return the axes of what a node makes.

        Raises:
            UnsuitableError: it mixes tokens or texts, or it cannot be told that it does not.
        """
        rule = self._rules.get(node.op_type)
        if rule is None or any(attr.type in (attr.GRAPH, attr.GRAPHS) for attr in node.attribute):
            raise UnsuitableError(f"{where(node)} may mix tokens")
        axes = rule(node)
        self.note(node, axes)
        return axes

    def note(self, node: onnx.NodeProto, axes: Axes) -> None:
        """Set the axes of what a node makes."""
        self._axes |= {name: axes for name in node.output if name}

    def axes(self, name: str) -> Axes:
        """The axes of a tensor."""
        if name in self._axes:
            return self._axes[name]
        if name in self.view.constant:
            return (".",) * len(self.view.dims(name))
        found = self.sized.get(name)
        if found is None or found.kind in ("shape", "other"):
            raise UnsuitableError(f"{name!r} depends on the length of the text")
        return tuple("B" if i in found.batch else "S" if i in found.places else "." for i in range(len(found.shape)))

    def is_one(self, name: str, axis: int) -> bool:
        """Whether an axis is known to have length 1 and to run over nothing."""
        dims = self.sized[name].shape if name in self.sized else self.view.dims(name)
        return dims[axis] == 1 and self.axes(name)[axis] == "."

    def _need(self, node: onnx.NodeProto, *, holds: bool) -> None:
        if not holds:
            raise UnsuitableError(f"{where(node)} may mix tokens")

    def _elementwise(self, node: onnx.NodeProto) -> Axes:
        names = [name for name in node.input if name]
        rank = max(len(self.axes(name)) for name in names)
        out = ["."] * rank
        for name in names:
            axes = self.axes(name)
            for i, role in enumerate(axes, rank - len(axes)):
                self._need(node, holds=role == "." or out[i] in (".", role))
                out[i] = role if role != "." else out[i]
        for name in names:  # what runs over nothing must be one number there, or missing
            offset = rank - len(self.axes(name))
            for i, role in enumerate(self.axes(name)):
                self._need(node, holds=role == out[i + offset] or self.is_one(name, i))
        return tuple(out)

    def _product(self, node: onnx.NodeProto) -> Axes:
        left, right = node.input[:2]
        axes = self.axes(left)
        moved = any(integer(node, name, 0) for name in ("transA", "transBatchA", "transBatchB"))
        self._need(node, holds=right in self.view.constant and not moved and len(axes) > 2 and axes[-1] == ".")
        rank = len(self.view.dims(right))
        self._need(node, holds=2 <= rank <= len(axes))
        for i in range(rank - 2):
            self._need(node, holds=axes[i + len(axes) - rank] == "." or self.is_one(right, i))
        return (*axes[:-1], ".")

    def _norm(self, node: onnx.NodeProto) -> Axes:
        axes = self.axes(node.input[0])
        first = integer(node, "axis", -1) % len(axes)
        self._need(node, holds=self.view.constant.issuperset(node.input[1:]))
        return self._kept(node, range(first, len(axes)))

    def _kept(self, node: onnx.NodeProto, changed: list[int] | range) -> Axes:
        """The axes of the first input, of which those that are `changed` must run over nothing."""
        axes = self.axes(node.input[0])
        self._need(node, holds=all(axes[i] == "." for i in changed))
        return axes

    def _reduction(self, node: onnx.NodeProto) -> Axes:
        axes = self.axes(node.input[0])
        gone = self.view.integers(node.input[1]) if len(node.input) > 1 else None
        self._need(node, holds=gone is not None)
        gone = [i % len(axes) for i in gone or []]
        self._kept(node, gone)
        return axes if integer(node, "keepdims", 1) else tuple(a for i, a in enumerate(axes) if i not in gone)

    def _gather(self, node: onnx.NodeProto) -> Axes:
        data, index = self.axes(node.input[0]), self.axes(node.input[1])
        axis = integer(node, "axis", 0) % len(data)
        self._need(node, holds=data[axis] == "." and (set(data) == {"."} or set(index) <= {"."}))
        return (*data[:axis], *index, *data[axis + 1 :])

    def _gather_elements(self, node: onnx.NodeProto) -> Axes:
        data, index = self.axes(node.input[0]), self.axes(node.input[1])
        axis = integer(node, "axis", 0) % len(data)
        same = all(a == b for i, (a, b) in enumerate(zip(data, index, strict=True)) if i != axis)
        self._need(node, holds=same and data[axis] == ".")
        return index

    def _reshape(self, node: onnx.NodeProto) -> Axes:
        axes = self.axes(node.input[0])
        self._need(node, holds=axes[:2] == TOKENS and set(axes[2:]) <= {"."})
        values = self._numbers(node.input[1])
        copies = not integer(node, "allowzero", 0)
        for batch, tokens, shape in values:
            self._need(node, holds=len(shape) >= 2 and (shape[0] == batch or (copies and shape[0] == 0)))
            self._need(node, holds=shape[1] == tokens or (copies and shape[1] == 0))
        self._need(node, holds=all(shape[2:] == values[0][2][2:] for _, _, shape in values))
        return (*TOKENS, *(".",) * (len(values[0][2]) - 2))

    def _expand(self, node: onnx.NodeProto) -> Axes:
        axes = self.axes(node.input[0])
        values = self._numbers(node.input[1])
        for batch, tokens, shape in values:
            self._need(node, holds=len(shape) <= len(axes))
            for i, size in enumerate(shape, len(axes) - len(shape)):
                same = size == {"B": batch, "S": tokens, ".": values[0][2][i - len(axes) + len(shape)]}[axes[i]]
                self._need(node, holds=same or size == 1)
        return axes

    def _numbers(self, name: str) -> list[tuple[int, int, list[int]]]:
        """A shape at a few sizes (B, S); a constant one at (-2, -2), which it never names."""
        constant = self.view.integers(name)
        if constant is not None:
            return [(-2, -2, constant)]
        found = self.sized.get(name)
        if found is None or not found.values:
            raise UnsuitableError(f"the shape {name!r} is computed from the tokens")
        return list(found.values)

    def _slice(self, node: onnx.NodeProto) -> Axes:
        axes = self.view.integers(node.input[3]) if len(node.input) > 3 else None
        self._need(node, holds=axes is not None and self.view.constant.issuperset(node.input[1:]))
        return self._kept(node, axes or [])

    def _squeeze(self, node: onnx.NodeProto) -> Axes:
        axes = self.axes(node.input[0])
        gone = self.view.integers(node.input[1]) if len(node.input) > 1 else None
        self._need(node, holds=gone is not None)
        gone = [i % len(axes) for i in gone or []]
        self._kept(node, gone)
        return tuple(role for i, role in enumerate(axes) if i not in gone)

    def _unsqueeze(self, node: onnx.NodeProto) -> Axes:
        new = self.view.integers(node.input[1])
        self._need(node, holds=new is not None)
        axes = list(self.axes(node.input[0]))
        rank = len(axes) + len(new or [])
        for i in sorted(i % rank for i in new or []):
            axes.insert(i, ".")
        return tuple(axes)

    def _transpose(self, node: onnx.NodeProto) -> Axes:
        axes = self.axes(node.input[0])
        return tuple(axes[i] for i in _order(node, len(axes)))

    def _concat(self, node: onnx.NodeProto) -> Axes:
        axes = self._kept(node, [integer(node, "axis", 0)])
        self._need(node, holds=all(self.axes(name) == axes for name in node.input))
        return axes

    def _cumulated(self, node: onnx.NodeProto) -> Axes:
        forward = not integer(node, "reverse", 0)
        along = self.view.integers(node.input[1])
        self._need(node, holds=forward and self.axes(node.input[0]) == TOKENS and along in ([1], [-1]))
        return TOKENS

    def _rotary(self, node: onnx.NodeProto) -> Axes:
        plain = not integer(node, "is_packed_batching", 0) and self.view.constant.issuperset(node.input[2:])
        self._need(node, holds=plain and self.axes(node.input[0]) == (*TOKENS, "."))
        start = self.view.integers(node.input[1])
        self._need(node, holds=start == [0] or self.axes(node.input[1]) == TOKENS)
        return (*TOKENS, ".")

    def _attention(self, node: onnx.NodeProto) -> Axes:
        self._need(node, holds=all(self.axes(name) == (*TOKENS, ".") for name in node.input[:3]))
        given = [i for i, name in enumerate(node.input) if name and i > 2]
        self._need(node, holds=set(given) <= {3, 5} and len(node.output) == 1)
        if 3 in given:
            self._need(node, holds=node.input[3] in self.view.constant)
        if 5 in given:
            axes = self.axes(node.input[5])
            self._need(node, holds=len(axes) == 4 and axes[0] != "S" and axes[1:] == (".", "S", "S"))
        return (*TOKENS, ".")


def where(node: onnx.NodeProto) -> str:
    """A node for a sentence."""
    return f"{node.op_type} {node.name or node.output[0]!r}"


def _order(node: onnx.NodeProto, rank: int) -> list[int]:
    """The permutation of a Transpose."""
    given = next((list(item.ints) for item in node.attribute if item.name == "perm"), None)
    return list(range(rank))[::-1] if given is None else given


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute."""
    return next((int(item.i) for item in node.attribute if item.name == name), default)
