"""What a service is opened with: arguments, or a name with some of them behind a "?"."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from trivec._encoders.calls import Overflow
from trivec._errors import InputError
from trivec.hosted._http import Patience, Service
from trivec.hosted._key import FROM_ENVIRONMENT, FromEnvironment, Key, check_address, key_of
from trivec.hosted._provider import Ask, Provider
from trivec.hosted._providers import provider_of

_SPELLED = ("base_url", "dimensions", "output_dtype", "truncate_dim", "similarity_fn_name", "blank", "extra_body")
"""What decides vectors, and so belongs to a name."""
_WHOLE = ("dimensions", "truncate_dim", "concurrency", "max_retries")
_NUMBERS = ("timeout", "max_wait")


@dataclass(frozen=True)
class Options:
    """The arguments of `open`, checked, without the key. It can be pickled."""

    provider: str
    model: str
    base_url: str | None = None
    dimensions: int | None = None
    output_dtype: str = "float32"
    truncate_dim: int | None = None
    similarity_fn_name: str | None = None
    blank: str = "error"
    extra_body: Mapping[str, Any] | None = None
    cache: str | None = None
    concurrency: int = 4
    timeout: float = 60.0
    max_retries: int = 5
    max_wait: float = 60.0
    url: str = ""
    """Where requests go; `connected` finds it."""
    api_key: FromEnvironment | None = FROM_ENVIRONMENT
    """Where the key comes from; None: there is none."""
    key_given: bool = False
    """Whether it came as an argument, and so cannot be had again."""

    def __post_init__(self) -> None:
        row = self.row
        if not self.model and row.base_url is not None:
            raise InputError(f"name the model behind the provider: {row.name}:MODEL.")
        for name in _WHOLE:
            least, value = int(name != "max_retries"), getattr(self, name)
            if value is None and name in ("dimensions", "truncate_dim"):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        for name in _NUMBERS:
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
                raise InputError(f"{name} must be a number of seconds above 0, got {value!r}.")
        if self.blank not in ("error", "zeros"):
            raise InputError(f"blank {self.blank!r} is not one of 'error', 'zeros'.")
        if self.output_dtype != "float32" and self.output_dtype not in row.dtypes:
            known = ", ".join(("float32", *row.dtypes))
            raise InputError(f"output_dtype={self.output_dtype!r}: {row.name} gives {known}. See precision= of encode.")
        if self.extra_body is not None:
            _check_fields(self.extra_body, row)

    @property
    def row(self) -> Provider:
        """The service's."""
        return provider_of(self.provider)

    @property
    def spec(self) -> str:
        """provider:model?option=value&..., with what decides vectors."""
        defaults = {field.name: field.default for field in fields(self)}
        said = {name: getattr(self, name) for name in _SPELLED if getattr(self, name) != defaults[name]}
        if "extra_body" in said:
            said["extra_body"] = json.dumps(dict(said["extra_body"]), sort_keys=True)
        query = urlencode(said, safe=":/", quote_via=quote)
        return f"{self.provider}:{self.model}{'?' if query else ''}{query}"

    def ask(self, task: str | None, on_overflow: Overflow) -> Ask:
        """What a request of a call says beside its texts.

        Raises:
            InputError: a task or a way with long texts that the service does not have.
        """
        row = self.row
        if task is not None and not isinstance(task, str):
            raise InputError(f"task must be a string, got {type(task).__name__}.")
        if not row.tasks and task not in (None, "query", "document"):
            raise InputError(f"task={task!r}: {row.name} has no tasks; expected None, 'query' or 'document'.")
        if on_overflow not in ("truncate", "error"):
            raise InputError(f"on_overflow {on_overflow!r} is not one of 'truncate', 'error'.")
        if on_overflow not in row.overflow:
            raise InputError(f"on_overflow={on_overflow!r}: {row.name} always cuts long texts, and does not say so.")
        word = row.tasks.get(task, task) if row.tasks else None
        model = self.model.removeprefix("models/")  # as Google writes its own
        return Ask(model, word, self.dimensions, self.output_dtype, row.overflow[on_overflow])

    def portable(self) -> "Options":
        """What opens the service elsewhere, with a key from the environment there.

        Raises:
            InputError: the key was an argument, and goes into no pickle.
        """
        if self.key_given:
            raise InputError(
                f"an encoder whose key was given as api_key= cannot be pickled: the key would be in the pickle. Set "
                f"{self.row.variables or 'no key'} here and there, and leave api_key out."
            )
        return self

    def connected(self, api_key: str | FromEnvironment | None) -> "tuple[Options, Service]":
        """The address with its key; nothing is sent yet.

        Raises:
            InputError: no key, no address, or one that must not have the key.
        """
        row = self.row
        given = self.base_url
        if given is None and row.address:
            given = os.environ.get(row.address) or None
        if given is None and row.base_url is None:
            raise InputError(f"{row.name} runs where you run it. Type: open('{self.provider}:', base_url='http://...')")
        key: Key = key_of(row, api_key, own_host=given is None)
        url = str(row.base_url) if given is None else given
        if given is None and row.elsewhere is not None and key.starts_with(row.elsewhere[0]):
            url = row.elsewhere[1]
        url = check_address(url, key)
        source = None if api_key is None else FROM_ENVIRONMENT
        found = replace(self, url=url, api_key=source, key_given=isinstance(api_key, str))
        patience = Patience(self.max_retries, self.max_wait, self.timeout)
        return found, Service(row, url, key, concurrency=self.concurrency, patience=patience)


def options_of(name: str, given: Mapping[str, Any]) -> Options:
    """From "provider:model?option=value" and arguments.

    Raises:
        InputError: no such provider, an option that is not known, has a wrong value, or is given twice.
    """
    if not isinstance(name, str):
        raise InputError(f"expected provider:model, such as 'openai:MODEL', got {type(name).__name__}.")
    spec, _, query = name.partition("?")  # what is behind it may hold a key by mistake, and is shown nowhere
    provider, colon, model = spec.partition(":")
    if not colon:
        raise InputError(f"{spec!r} names no provider. Type: provider:model, such as 'openai:MODEL'.")
    known = [field.name for field in fields(Options)][2:-3]
    said: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise InputError(f"cannot read what is behind {spec}? Type: {spec}?option=value&option=value") from None
    for option, text in pairs:
        if option not in known:
            raise InputError(
                f"{option}= behind {spec}? is no option. Expected some of: {', '.join(known)}. Keys are in variables "
                "of the environment, or in api_key=."
            )
        if option in said or option in given:
            raise InputError(f"{option} is given twice for {spec!r}.")
        said[option] = _value(option, text)
    return Options(provider, model, **said, **given)


def _value(option: str, text: str) -> Any:  # noqa: ANN401 - by the option
    try:
        if option in _WHOLE:
            return int(text)
        if option in _NUMBERS:
            return float(text)
        return json.loads(text) if option == "extra_body" else text
    except ValueError as error:
        raise InputError(f"{option}={text!r} cannot be read: {error}.") from None


def _check_fields(extra_body: object, row: Provider) -> None:
    """InputError for what is no JSON, or stands in for what an argument decides: answers would be misread."""
    if not isinstance(extra_body, Mapping):
        raise InputError(f"extra_body must be a mapping, got {type(extra_body).__name__}.")
    try:
        json.dumps(dict(extra_body), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"extra_body is no JSON: {error}.") from None
    ours = row.body([""], Ask("", "", 1, row.dtypes[0] if row.dtypes else "float32", {})).keys() | {"model"}
    if taken := sorted((ours - {"encoding_format"}) & extra_body.keys()):
        raise InputError(f"extra_body must not hold {', '.join(taken)}: see the arguments of open, and encode(task=).")


def fingerprint_of(request: str, **settings: object) -> str:
    """sha256 of a request's fingerprint, and of what becomes of its vectors here."""
    return hashlib.sha256(json.dumps({"request": request, **settings}, sort_keys=True).encode()).hexdigest()
