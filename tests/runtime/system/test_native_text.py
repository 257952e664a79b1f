"""Names and arguments that Python keeps as surrogates, because the locale's encoding could not read them."""

import os
from pathlib import Path

import pytest

from trivec import InputError
from trivec._system.native_text import argument_text, native_path


def test_what_is_utf8_all_the_same() -> None:
    for text in ("plain", "größe", "检索 😀"):
        unread = text.encode().decode("ascii", "surrogateescape")
        assert argument_text(unread) == argument_text(text) == text
        assert native_path(Path("a") / unread) == native_path(Path("a") / text) == f"a/{text}"


def test_what_is_not() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert argument_text(name) == name
    assert argument_text("half \ud800") == "half \ud800"
    with pytest.raises(InputError, match=r"the path 'caf\\udce9' is not UTF-8.* Rename the folder\."):
        native_path(Path(name))
