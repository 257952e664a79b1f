"""What every encoder of texts has: what it gives of them, `represent`, `encode_iter`, similarities."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from trivec._encoders.calls import Call, Ready, RowCall, Side, defaults_of, known_options
from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import Pipeline
from trivec._encoders.row_model import RowModel
from trivec._encoders.windows import stream
from trivec._errors import InputError
from trivec._model.families import FAMILIES
from trivec._model.manifest import Manifest, similarity_name
from trivec._pooling.heads import Selection, Wanted
from trivec._tokens.inputs import as_texts
from trivec._vectors.heads import Head, HybridVectors, record_of
from trivec._vectors.rows import Vectors
from trivec._vectors.scores import all_pairs, side_by_side

V = TypeVar("V")
_CALLED = ("embeddings1", "embeddings2")
SIDES: Mapping[Side, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""The prompts of each side of a search, by the names that models give them; the first that is there counts."""


class TextEncoder(RowModel[V]):
    """Texts to vectors. A kind adds `encode`, `encode_query`, `encode_document`, `fingerprint_of`, `_call`, `_formed`.

    The two sides of `encode` are not declared here: pyright would take this declaration for theirs.
    """

    encode: Callable[..., Any]

    def __init__(self, manifest: Manifest, pipelines: Mapping[str, Pipeline], options: LoadOptions) -> None:
        super().__init__(manifest, pipelines, options)
        self._dim = int(manifest.dim or 0)
        self.similarity_fn_name = options.similarity_fn_name

    # ---- what it gives -------------------------------------------------------------------------------------------

    @property
    def heads(self) -> tuple[Head, ...]:
        """The representations that this model has of a text: some of "dense", "sparse", "colbert"."""
        multi = any(route.multi is not None for route in self.manifest.routes.values())
        return tuple(head for head in FAMILIES[self.manifest.family].heads if head != "colbert" or multi)

    @property
    def dim(self) -> int:
        """Numbers in a vector, or terms of a sparse row."""
        return self._dim

    def get_embedding_dimension(self) -> int:
        """`dim`, under sentence-transformers' name."""
        return self.dim

    get_sentence_embedding_dimension = get_embedding_dimension

    def represent(
        self,
        inputs: str | Iterable[str],
        heads: Sequence[str] | None = None,
        *,
        whole: bool = False,
        **options: Any,  # noqa: ANN401 - those of `encode`
    ) -> HybridVectors:
        """What any kind of encoder gives, in one kind of record: so a caller need not ask which it has.

        Args:
            inputs: one text, or any iterable of texts.
            heads: some of `heads`; None: all of them. What is not asked for is not computed.
            whole: cut off nothing: every number of a dense vector, every term of a sparse row.
            options: of this encoder's `encode`; `encode_options` names them.

        Returns:
            dense (N, D), sparse and colbert; None for what was not asked for.

        Raises:
            InputError: a head that this model does not have. Whatever `encode` raises.
        """
        multi = self.route(options.get("task")).multi is not None
        have = tuple(head for head in self.heads if head != "colbert" or multi)
        asked = have if heads is None else tuple(heads)
        if not asked or not set(asked) <= set(have):
            raise InputError(f"heads {list(asked)}: expected some of {', '.join(have)}.")
        uncut = self._uncut(options.get("task")) if whole else {}
        return self._recorded(self.encode(inputs, **{**self._returning(asked), **uncut, **options}))

    def check_call(self, heads: Sequence[str] | None = None, **options: Any) -> None:  # noqa: ANN401
        """Raise where an option of `represent` has a wrong value; nothing is encoded."""
        self._call(**{**self.encode_options(), **self._returning(self.heads if heads is None else heads), **options})

    @classmethod
    def encode_options(cls) -> Mapping[str, Any]:
        """The options of `encode` beside the texts, with their defaults."""
        return defaults_of(cls.encode)

    def encode_iter(self, texts: Iterable[str], *, window: int = 1024, **options: Any) -> Iterator[V]:  # noqa: ANN401
        """Encode any number of texts in bounded memory: yields what `encode` gives of up to `window` texts, in order.

        A window is tokenized while the one before it is encoded, so `texts` is read one window ahead. Where a text or
        the source of the texts fails, the blocks before it come first. The options are those of `encode`.
        """
        call = self._call(**known_options(self.encode_options(), options, "encode_iter"))
        return self._windows(stream(texts, window), window, call, lambda part: as_texts(part, None)[0])

    def tokenize(self, texts: str | Iterable[str], *, prompt: str = "", task: str | None = None) -> list[list[int]]:
        """Token ids of each text as the model reads them: behind the prompt, cut at max_seq_length."""
        listed, _ = as_texts(texts, None)
        tokens = self.route(task).tokenizer(listed, self.prompt_text(prompt, task=task))
        return [tokens.of(row).tolist() for row in range(len(listed))]

    # ---- rows of token ids, for whoever gathers those of many callers --------------------------------------------

    def row_call(
        self, heads: Sequence[Head], *, prompt: str = "", task: str | None = None, states: bool = False
    ) -> RowCall:
        """What `run_rows` is to make of rows: these heads, uncut; `states` are vectors of all tokens for "colbert".

        Raises:
            InputError: a task that the model does not have.
        """
        select = Selection() if "sparse" in heads else None
        wanted = Wanted("dense" in heads, select, "colbert" in heads and not states, states)
        route = self._route(task)
        return RowCall(route, wanted, self._open()[route].prompt_length(prompt) if wanted.dense else 0)

    def read_rows(self, texts: Sequence[str], *, prompt: str = "", task: str | None = None) -> Ready:
        """Texts tokenized, each that differs once.

        Raises:
            InputError: a text holds a lone surrogate (its index is named), or the prompt cannot be used.
        """
        return self._ready(texts, Call(self._route(task), self.prompt_text(prompt, task=task), Wanted(), 1, "truncate"))

    # ---- similarity ----------------------------------------------------------------------------------------------

    @property
    def similarity_fn_name(self) -> str:
        """How `similarity` compares: "cosine", "dot", "euclidean" or "manhattan".

        Can be set, to a SimilarityFunction of sentence-transformers as well; None is the model's own. InputError where
        it is none.
        """
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: object) -> None:
        known = FAMILIES[self.manifest.family].similarities
        self._similarity_fn_name = self.manifest.similarity if value is None else similarity_name(value, known)

    def similarity(self, embeddings1: Vectors, embeddings2: Vectors) -> Any:  # noqa: ANN401
        """Each vector against each, by `similarity_fn_name`: `cos_sim` of `trivec.util`, or its like.

        Args:
            embeddings1: (N, D) or (D,), dense or sparse: see `trivec.util` for what vectors may be.
            embeddings2: (M, D) or (D,).

        Returns:
            (N, M) float32; float64 where float64 came. A torch tensor where an argument is one.

        Raises:
            InputError: no vectors, other widths, or a number that is not finite (its row is named).
        """
        return all_pairs(self.similarity_fn_name, embeddings1, embeddings2, _CALLED)

    def similarity_pairwise(self, embeddings1: Vectors, embeddings2: Vectors) -> Any:  # noqa: ANN401
        """Row i against row i: (N,), or a number of (D,) and (D,); all else is as of `similarity`."""
        return side_by_side(self.similarity_fn_name, embeddings1, embeddings2, _CALLED)

    # ---- prompts -------------------------------------------------------------------------------------------------

    def prompt_name_of(self, side: Side) -> str | None:
        """The prompt that `encode_query` or `encode_document` takes where a call gives none; None: there is none."""
        return next((name for name in SIDES[side] if name in self.prompts), None)

    def __repr__(self) -> str:
        state = "closed" if self._pipelines is None else self.device
        return f"{type(self).__name__}({self._options.name!r}, dim={self._dim}, {self.precision}, {state})"

    # ---- what a kind of encoder says -----------------------------------------------------------------------------

    def _returning(self, heads: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """Options with which `encode` gives these heads."""
        return {}

    def _recorded(self, vectors: Any) -> HybridVectors:  # noqa: ANN401 - what `encode` gives
        """What `encode` gives of one text or several, as a record."""
        return record_of(vectors)

    def _uncut(self, task: str | None) -> dict[str, Any]:  # noqa: ARG002
        """Options with which `encode` cuts nothing off."""
        return {}

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "similarity_fn_name": self.similarity_fn_name}
