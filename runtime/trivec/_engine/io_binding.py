"""Runs over buffers that stay on the device: what goes in is copied into them, what comes out is copied back.

The same code runs over buffers of the CPU, where nothing is gained and every line can be tested.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._engine.devices import Engine
from trivec._engine.memory import is_memory_error

Array = npt.NDArray[Any]
_MOST_GRAPHS = 64  # captured graphs; each keeps buffers, and memory of its own, for good
_SKIP = "-1"  # as gpu_graph_id: neither capture nor replay
_TYPES: dict[str, npt.DTypeLike] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class _Buffer:
    """Device memory for one input or output, and the host's image of an input."""

    def __init__(self, ort: Engine, place: tuple[str, int], dtype: np.dtype[Any], count: int) -> None:
        self.capacity, self._dtype, self._place = count, dtype, place
        self._value = ort.OrtValue.ortvalue_from_shape_and_type([count], dtype.type, *place)
        self._image = np.zeros(count, dtype=dtype)  # (count,)

    def bind_input(self, binding: Any, name: str, array: Array) -> None:  # noqa: ANN401 - onnxruntime has no types
        """Copy the array into the device's memory, and bind that in the array's shape."""
        self._image[: array.size] = array.ravel()
        self._value.update_inplace(self._image)  # copies all of it: a part cannot be addressed
        binding.bind_input(name, *self._place, self._dtype.type, list(array.shape), self._value.data_ptr())

    def bind_output(self, binding: Any, name: str, shape: Sequence[int]) -> None:  # noqa: ANN401
        """Have the output of this shape written into the device's memory."""
        binding.bind_output(name, *self._place, self._dtype.type, list(shape), self._value.data_ptr())


class _Slot:
    """A binding and its buffers, which grow with what they are to hold unless they are fixed."""

    def __init__(self, owner: "BoundSession", graph_id: str = _SKIP) -> None:
        self._owner, self.graph_id = owner, graph_id
        self._binding = owner.session.io_binding()
        self._buffers: dict[str, _Buffer] = {}

    def run(self, feeds: Mapping[str, Array], outputs: Mapping[str, tuple[int, ...] | None]) -> list[Array]:
        """One run; outputs whose shape is not known are allocated by onnxruntime."""
        options = self._owner.options(len(outputs), self.graph_id)
        for name, array in feeds.items():
            self._buffer(name, array.dtype, array.size).bind_input(self._binding, name, array)
        self._binding.clear_binding_outputs()
        for name, shape in outputs.items():
            if shape is None:
                self._binding.bind_output(name, *self._owner.place)
            else:
                dtype = np.dtype(self._owner.types[name])
                self._buffer(name, dtype, int(np.prod(shape))).bind_output(self._binding, name, shape)
        self._owner.session.run_with_iobinding(self._binding, options)
        made: list[Array] = self._binding.copy_outputs_to_cpu()
        return made

    def _buffer(self, name: str, dtype: np.dtype[Any], count: int) -> _Buffer:
        """One that holds so many numbers; the next power of two, so that few sizes are ever allocated."""
        found = self._buffers.get(name)
        if found is None or found.capacity < count:
            self._buffers.pop(name, None)  # its memory first
            size = 1 << max(0, count - 1).bit_length()
            found = self._buffers[name] = _Buffer(self._owner.ort, self._owner.place, dtype, max(1, size))
        return found


class BoundSession:
    """An InferenceSession that reads from and writes to buffers on its device. For one thread at a time.

    Where the provider captures CUDA graphs (`enable_cuda_graph`), a set of shapes that comes a second time gets buffers
    of its own and an annotation id, up to 64 of them; all other runs skip capturing. A captured graph lives in the
    thread that captured it (cuda_execution_provider.cc), so that has to be the one that runs everything.
    """

    def __init__(self, ort: Engine, session: Any, place: tuple[str, int], *, graphs: bool = False) -> None:  # noqa: ANN401
        """Bind a session.

        Args:
            ort: the onnxruntime module.
            session: an InferenceSession.
            place: device type and index of the buffers: ("cuda", 0).
            graphs: whether the provider captures CUDA graphs.
        """
        self.ort, self.session, self.place, self._graphs = ort, session, place, graphs
        self._inputs = {i.name: tuple(i.shape) for i in session.get_inputs()}
        self._outputs = {o.name: tuple(o.shape) for o in session.get_outputs()}
        self.types = {o.name: _TYPES[o.type] for o in session.get_outputs() if o.type in _TYPES}
        """numpy's types of the outputs that can be preallocated."""
        self._shared = _Slot(self)
        self._captured: dict[object, _Slot] = {}
        self._seen: set[object] = set()
        self._preallocates = True

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Compute outputs; what only other outputs need is not computed.

        Args:
            feeds: every input; types as the graph has them.
            outputs: names.

        Returns:
            The outputs as arrays of their own, in the order of the names.
        """
        shapes = self._shapes(feeds, outputs)
        slot = self._slot(feeds, shapes)
        if slot is not self._shared:
            return slot.run(feeds, shapes)
        try:
            return slot.run(feeds, shapes)
        except Exception as error:
            if is_memory_error(error) or all(shape is None for shape in shapes.values()):
                raise
        found = slot.run(feeds, dict.fromkeys(shapes))
        self._preallocates = False  # the graph names its dimensions wrongly, and onnxruntime knew the shapes
        return found

    def options(self, outputs: int, graph_id: str) -> Any:  # noqa: ANN401 - onnxruntime has no types
        """Options of a run to so many outputs."""
        options = self.ort.RunOptions()
        options.only_execute_path_to_fetches = outputs < len(self._outputs)
        if self._graphs:
            options.add_run_config_entry("gpu_graph_id", graph_id)
        return options

    def _slot(self, feeds: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...] | None]) -> _Slot:
        if not self._graphs or any(shape is None for shape in shapes.values()):
            return self._shared
        key = (tuple((name, array.shape) for name, array in feeds.items()), tuple(shapes))
        if key not in self._captured:
            if key not in self._seen or len(self._captured) >= _MOST_GRAPHS:
                if len(self._seen) < 16 * _MOST_GRAPHS:
                    self._seen.add(key)
                return self._shared
            self._captured[key] = _Slot(self, str(len(self._captured) + 1))  # 0 is reserved
        return self._captured[key]

    def _shapes(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, tuple[int, ...] | None]:
        """Shapes of the outputs, from the names that the graph gives its dimensions; None where they do not tell."""
        if not self._preallocates:
            return dict.fromkeys(outputs)
        known: dict[str, int] = {}
        for name, array in feeds.items():
            known |= {d: n for d, n in zip(self._inputs[name], array.shape, strict=False) if isinstance(d, str)}
        return {name: self._shape(name, known) for name in outputs}

    def _shape(self, name: str, known: Mapping[str, int]) -> tuple[int, ...] | None:
        found = [known.get(d) if isinstance(d, str) else d for d in self._outputs[name]]
        sizes = tuple(d for d in found if isinstance(d, int))
        return sizes if len(sizes) == len(found) and found and name in self.types else None
