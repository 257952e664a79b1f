"""A chat template, rendered at export into what comes before, between and after: the runtime needs no Jinja."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from trivec._errors import ModelFormatError
from trivec._model.manifest import Template
from trivec_export._temporary import quiet

_TEXT, _PROMPT = "\ue000text\ue001", "\ue002prompt\ue003"  # of the private use area: no template has them
_SAMPLES = ("a", "two words", "line\nline", "{{ braces }} <|im_start|> % \\n", "日本語 🙂")


def read_template(tokenizer: PreTrainedTokenizerBase, how: Mapping[str, Any], model_type: str, name: str) -> Template:
    """The pieces that stand around a text and a prompt in the tokenizer's chat template.

    The text is the user's message, a prompt the system's, as sentence-transformers makes them
    (`InputFormatter.to_message`, `prepend_prompt_to_messages`).

    Args:
        tokenizer: with its chat template.
        how: `format` of messages ("flat", "structured" or "auto") and the template's own `arguments`.
        model_type: of config.json: some types want one kind of messages.
        name: of the checkpoint, for messages.

    Raises:
        ModelFormatError: there is no template, it cannot be rendered, or it changes the text itself.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise ModelFormatError(f"{name}: its texts go through a chat template, and its tokenizer has none.")
    arguments = {key: value for key, value in how["arguments"].items() if key != "restore_suffix"}
    structured = _is_structured(tokenizer, how["format"], model_type)

    def render(text: str, prompt: str = "") -> str:
        parts = [("system", prompt)] if prompt else []
        messages = [
            {"role": role, "content": [{"type": "text", "text": said}] if structured else said}
            for role, said in (*parts, ("user", text))
        ]
        try:
            with quiet():
                return str(tokenizer.apply_chat_template(messages, tokenize=False, **arguments))
        except Exception as error:  # Jinja's own, and whatever a template raises
            raise ModelFormatError(
                f"{name}: its chat template cannot be rendered with {'a prompt' if prompt else 'a text'} ({error}). "
                "Use sentence-transformers for this model."
            ) from error

    strip = render("  a ") == render("a")
    text, prompted = render(_TEXT), _prompted(render)
    if text.count(_TEXT) != 1:
        raise ModelFormatError(f"{name}: its chat template does not hold the text once: {text[:200]!r}.")
    before, _, after = text.partition(_TEXT)
    template = Template((before, after), prompted, strip, _last_ids(tokenizer, render, how))
    for sample in _SAMPLES:
        if render(sample) != before + sample + after or (
            prompted and render(sample, "a prompt") != prompted[0] + "a prompt" + prompted[1] + sample + prompted[2]
        ):
            raise ModelFormatError(f"{name}: its chat template changes the text {sample!r}. Use sentence-transformers.")
    return template


def _prompted(render: Any) -> tuple[str, str, str] | None:  # noqa: ANN401 - a function
    """What stands around a prompt and a text; None where the template takes no system message."""
    try:
        rendered: str = render(_TEXT, _PROMPT)
    except ModelFormatError:
        return None
    if rendered.count(_TEXT) != 1 or rendered.count(_PROMPT) != 1 or rendered.index(_PROMPT) > rendered.index(_TEXT):
        return None
    before, _, rest = rendered.partition(_PROMPT)
    between, _, after = rest.partition(_TEXT)
    return before, between, after


def _is_structured(tokenizer: PreTrainedTokenizerBase, given: str, model_type: str) -> bool:
    """Whether messages are lists of typed parts: as given, else as sentence-transformers infers it."""
    if given in ("structured", "flat"):
        return given == "structured"
    from sentence_transformers.base.modality import InputFormatter

    inferred = InputFormatter(model_type=model_type, message_format="auto", processor=tokenizer).message_format
    return bool(inferred == "structured")


def _last_ids(tokenizer: PreTrainedTokenizerBase, render: Any, how: Mapping[str, Any]) -> tuple[int, ...]:  # noqa: ANN401
    """The tokens that end every message, as `Transformer._chat_template_suffix_ids` finds them."""
    if not how["arguments"].get("restore_suffix", True):
        return ()
    first, second = (tokenizer(render(filler), add_special_tokens=False)["input_ids"] for filler in ("0", "1 2 3 4"))
    count = 0
    for left, right in zip(reversed(first), reversed(second), strict=False):
        if left != right:
            break
        count += 1
    return tuple(first[len(first) - count :]) if 0 < count < min(len(first), len(second)) else ()
