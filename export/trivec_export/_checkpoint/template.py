"""A chat template, rendered at export into what comes before, between and after: the runtime needs no Jinja."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from trivec._errors import ModelFormatError
from trivec._model.manifest import Template
from trivec._tokens.tokenizer import rendered
from trivec_export._temporary import quiet

# of the private use area: no template has them
_TEXTS, _PROMPT = ("\ue000text\ue001", "\ue000other\ue001"), "\ue002prompt\ue003"
_SAMPLES = ("a", "two words", "line\nline", "{{ braces }} <|im_start|> % \\n", "日本語 🙂", "")
_Render = Callable[[Sequence[str], str], str]


def read_template(
    tokenizer: PreTrainedTokenizerBase, how: Mapping[str, Any], model_type: str, name: str, *, pairs: bool = False
) -> Template:
    """The pieces that stand around a text, or a pair, and a prompt in the tokenizer's chat template.

    The text is the user's message, the texts of a pair those of roles "query" and "document", a prompt the system's,
    as sentence-transformers makes them (`InputFormatter.to_message`, `pair_to_messages`, `prepend_prompt_to_messages`).

    Args:
        tokenizer: with its chat template.
        how: `format` of messages ("flat", "structured" or "auto") and the template's own `arguments`.
        model_type: of config.json: some types want one kind of messages.
        name: of the checkpoint, for messages.
        pairs: whether it is pairs that go through it.

    Raises:
        ModelFormatError: there is no template, it cannot be rendered, it changes the text itself, or it does not hold
            both texts of a pair, in their order.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise ModelFormatError(f"{name}: its texts go through a chat template, and its tokenizer has none.")
    arguments = {key: value for key, value in how["arguments"].items() if key != "restore_suffix"}
    structured = _is_structured(tokenizer, how["format"], model_type)
    roles = ("query", "document") if pairs else ("user",)

    def render(texts: Sequence[str], prompt: str) -> str:
        parts = [("system", prompt)] if prompt else []
        messages = [
            {"role": role, "content": [{"type": "text", "text": said}] if structured else said}
            for role, said in (*parts, *zip(roles, texts, strict=True))
        ]
        try:
            with quiet():
                return str(tokenizer.apply_chat_template(messages, tokenize=False, **arguments))
        except Exception as error:  # Jinja's own, and whatever a template raises
            raise ModelFormatError(
                f"{name}: its chat template cannot be rendered with {'a prompt' if prompt else 'a text'} ({error}). "
                "Use sentence-transformers for this model."
            ) from error

    marks = _TEXTS[: len(roles)]
    blanks, bare = ["  a "] * len(roles), ["a"] * len(roles)
    strip = render(blanks, "") == render(bare, "")
    text = render(marks, "")
    pieces = _pieces(text, marks)
    if pieces is None:
        what = "both texts of a pair once, the query first" if pairs else "the text once"
        raise ModelFormatError(f"{name}: its chat template does not hold {what}: {text[:200]!r}.")
    template = Template(pieces, _prompted(render, marks), strip, _last_ids(tokenizer, render, how, len(roles)))
    for sample in (*_SAMPLES, "  a "):
        for texts in ([sample] * len(roles), [sample, "a"][: len(roles)], ["a", sample][: len(roles)]):
            for prompt in ("", "a prompt")[: 1 if template.prompted is None else 2]:
                if render(texts, prompt) != rendered(template, prompt, texts):
                    raise ModelFormatError(
                        f"{name}: its chat template changes the text {sample!r}. Use sentence-transformers."
                    )
    return template


def _pieces(rendered: str, marks: Sequence[str]) -> tuple[str, ...] | None:
    """What stands before, between and after the marks; None unless each is there once, in this order."""
    if any(rendered.count(mark) != 1 for mark in marks):
        return None
    found = []
    for mark in marks:
        before, mark_found, rendered = rendered.partition(mark)
        if not mark_found:
            return None
        found.append(before)
    return (*found, rendered)


def _prompted(render: _Render, marks: Sequence[str]) -> tuple[str, ...] | None:
    """What stands around a prompt and the texts; None where the template takes no system message."""
    try:
        return _pieces(render(marks, _PROMPT), (_PROMPT, *marks))
    except ModelFormatError:
        return None


def _is_structured(tokenizer: PreTrainedTokenizerBase, given: str, model_type: str) -> bool:
    """Whether messages are lists of typed parts: as given, else as sentence-transformers infers it."""
    if given in ("structured", "flat"):
        return given == "structured"
    from sentence_transformers.base.modality import InputFormatter

    inferred = InputFormatter(model_type=model_type, message_format="auto", processor=tokenizer).message_format
    return bool(inferred == "structured")


def _last_ids(
    tokenizer: PreTrainedTokenizerBase, render: _Render, how: Mapping[str, Any], count_of_texts: int
) -> tuple[int, ...]:
    """The tokens that end every message, as `Transformer._chat_template_suffix_ids` finds them."""
    if not how["arguments"].get("restore_suffix", True):
        return ()
    first, second = (
        tokenizer(render([filler] * count_of_texts, ""), add_special_tokens=False)["input_ids"]
        for filler in ("0", "1 2 3 4")
    )
    count = 0
    for left, right in zip(reversed(first), reversed(second), strict=False):
        if left != right:
            break
        count += 1
    return tuple(first[len(first) - count :]) if 0 < count < min(len(first), len(second)) else ()
