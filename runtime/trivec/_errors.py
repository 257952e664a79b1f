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
    ├── BusyError(RuntimeError)              too many texts wait already
    └── ServiceError(RuntimeError)           a hosted service refused, failed, or gave no vectors

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


class ServiceError(TrivecError, RuntimeError):
    """A hosted service refused a request, failed, or answered with something else than it should.

    Attributes:
        provider: whose service, such as "openai".
        status: the HTTP status; None where none came.
        code: the service's own code; None where it gave none.
        request_id: what the service's support asks for; None where it gave none.
        retry_after: seconds after which it wants to be asked again; None where it did not say.
        done: how many texts of the call, from the first on, were answered before.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        done: int = 0,
    ) -> None:
        super().__init__(message)
        self.provider, self.status, self.code = provider, status, code
        self.request_id, self.retry_after, self.done = request_id, retry_after, done
