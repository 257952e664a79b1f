"""The manifest, `trivec.json`: everything the runtime needs to know about a model, nothing it has to guess.

An *encoder* is a tokenizer with the graph variants that share it. A *route* takes an encoder's token embeddings to
vectors: pooling and steps to one dense vector a text, a `sparse` head to weights of vocabulary terms, a `multi` head to
one vector a token; or its logits to the scores of a pair of texts, by a `score` head. A plain model has one encoder and
one route; a sentence-transformers `Router` becomes several routes, over one shared encoder or over several.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trivec._errors import InputError

FORMAT = 2
"""The latest format. 2 has templates, which a reader of 1 would leave out; whatever needs nothing new is still 1."""
FILE_NAME = "trivec.json"
POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
PRECISIONS = ("fp32", "fp16", "int8")
"""Of a graph's weights."""
LOADED_PRECISIONS = ("fp32", "bf16", "fp16", "int8")
"""What `load` takes: bf16 is computed with the weights of fp32."""
ROWS, PACKED, PADDED = "rows", "packed", "padded"
"""What a graph reads: texts of one length, texts end to end, texts of any lengths padded."""
LAYOUTS = (ROWS, PACKED, PADDED)
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
LATE_SIMILARITIES = ("maxsim", "meanmaxsim")
"""Of texts with a vector for each token: the sum, or mean, over the query's vectors of the largest dot product with one
of the document's (Khattab & Zaharia 2020, equation 3)."""
EVERY_SIMILARITY = (*SIMILARITIES, *LATE_SIMILARITIES)
ACTIVATIONS = ("identity", "tanh", "relu", "gelu", "sigmoid", "silu", "leaky_relu", "elu", "softplus", "mish")
STEPS = ("dense", "layer_norm", "normalize")
SPARSE_KINDS = ("splade", "table", "lexical")
SPARSE_ACTIVATIONS = ("relu", "log1p_relu", "none")


@dataclass(frozen=True)
class FileRef:
    """A file of the model folder, by its path relative to the folder."""

    path: str
    bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Variant:
    """One precision of an encoder's graph."""

    files: tuple[FileRef, ...]
    """The graph first, then the external data beside it."""
    inputs: tuple[str, ...] = ()
    """Graph inputs; empty where the folder has no manifest: asked of the session then."""
    output: str = ""
    """The output that dense vectors are made of: token embeddings (B, S, H), or `sentence_embedding` (B, D)."""
    opset: int | None = None
    needs: tuple[str, ...] = ()
    """Kinds of device that may run it ("cpu", "cuda"); empty: any."""
    gate: Mapping[str, Any] | None = None
    """Parity figures against the torch reference; None: no gate on record."""
    rungs: Mapping[str, Any] | None = None
    """int8: how many linear layers have static ranges ("static"), and the names of those that have a scale for each row
    ("by_row") or stayed float32 ("fp32")."""
    layout: str = "rows"
    """How texts lie in the inputs: `rows` of one length (B, S); `packed` end to end in one row (1, T); or `padded` to
    the longest of a batch, with their lengths (B,) beside them."""


@dataclass(frozen=True)
class Template:
    """A chat template around a text, or a pair, rendered at export: what comes before, between and after."""

    text: tuple[str, ...]
    """Before and after a text without a prompt; of pairs, between its two texts as well."""
    prompted: tuple[str, ...] | None = None
    """Before the prompt, between the prompt and the text, and so on; None: it takes no prompt."""
    strip: bool = False
    """Whether blanks at the ends of texts and prompts go, as many templates have it."""
    last_ids: tuple[int, ...] = ()
    """Tokens that end every message: where a text is cut, they replace the last ones that are left."""


@dataclass(frozen=True)
class EncoderSpec:
    """A tokenizer and the graph variants that read its ids."""

    tokenizer: FileRef
    max_seq_length: int | None
    """Tokens a text is cut to, special tokens included; None: no limit."""
    max_positions: int | None
    """Tokens that the graph can read at most; None: no limit."""
    variants: Mapping[str, Variant]
    """Empty where routes need the ids alone (a table of weights), and no graph."""
    truncation_side: str = "right"
    lower_case: bool = False
    """Lower-case before the tokenizer's own normalizer (sentence-transformers' do_lower_case)."""
    special_ids: tuple[int, ...] = ()
    """The tokenizer's special ids: they decide how many tokens a prompt has."""
    add_special_tokens: bool = True
    """Whether a text is wrapped in the tokenizer's special tokens, such as [CLS] and [SEP]."""
    template: Template | None = None
    """What stands around each text; None: nothing but special tokens."""
    attention: str = "fused"
    """How the graph's attention is written: "fused", one node a layer, or "plain", as the model's own code has it."""
    cuda: Variant | None = None
    """fp16 for CUDA alone, packed or padded, over the weights of the fp16 variant; None: there is none."""


@dataclass(frozen=True)
class Pooling:
    """Token embeddings (B, S, H) to (B, H * modes), as sentence-transformers' Pooling."""

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True


@dataclass(frozen=True)
class Step:
    """What follows pooling: `dense`, `layer_norm` or `normalize`; arrays are looked up as `<arrays>.weight`, ..."""

    kind: str
    arrays: str = ""
    activation: str = "identity"
    residual: bool = False
    epsilon: float = 1e-5


@dataclass(frozen=True)
class Sparse:
    """How a route comes to weights of vocabulary terms."""

    kind: str
    """`splade`: `output` (B, V) holds logits pooled over the tokens. `lexical`: `output` (B, S) holds a weight for each
    token of the text; the largest counts. `table`: array `array` (V,) holds a weight for each term; no graph runs."""
    dim: int
    """Terms of the vocabulary, V."""
    output: str = ""
    activation: str = "none"
    """What SpladePooling applies after its pooling: "relu" is log1p(relu(x)), "log1p_relu" log1p of that."""
    array: str = ""
    dropped_ids: tuple[int, ...] = ()
    """Tokens that never count, such as <s> and </s>."""


@dataclass(frozen=True)
class Expansion:
    """What queries are filled up with (ColBERT's query augmentation, Khattab & Zaharia 2020, section 3.2)."""

    token_id: int
    """Put behind a query, again and again."""
    length: int
    """Tokens that a query then has at least, special ones included."""
    attended: bool = False
    """Whether the query's tokens see those behind it. Where not, nobody does; each of them sees the query."""
    exact: bool = True
    """Whether longer queries are cut to this length."""


@dataclass(frozen=True)
class Multi:
    """How a route comes to one vector a token (ColBERT)."""

    output: str
    """Of the graph: (B, S, D)."""
    dim: int
    skip: int = 1
    """Leading tokens without a vector."""
    normalize: bool = True
    prefix_ids: tuple[int, ...] = ()
    """What stands before every text, behind its first special tokens: the mark of a query, or of a document."""
    expansion: Expansion | None = None
    """What texts are filled up with; None: with nothing."""
    dropped_ids: tuple[int, ...] = ()
    """Tokens without a vector, such as punctuation."""


@dataclass(frozen=True)
class Score:
    """How a route comes to the scores of a pair of texts."""

    output: str
    """Of the graph: logits (B, L)."""
    labels: tuple[str, ...]
    """What each of the L numbers is of; of one, its name says nothing: it is a relevance."""
    activation: str = "identity"
    """What `predict` makes of the logits where a call says nothing, by its name in ACTIVATIONS."""


@dataclass(frozen=True)
class Route:
    """From texts to vectors, or pairs to scores: which encoder, how pooled, what follows, which further heads."""

    encoder: str = "main"
    pooling: Pooling | None = Pooling()
    """None: the graph's output is already one vector a text, or the route has no dense vectors."""
    steps: tuple[Step, ...] = ()
    sparse: Sparse | None = None
    multi: Multi | None = None
    score: Score | None = None
    max_seq_length: int | None = None
    """Tokens a text is cut to, what stands before it included; None: the encoder's."""

    @property
    def gives_dense(self) -> bool:
        """Whether it has one dense vector a text."""
        return self.pooling is not None or (self.sparse is None and self.multi is None and self.score is None)

    @property
    def interacts_late(self) -> bool:
        """Whether vectors of tokens are all that it gives."""
        return self.multi is not None and self.pooling is None and self.sparse is None


@dataclass(frozen=True)
class Origin:
    """What an export was made of, to the byte, and whose it is."""

    name: str
    revision: str | None
    """The commit on the Hub; None: it was a local folder."""
    files: Mapping[str, str]
    """sha256 of each file, by its path."""
    license: str | None = None
    """As its card says, like `base_model`."""
    base_model: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """A model folder's description."""

    family: str
    dim: int | None
    """Width of a vector before any truncation, or scores of a pair; None where the folder has no manifest: asked of the
    graph then."""
    encoders: Mapping[str, EncoderSpec]
    routes: Mapping[str, Route]
    default_route: str | None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"
    truncate_dim: int | None = None
    max_active_dims: int | None = None
    """Terms that a sparse row keeps at most; None: all."""
    arrays: FileRef | None = None
    name: str | None = None
    """What its maker calls the model, as `version` does; both are said, and decide nothing."""
    version: str | None = None
    card: FileRef | None = None
    """The checkpoint's own card (README.md), as it is."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Of the checkpoint: its name and revision, and how the export has read and judged it."""
    origins: tuple[Origin, ...] = ()
    """The checkpoint, then the models that its adapters were merged into."""
    command: str | None = None
    """What made it, without what no file depends on: where it was written, paths of that machine, tokens."""
    tools: Mapping[str, str] = field(default_factory=dict)
    """Versions of the packages that made it."""
    format: int = 1

    def every_file(self) -> list[FileRef]:
        """Every file that any precision needs, each once, and the card."""
        found = {ref.path: ref for precision in PRECISIONS for ref in self.files(precision)}
        return [*found.values(), *([] if self.card is None else [self.card])]

    def files(self, precision: str) -> list[FileRef]:
        """Every file that one precision of the model needs, each once; with fp16 the graphs for CUDA."""
        found: dict[str, FileRef] = {}
        for encoder in self.encoders.values():
            variants = [encoder.variants[precision]] if precision in encoder.variants else []
            variants += [encoder.cuda] if precision == "fp16" and encoder.cuda is not None else []
            refs = (encoder.tokenizer, *(ref for variant in variants for ref in variant.files))
            found.update({ref.path: ref for ref in refs})
        if self.arrays is not None:
            found[self.arrays.path] = self.arrays
        return list(found.values())

    def precisions(self) -> list[str]:
        """The precisions that every encoder with a graph has."""
        graphs = [encoder for encoder in self.encoders.values() if encoder.variants]
        return [p for p in LOADED_PRECISIONS if graphs and all(p in encoder.variants for encoder in graphs)]


def similarity_name(value: object, known: tuple[str, ...] = SIMILARITIES) -> str:
    """The name of a similarity, of which sentence-transformers' SimilarityFunction is another form.

    Raises:
        InputError: it is none.
    """
    name = getattr(value, "value", value)
    if name not in known:
        raise InputError(f"similarity_fn_name {name!r} is not one of {', '.join(known)}.")
    return str(name)
