"""Analyzers by the name of a language, and from YAML files."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivec._errors import InputError, ModelFormatError, ModelNotFoundError
from trivec.lexical._analyzer import Analyzer
from trivec.lexical._filters import (
    CharacterfilterPreprocessor,
    LowercaseFilter,
    PunctuationFilter,
    ReplacePreprocessor,
    StemmingFilter,
    StopwordFilter,
)
from trivec.lexical._optional import require
from trivec.lexical._tokenizers import (
    JiebaTokenizer,
    KiwiTokenizer,
    KonlpyTokenizer,
    MecabTokenizer,
    StandardTokenizer,
)

_Classes = Mapping[str, type]
_PREPROCESSORS: _Classes = {one.__name__: one for one in (CharacterfilterPreprocessor, ReplacePreprocessor)}
_TOKENIZERS: _Classes = {
    one.__name__: one for one in (StandardTokenizer, JiebaTokenizer, MecabTokenizer, KonlpyTokenizer, KiwiTokenizer)
}
_FILTERS: _Classes = {one.__name__: one for one in (LowercaseFilter, PunctuationFilter, StopwordFilter, StemmingFilter)}
_PARTS: Mapping[str, _Classes] = {"preprocessors": _PREPROCESSORS, "filters": _FILTERS}


def _step(name: str, **params: object) -> dict[str, Any]:
    return {"class": name, "params": params}


def _european(language: str, *, extras: str = "", stopwords_first: bool = False) -> dict[str, Any]:
    """The steps of a language with spaces and a stemmer."""
    drops = [_step("PunctuationFilter", extras=extras), _step("StopwordFilter", language=language)]
    return {
        "tokenizer": _step("StandardTokenizer"),
        "filters": [
            _step("LowercaseFilter"),
            *(reversed(drops) if stopwords_first else drops),
            _step("StemmingFilter", language=language),
        ],
    }


# The steps of pymilvus.model's lang.yaml, under its names.
_LANGUAGES: Mapping[str, dict[str, Any]] = {
    "en": _european("english"),
    "de": _european("german", stopwords_first=True),
    "fr": _european("french"),
    "ru": _european("russian"),
    "sp": _european("spanish", extras="¡¿"),
    "it": _european("italian"),
    "pt": _european("portuguese"),
    "zh": {
        "tokenizer": _step("JiebaTokenizer"),
        "filters": [
            _step("StopwordFilter", language="chinese"),
            _step(
                "PunctuationFilter",
                extras=" 、＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､〃〈〉《》「」『』【】"
                "〔〕〖〗〘〙〚〛〜〝〞〟〰–—‘’‛“”„‟…‧﹏﹑﹔·．！？｡。",
            ),
        ],
    },
    "jp": {
        "tokenizer": _step("MecabTokenizer"),
        "preprocessors": [
            _step("CharacterfilterPreprocessor", chars_to_replace="、。「」『』【】（）｛｝・：；！？ー〜…‥[]")
        ],
        "filters": [_step("StopwordFilter"), _step("PunctuationFilter")],
    },
    "kr": {"tokenizer": _step("KonlpyTokenizer"), "filters": [_step("StopwordFilter")]},
}
_ALIASES = {"es": "sp", "ja": "jp", "ko": "kr"}  # the ISO codes of what pymilvus.model calls otherwise


def build_default_analyzer(language: str = "en") -> Analyzer:
    """The analyzer of a language: the same steps, and for the same texts the same terms, as pymilvus.model's.

    en (needs nothing further); de, fr, ru, es, it, pt (extra `lexical`); zh (`lexical-zh`, and the stop words of NLTK's
    data: `python -m nltk.downloader stopwords`); ja (`lexical-ja`); ko (`lexical-ko`). pymilvus.model's names sp, jp
    and kr are understood as well.

    Raises:
        InputError: there is none for the language, or no list of its stop words.
        MissingExtraError: a package that the language needs is not installed.
    """
    steps = _LANGUAGES.get(_ALIASES.get(language, language)) if isinstance(language, str) else None
    if steps is None:
        raise InputError(
            f"there is no analyzer for the language {language!r}; there are for {', '.join([*_LANGUAGES, *_ALIASES])}. "
            "Build one from a YAML file: build_analyzer_from_yaml(path, name); or pass any function from a text to its "
            "terms: BM25(analyzer=...)"
        )
    return _build(language, steps, "the default analyzers")


def build_analyzer_from_yaml(filepath: str | Path, name: str) -> Analyzer:
    """The analyzer of a name in a YAML file of pymilvus.model's form.

        mine:
          tokenizer:
            class: StandardTokenizer
            params: {}
          filters:
            - class: LowercaseFilter
            - class: StopwordFilter
              params:
                language: german

    `params` may be left out where there are none. Classes: the tokenizers, preprocessors and filters of this package.

    Raises:
        ModelNotFoundError: no such file.
        ModelFormatError: it is no YAML, or not of this form; the place is named.
        InputError: it has no analyzer of the name, or a parameter that a class refuses.
        MissingExtraError: a package that a class needs is not installed.
    """
    yaml = require("yaml", "build_analyzer_from_yaml", '"trivec[lexical]"')
    try:
        stored = yaml.safe_load(Path(filepath).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"there is no file {str(filepath)!r} to read an analyzer from.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelFormatError(f"{filepath} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(stored, dict):
        raise ModelFormatError(f"{filepath} must map names to analyzers, got {_shown(stored)}.")
    if name not in stored:
        known = ", ".join(map(str, stored)) or "nothing"
        raise InputError(f"{filepath} has no analyzer {name!r}; it has {known}. Type one of these.")
    return _build(name, stored[name], f"{filepath}: {name}")


def _build(name: str, steps: object, where: str) -> Analyzer:
    if not isinstance(steps, dict) or "tokenizer" not in steps:
        raise ModelFormatError(f"{where} must have a tokenizer, got {_shown(steps)}.")
    if unknown := sorted(map(str, steps.keys() - {"tokenizer", *_PARTS})):
        raise ModelFormatError(f"{where} has {', '.join(unknown)}; expected tokenizer, preprocessors and filters.")
    tokenizer = _made(steps["tokenizer"], _TOKENIZERS, f"{where}: tokenizer")
    made: dict[str, list[Any]] = {}
    for kind, classes in _PARTS.items():
        listed = steps.get(kind) or []
        if not isinstance(listed, list):
            raise ModelFormatError(f"{where}: {kind} must be a list, got {_shown(listed)}.")
        made[kind] = [_made(step, classes, f"{where}: {kind}[{i}]") for i, step in enumerate(listed)]
    return Analyzer(name, tokenizer, made["preprocessors"], made["filters"])


def _made(step: object, classes: _Classes, where: str) -> Any:  # noqa: ANN401 - one of the classes
    if not isinstance(step, dict) or "class" not in step or step.keys() - {"class", "params"}:
        raise ModelFormatError(f"{where} must have a class and its params, got {_shown(step)}.")
    kind, params = classes.get(step["class"]), step.get("params") or {}
    if kind is None:
        raise ModelFormatError(f"{where} names the class {step['class']!r}; expected {', '.join(classes)}.")
    accepted = list(inspect.signature(kind).parameters)
    if not isinstance(params, dict) or set(params) - set(accepted):
        takes = ", ".join(accepted) or "none"
        raise ModelFormatError(f"{where}: params of {kind.__name__} must be among {takes}, got {_shown(params)}.")
    try:
        return kind(**params)
    except TypeError as error:  # one that it needs is missing
        raise ModelFormatError(
            f"{where}: {kind.__name__} needs {', '.join(accepted)}, got {_shown(params)}."
        ) from error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
