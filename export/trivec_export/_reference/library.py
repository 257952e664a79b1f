"""sentence-transformers on the untouched folder: the reference that is no reading of ours.

Its token ids, its vectors and what each of its modules makes of a text. Texts of equal numbers of tokens run together,
so that padding decides nothing.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sentence_transformers
import torch
import transformers
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Router
from torch import Tensor, nn

from trivec._errors import ModelFormatError, NonFiniteError
from trivec._model.checkpoint import Checkpoint
from trivec._model.modules import TransformerSpec
from trivec._tokens.plan import plan
from trivec._vectors.arrays import Floats
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors
from trivec_export._checkpoint.tokenizer import add_special_tokens, settings_of
from trivec_export._temporary import Swaps, quiet

NAME = f"sentence-transformers {sentence_transformers.__version__}"
Ids = list[npt.NDArray[np.int64]]
_TOKENS = 4096  # a run holds up to so many
_NUMBERS = 1 << 25  # logits that a run makes: 128 MB
_AT_ONCE = 64  # texts that are tokenized at once


def reference_name(checkpoint: Checkpoint, library: "Library | None") -> str:
    """What the vectors of an export are compared with, for the manifest and for people."""
    ours = f"transformers {transformers.__version__}, own reading of"
    heads = "sparse_linear.pt and colbert_linear.pt"
    if library is not None:
        return f"{NAME} (dense); {ours} {heads}" if checkpoint.family == "bge-m3" else NAME
    what = {"mgte": "the token classifier", "bge-m3": heads}.get(checkpoint.family, "its published layout")
    return f"{ours} {what}"


class Stage(NamedTuple):
    """What a module made of one text."""

    name: str
    value: Floats
    """(S, H) of tokens, or (D,) of the text."""


class Library:
    """A checkpoint as sentence-transformers has it, in float32 on the CPU; loaded when it is asked for something."""

    def __init__(
        self,
        folder: Path,
        *,
        sparse: bool,
        pairs: bool = False,
        late: bool = False,
        trust_remote_code: bool = False,
        prompt_left_out: bool = False,
        run_in: Path | None = None,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            folder: the checkpoint.
            sparse: whether it is a SparseEncoder.
            pairs: whether it is a CrossEncoder; what is said of texts here is then of pairs, and of vectors, of logits.
            late: whether it is a MultiVectorEncoder.
            trust_remote_code: run its own code.
            prompt_left_out: leave the prompt out of the pooling, as it does by the name of the repository.
            run_in: where a SparseStaticEmbedding looks for its file; None: in the folder.
        """
        self._folder, self._sparse, self._trusted = folder.resolve(), sparse, trust_remote_code
        self._pairs, self._late = pairs, late
        self._output = "scores" if pairs else "sentence_embedding"
        self.marks: Mapping[str, str] = {}
        """By route, what stands before a prompt there and is no prompt here: a late-interaction model's mark."""
        self._run_in = self._folder if run_in is None else run_in.resolve()
        self._prompt_left_out = prompt_left_out
        self._model: Any = None
        self._corrections: list[TransformerSpec] = []
        self._padding: dict[str, Any] = {}
        self._limit: int | None = None

    @property
    def model(self) -> Any:  # noqa: ANN401 - sentence-transformers has no types that hold
        """The SentenceTransformer, SparseEncoder, CrossEncoder or MultiVectorEncoder.

        Raises:
            ModelFormatError: it cannot be loaded.
        """
        if self._model is None:
            self._model = self._load()
            for spec in self._corrections:
                self._add_tokens(spec)
        return self._model

    def release(self) -> None:
        """Give the model's memory back; the next question loads it again."""
        self._model = None

    def _load(self) -> Any:  # noqa: ANN401
        kind = CrossEncoder if self._pairs else SparseEncoder if self._sparse else SentenceTransformer
        kind = MultiVectorEncoder if self._late else kind
        with _quiet(), contextlib.chdir(self._run_in):
            try:
                model = kind(
                    str(self._folder),
                    device="cpu",
                    trust_remote_code=self._trusted,
                    local_files_only=True,
                    model_kwargs={"dtype": torch.float32},
                )
            except Exception as error:
                raise ModelFormatError(
                    f"{NAME}, whose vectors an export is compared with, cannot load {self._folder}: "
                    f"{type(error).__name__}: {error}"
                ) from error
        if self._prompt_left_out:  # it goes by the name of the repository, and this is a folder
            model.set_pooling_include_prompt(False)
        return model.eval()

    def put_right(self, spec: TransformerSpec, padded_to: int | None = None, limit: int | None = None) -> None:
        """Add the special tokens that the files ask for, pad texts as the model needs it, cut them at its positions."""
        self._corrections.append(spec)
        self._limit = limit
        if padded_to is not None:
            text = {"padding": "max_length", "max_length": padded_to}
            self._padding = {"processing_kwargs": {"text": text}}
        if self._model is not None:
            self._add_tokens(spec)

    def _add_tokens(self, spec: TransformerSpec) -> None:
        place = self._folder / spec.folder
        for module in self._model.modules():
            tokenizer: Any = getattr(module, "tokenizer", None)
            if module is not self._model and getattr(tokenizer, "backend_tokenizer", None) is not None:
                add_special_tokens(tokenizer, settings_of(place, spec.tokenizer_kwargs), place)
                if self._limit is not None:
                    tokenizer.model_max_length = min(tokenizer.model_max_length, self._limit)
                    for name in ("query_length", "document_length"):
                        if getattr(module, name, None) is not None:
                            setattr(module, name, min(getattr(module, name), self._limit))

    def activation(self) -> str:
        """The class of torch.nn by which a CrossEncoder makes scores of logits."""
        return type(self.model.activation_fn).__name__

    def prompt(self, name: str) -> str:
        """What it puts before a text by the prompt of that name; "" for nothing."""
        return str(self.model.prompts.get(name) or "")

    def ids(self, texts: Sequence[Any], task: str | None, prompt: str = "") -> Ids:
        """Token ids (S,) of each text, special tokens included, cut at the model's length."""
        found: Ids = []
        with _quiet():
            probe = ("a", "a") if self._pairs else "a"
            at_once = _AT_ONCE if "attention_mask" in self._features([probe], task, prompt) else 1
            for start in range(0, len(texts), at_once):
                features = self._features(list(texts[start : start + at_once]), task, prompt)
                ids = features["input_ids"]  # (B, S)
                mask = features.get("attention_mask", torch.ones_like(ids))  # (B, S)
                mask = mask.bool() | features.get("query_expansion_positions", torch.zeros_like(ids)).bool()
                found += [row[kept].numpy().astype(np.int64) for row, kept in zip(ids, mask, strict=True)]
        return found

    def vectors(self, texts: Sequence[Any], ids: Ids, task: str | None, prompt: str = "") -> HybridVectors:
        """What it makes of each text, nothing cut off: dense (N, D), sparse rows, or vectors of tokens."""
        if self._late:
            return HybridVectors(colbert=self._token_vectors(texts, ids, task, prompt))
        width = self.model.get_embedding_dimension() if self._sparse else 1
        most = max(1, _NUMBERS // (width * 64)) if self._sparse else None
        order: list[npt.NDArray[np.intp]] = []
        rows: list[Tensor] = []
        with _quiet(), torch.inference_mode():
            for chosen in plan([len(row) for row in ids], max(1, min(_TOKENS, _NUMBERS // width)), most):
                made = self._run([texts[i] for i in chosen], task, prompt)[self._output]  # (B, D)
                made = made.to_dense() if made.is_sparse else made
                check_finite(torch.isfinite(made).all(1).numpy(), [texts[i] for i in chosen])
                rows.append(made.to_sparse() if self._sparse else made)
                order.append(np.asarray(chosen))
        back = np.argsort(np.concatenate(order))
        if not self._sparse:
            return HybridVectors(dense=torch.cat(rows).float().numpy()[back])
        return HybridVectors(sparse=_sparse_rows(rows)[back])

    def _token_vectors(self, texts: Sequence[Any], ids: Ids, task: str | None, prompt: str) -> MultiVectors:
        """The vectors of each text's tokens that its mask keeps."""
        found: list[Floats] = [np.zeros((0, 1), dtype=np.float32)] * len(texts)
        with _quiet(), torch.inference_mode():
            for chosen in plan([len(row) for row in ids], _TOKENS):
                made = self._run([texts[i] for i in chosen], task, prompt)
                kept = made["attention_mask"].bool()  # (B, S)
                rows = [row[mask] for row, mask in zip(made["token_embeddings"], kept, strict=True)]  # (t, D) each
                finite = np.array([bool(torch.isfinite(row).all()) for row in rows])
                check_finite(finite, [texts[i] for i in chosen])
                for i, row in zip(chosen, rows, strict=True):
                    found[i] = row.float().numpy()
        return MultiVectors.from_arrays(found)

    def stages(self, text: str, task: str | None) -> list[Stage]:
        """What each module makes of one text, in order."""
        found: list[Stage] = []

        def keep(module: nn.Module, _: object, features: Mapping[str, Any]) -> None:
            value = features.get("sentence_embedding", features.get("token_embeddings"))
            if isinstance(value, Tensor):
                value = value.to_dense() if value.is_sparse else value
                found.append(Stage(type(module).__name__, value[0].float().numpy().copy()))

        hooks = [module.register_forward_hook(keep) for module in self._modules(task)]
        try:
            with _quiet(), torch.inference_mode():
                self._run([text], task, "")
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def _modules(self, task: str | None) -> Iterator[nn.Module]:
        """The modules that a text goes through."""
        for module in self.model.children():
            if not isinstance(module, Router):
                yield module
                continue
            route = module._resolve_route_name(task, "text") if hasattr(module, "_resolve_route_name") else task
            yield from module.sub_modules[route or next(iter(module.sub_modules))]

    def _features(self, texts: list[Any], task: str | None, prompt: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        """Texts as the first module takes them."""
        prompt = self.marks.get(task or "", "") + prompt
        features: dict[str, Any] = self.model.preprocess(texts, prompt=prompt or None, task=task, **options)
        return features

    def _run(self, texts: list[Any], task: str | None, prompt: str) -> dict[str, Any]:
        """Texts through all modules."""
        try:
            made: dict[str, Any] = self.model(self._features(texts, task, prompt, **self._padding), task=task)
        except Exception as error:
            raise ModelFormatError(
                f"{NAME} cannot encode the text {texts[0]!r:.80} with {self._folder}: {error}. "
                "An index out of range is a token beyond the model's table: the tokenizer has more tokens than it."
            ) from error
        return made


def check_finite(finite: npt.NDArray[np.bool_], texts: Sequence[Any]) -> None:
    """Raise NonFiniteError for the first text whose vector is not finite, by flags (N,)."""
    if not finite.all():
        text = texts[int(finite.argmin())]
        raise NonFiniteError(
            f"torch itself gives NaN or infinity for the text {text!r:.80}: the checkpoint's weights are damaged."
        )


def _sparse_rows(blocks: Sequence[Tensor]) -> SparseVectors:
    """Sparse COO tensors (B, V) as the rows of one matrix."""
    made = []
    for block in blocks:
        rows = block.coalesce()
        indices, values = rows.indices().numpy(), rows.values().float().numpy()  # (2, nnz), (nnz,)
        indptr = np.searchsorted(indices[0], np.arange(rows.shape[0] + 1))
        made.append(SparseVectors(indptr.astype(np.int64), indices[1].astype(np.int32), values, int(rows.shape[1])))
    return SparseVectors.concatenate(made)


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither its progress bars nor what it says on loading."""
    with quiet(), Swaps() as swaps:
        swaps.environment("TQDM_DISABLE", "1")
        yield
