"""Everything trivec raises on purpose.

    TrivecError
    ├── InputError(ValueError)               an argument or a text that cannot be used
    ├── ModelNotFoundError(FileNotFoundError) no such folder, repository or variant
    ├── ModelFormatError(ValueError)         a model folder or checkpoint that cannot be understood
    ├── IntegrityError(OSError)              a file is not the one the manifest describes
    ├── ProviderError(RuntimeError)          onnxruntime cannot run this here
    ├── MissingExtraError(ImportError)       a package that an extra brings is absent
    ├── NonFiniteError(ArithmeticError)      a vector came out as NaN or infinity
    ├── TruncationError(ValueError)          a text is longer than the model reads, with on_overflow="error"
    ├── GateError(RuntimeError)              an exported variant is not faithful to the reference
    ├── WorkerError(RuntimeError)            a process of a pool died
    └── BusyError(RuntimeError)              too many texts wait already

Each has a builtin parent as well, so `except FileNotFoundError` works as people expect. A message says
what came, what was expected, and what to type next.
"""


class TrivecError(Exception):
    """Base of every error that trivec raises on purpose."""


class InputError(TrivecError, ValueError):
    """An argument or a text that cannot be used."""


class ModelNotFoundError(TrivecError, FileNotFoundError):
    """No such folder, repository or variant."""


class ModelFormatError(TrivecError, ValueError):
    """A model folder or checkpoint that cannot be understood."""


class IntegrityError(TrivecError, OSError):
    """A file is not the one that the manifest describes."""


class ProviderError(TrivecError, RuntimeError):
    """onnxruntime cannot run this model here as asked."""


class MissingExtraError(TrivecError, ImportError):
    """A package that one of trivec's extras brings is not installed."""


class NonFiniteError(TrivecError, ArithmeticError):
    """A vector came out as NaN or infinity."""


class TruncationError(TrivecError, ValueError):
    """A text is longer than the model reads, and the caller asked for an error."""


class GateError(TrivecError, RuntimeError):
    """An exported variant is not faithful enough to the reference."""


class WorkerError(TrivecError, RuntimeError):
    """A process of a pool died, or the pool is closed."""


class BusyError(TrivecError, RuntimeError):
    """More texts wait for a Batcher than it was told to let wait."""
