"""A checkpoint's tokenizer: what its files say, as transformers makes it and as the runtime reads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trivec._errors import MissingExtraError, ModelFormatError
from trivec._gate.texts import verification_texts
from trivec._model.json_files import read_object
from trivec._model.modules import NO_LIMIT, TransformerSpec
from trivec._model.source import Folder
from trivec._system.native_text import native_path
from trivec_export._temporary import quiet

_FILE, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_PACKAGES = (
    "sentencepiece",
    "protobuf",
    "fugashi",
    "jieba",
    "rjieba",
    "sacremoses",
    "pythainlp",
    "unidic_lite",
    "ipadic",
)


class TokenizerRead(NamedTuple):
    """A tokenizer, and where its files had to be followed against transformers."""

    tokenizer: PreTrainedTokenizerBase
    put_right: str
    """What transformers leaves out of what the files say, in words; "" for nothing."""


def read_tokenizer(folder: Path, spec: TransformerSpec, *, trust_remote_code: bool) -> TokenizerRead:
    """AutoTokenizer with the module's settings, as sentence-transformers' Transformer makes it.

    Two of its settings are checked against the files, for transformers 5 leaves them out in silence: the tokens that
    add_bos_token and add_eos_token ask for are added, and a tokenizer.json that the tokenizer's class overrules is
    refused.

    Raises:
        ModelFormatError: there is no fast tokenizer, or its files contradict each other.
        MissingExtraError: a package is missing that this tokenizer needs.
    """
    place = folder / spec.folder
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                str(place), trust_remote_code=trust_remote_code, **spec.tokenizer_kwargs
            )
    except ImportError as error:
        raise _missing(place, error) from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise (
            _missing(place, error)
            if any(package in str(error).lower() for package in _PACKAGES)
            else ModelFormatError(f"{place} has no tokenizer that transformers can load: {error}")
        ) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelFormatError(
            f"{place} has the tokenizer {type(tokenizer).__name__}, which runs in Python; trivec's runtime reads "
            "tokenizer.json. Use sentence-transformers for this model."
        )
    settings = settings_of(place, spec.tokenizer_kwargs)
    _check_overruled(place, tokenizer, settings)
    put_right = add_special_tokens(tokenizer, settings, place)
    if spec.lower_case:
        parts = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer is not None else [])]
        backend.normalizer = normalizers.Sequence(parts)
    tokenizer.model_max_length = NO_LIMIT if spec.max_seq_length is None else spec.max_seq_length
    tokenizer.truncation_side = spec.truncation_side
    return TokenizerRead(tokenizer, put_right)


def settings_of(place: Path, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a folder's tokenizer_config.json says, and the arguments that a module gives beside it."""
    return {**read_object(Folder(place), _SETTINGS), **given}


def add_special_tokens(tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any], place: Path) -> str:
    """Add the first and last token where add_bos_token and add_eos_token ask for them and no rule adds them.

    transformers 4 rebuilt the tokenizer's template from these two; transformers 5 takes tokenizer.json as it is, and a
    model with last-token pooling (e5-mistral) then reads a word in the place of the token that it was trained on.

    Returns:
        What was added, in words; "" for nothing.

    Raises:
        ModelFormatError: a setting says no, and tokenizer.json adds the token.
    """
    ids: list[int] = tokenizer("a")["input_ids"]
    ends = {"add_bos_token": (tokenizer.bos_token_id, 0), "add_eos_token": (tokenizer.eos_token_id, -1)}
    added: dict[str, int] = {}
    for name, (token, position) in ends.items():
        wanted, there = settings.get(name), bool(ids) and token is not None and ids[position] == token
        if wanted is True and not there and token is not None:
            added[name] = token
        elif wanted is False and there and len(ids) > 1:
            raise ModelFormatError(
                f"{place / _SETTINGS} has {name} = false, and {_FILE} adds {tokenizer.convert_ids_to_tokens(token)!r} "
                "to every text: one of the two is wrong. Delete the setting, or take the token out of the template."
            )
    if not added:
        return ""
    _extend_template(tokenizer.backend_tokenizer, added.get("add_bos_token"), added.get("add_eos_token"))
    names = " and ".join(f"{tokenizer.convert_ids_to_tokens(token)} ({name})" for name, token in added.items())
    return f"{names}, which {_SETTINGS} asks for and transformers leaves out"


def _extend_template(backend: Tokenizer, first: int | None, last: int | None) -> None:
    """Put a token before and after what the tokenizer's template gives already."""
    encoding = backend.encode("a")
    special = [token for token, flag in zip(encoding.tokens, encoding.special_tokens_mask, strict=True) if flag]
    middle = encoding.special_tokens_mask.index(0) if 0 in encoding.special_tokens_mask else len(special)
    before, after = special[:middle], special[middle:]
    before = [*([] if first is None else [str(backend.id_to_token(first))]), *before]
    after = [*after, *([] if last is None else [str(backend.id_to_token(last))])]
    tokens = [(token, backend.token_to_id(token)) for token in dict.fromkeys((*before, *after))]
    backend.post_processor = processors.TemplateProcessing(single=[*before, "$A", *after], special_tokens=tokens)


def _check_overruled(place: Path, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]) -> None:
    """Raise where the tokenizer's class gives other ids than the folder's own tokenizer.json.

    The tokens that add_bos_token and add_eos_token ask for may be there on one side alone.
    """
    path = place / _FILE
    if not path.is_file():
        return
    own = Tokenizer.from_file(native_path(path))
    own.no_padding()
    own.no_truncation()
    for text in (text.text for text in verification_texts()):
        theirs = tokenizer(text, verbose=False)["input_ids"]
        ours = own.encode(text).ids
        first = [tokenizer.bos_token_id] if settings.get("add_bos_token") is True else []
        last = [tokenizer.eos_token_id] if settings.get("add_eos_token") is True else []
        if theirs not in (ours, [*first, *ours], [*ours, *last], [*first, *ours, *last]):
            raise ModelFormatError(
                f"{path} and the class {type(tokenizer).__name__}, which transformers makes for this folder, give the "
                f"text {text[:60]!r} other tokens: {ours[:12]} and {theirs[:12]}. transformers builds such a tokenizer "
                'anew. If tokenizer.json is the one the model was trained with, write "tokenizer_class": '
                f'"PreTrainedTokenizerFast" into {_SETTINGS}; if not, delete tokenizer.json.'
            )


def _missing(place: Path, error: Exception) -> MissingExtraError:
    """The error for a tokenizer that needs a package."""
    named = [package for package in _PACKAGES if package in str(error).lower()]
    line = f"pip install {' '.join(named)}" if named else "pip install the package that it names"
    return MissingExtraError(f"{place}: its tokenizer needs a package that is not there: {error} Type: {line}")


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Write tokenizer.json without padding and truncation: the manifest has the length."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(backend.to_str(pretty=False), encoding="utf-8")


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Any]) -> list[npt.NDArray[np.int64]]:
    """Ids (S,) of each text, or pair, special tokens included, cut at the model's length.

    A pair goes in as one of a batch: as two arguments, an empty second text would be dropped.
    """
    truncation = "longest_first" if tokenizer.model_max_length < NO_LIMIT else False
    given = ([text if isinstance(text, str) else list(text)] for text in texts)
    ids = [tokenizer(batch, truncation=truncation, verbose=False)["input_ids"][0] for batch in given]
    return [np.asarray(row, dtype=np.int64) for row in ids]
