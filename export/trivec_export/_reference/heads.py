"""What a graph computes from token ids: token embeddings, pooled logits (SPLADE), BGE-M3's three outputs, or scores.

Each is a torch module around the loaded model: it is the reference, and it is what gets traced.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from trivec._errors import ModelFormatError
from trivec._model.derived import SENTENCE_OUTPUT
from trivec._model.late import TOKEN_VECTORS
from trivec._model.scores import SCORES
from trivec_export._checkpoint.weights import read_pickle

TOKEN_EMBEDDINGS = "token_embeddings"  # noqa: S105 - an output, no password
POOLED_LOGITS = "pooled_logits"
TOKEN_WEIGHTS = "token_weights"  # noqa: S105
COLBERT_VECS = "colbert_vecs"


class Head(nn.Module):
    """Token ids, and whatever else `inputs` names, to the outputs that `outputs` names."""

    inputs: tuple[str, ...] = ("input_ids",)
    outputs: tuple[str, ...] = ()

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        # A cache would only fill the graph with copies of keys and values.
        takes_cache = "use_cache" in inspect.signature(model.forward).parameters
        self.options = {"use_cache": False} if takes_cache else {}

    @property
    def config(self) -> PretrainedConfig:
        """Of the part that is traced."""
        return self.model.config

    @property
    def vocabulary(self) -> int:
        """Rows of the table of tokens."""
        count: int = self.model.get_input_embeddings().num_embeddings
        return count

    def first(self, input_ids: Tensor) -> Tensor:
        """(B, S) int64 to the model's own first output: hidden states (B, S, H), or logits (B, S, V).

        The mask of ones is what sentence-transformers passes for a batch without padding.
        """
        out = self.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), **self.options)
        return out[0]  # type: ignore[no-any-return]


class TokenEmbeddings(Head):
    """(B, S) to token embeddings (B, S, H)."""

    outputs = (TOKEN_EMBEDDINGS,)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, S) int64 -> (B, S, H) float32."""
        return self.first(input_ids)


class TextFeatures(Head):
    """The text tower of a model of texts and images (CLIP, SigLIP): one vector a text, (B, S) to (B, D).

    A SigLIP is trained on texts that are padded to one length, padding counts in its attention, and its vector is that
    of the last position. So the padding is part of the graph, and a vector does not depend on its batch.
    """

    outputs = (SENTENCE_OUTPUT,)

    def __init__(self, model: PreTrainedModel, padded_to: int | None, pad: int) -> None:
        super().__init__(model)
        self.padded_to, self.pad = padded_to, pad

    @property
    def config(self) -> PretrainedConfig:
        """The text tower's."""
        return self.model.config.get_text_config()

    @property
    def vocabulary(self) -> int:
        """Tokens of the text tower."""
        count: int = self.config.vocab_size
        return count

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, S) int64 -> (B, D) float32."""
        if self.padded_to is not None:
            input_ids = nn.functional.pad(input_ids, (0, self.padded_to - input_ids.shape[1]), value=self.pad)
        out = self.model.get_text_features(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))
        vector: Tensor = getattr(out, "pooler_output", out)
        return vector


def text_tower(model: PreTrainedModel, pad: int) -> TextFeatures:
    """The text tower, with its padding where the model has no mask: where padding behind a text changes its vector."""
    length = int(model.config.get_text_config().max_position_embeddings)
    plain, padded = TextFeatures(model, None, pad).eval(), TextFeatures(model, length, pad).eval()
    ids = torch.arange(4)[None] % plain.vocabulary  # (1, 4)
    with torch.no_grad():
        same = torch.allclose(plain(ids), padded(ids), rtol=1e-3, atol=1e-4)
    return plain if same else padded


class Scores(Head):
    """A classifier's logits of pairs: (B, S), and their token types where the model tells them apart, to (B, L)."""

    outputs = (SCORES,)

    def __init__(self, model: PreTrainedModel, *, types: bool) -> None:
        super().__init__(model)
        self.inputs = ("input_ids", "token_type_ids") if types else ("input_ids",)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """(B, S) int64, twice -> (B, L) float32."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        mask = torch.ones_like(input_ids)
        out = self.model(input_ids=input_ids, attention_mask=mask, **types, **self.options)
        logits: Tensor = out.logits
        return logits


class YesNo(Scores):
    """How much likelier one token is to come next than another: (B, S) to (B, 1), of a causal language model.

    As LogitScore of sentence-transformers, logits[:, -1, yes] - logits[:, -1, no], but with the rows of the head
    subtracted before they meet a text: no logits over the vocabulary are made.
    """

    def __init__(self, model: PreTrainedModel, yes: int, no: int | None) -> None:
        """Around the states of a language model.

        Raises:
            ModelFormatError: its head is no linear layer, or has no such tokens.
        """
        super().__init__(model.base_model, types=False)
        head = model.get_output_embeddings()
        rows = head.out_features if isinstance(head, nn.Linear) else 0
        if not isinstance(head, nn.Linear) or not max(yes, yes if no is None else no) < rows:
            raise ModelFormatError(
                f"{type(model).__name__}: its language-model head is {type(head).__name__} of {rows} tokens, and a "
                f"score is made of the logits of {yes} and {no}. Use sentence-transformers for this model."
            )
        weight, bias = head.weight.detach(), torch.zeros(rows) if head.bias is None else head.bias.detach()
        row, constant = weight[yes], bias[yes]  # (H,), ()
        if no is not None:
            row, constant = row - weight[no], constant - bias[no]
        self.row = linear(row[None].clone(), constant[None].clone())

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """(B, S) int64 -> (B, 1) float32."""
        scores: Tensor = self.row(self.first(input_ids)[:, -1])
        return scores


class PooledLogits(Head):
    """A masked language model's logits, pooled over the tokens: (B, S) to (B, V).

    As sentence-transformers' SpladePooling, but for "max" the activation is left to the runtime: it grows with the
    logit, so the maximum may be taken first, and then only the few positive numbers of a row need it.
    """

    outputs = (POOLED_LOGITS,)

    def __init__(self, model: PreTrainedModel, strategy: str, activation: str) -> None:
        super().__init__(model)
        self.strategy, self.activation = strategy, activation

    @property
    def left(self) -> str:
        """The activation that the runtime still has to apply."""
        return self.activation if self.strategy == "max" else "none"

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, S) int64 -> (B, V) float32."""
        logits = self.first(input_ids)  # (B, S, V)
        if self.strategy == "max":
            return logits.amax(1)
        weights = torch.log(torch.relu(logits) + 1)
        if self.activation == "log1p_relu":
            weights = torch.log(weights + 1)
        return weights.sum(1)


class Projection(nn.Module):
    """A Dense module of sentence-transformers: activation(x W' + b), and x or its own product beside it."""

    def __init__(self, weights: Mapping[str, Tensor], activation: str, *, residual: bool) -> None:
        super().__init__()
        weight = weights["linear.weight"]
        self.linear = linear(weight, weights.get("linear.bias"))
        self.activation = _TORCH[activation]()
        self.residual: nn.Module | None = None
        if residual:
            own = weights.get("residual.weight")
            self.residual = nn.Identity() if own is None else linear(own, None)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, H) -> (B, S, D) float32."""
        made: Tensor = self.activation(self.linear(x))
        return made if self.residual is None else made + self.residual(x)


_TORCH: Mapping[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "mish": nn.Mish,
}
"""By the names of ACTIVATIONS."""


class Late(Head):
    """Late interaction: a vector for each token, (B, S, D), not normalized.

    The layers are part of the graph: they are linear layers as the model's own are, and D is a fraction of H.
    """

    outputs = (TOKEN_VECTORS,)

    def __init__(self, model: PreTrainedModel, layers: Sequence[Projection]) -> None:
        super().__init__(model)
        self.layers = nn.Sequential(*layers)

    def forward(self, input_ids: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, S) int64, and the positions (n,) that tokens attend to; None: all -> (B, S, D) float32."""
        mask = torch.ones_like(input_ids)
        if seen is not None:
            mask[:, len(seen) :] = 0
        states = self.model(input_ids=input_ids, attention_mask=mask, **self.options)[0]  # (B, S, H)
        made: Tensor = self.layers(states)
        return made

    @property
    def dim(self) -> int:
        """D."""
        return int(self(torch.zeros((1, 1), dtype=torch.int64)).shape[-1])


class Hybrid(Head):
    """BGE-M3: hidden states (B, S, H), a weight for each token (B, S), and ColBERT vectors (B, S, D), not normalized.

    As FlagEmbedding's EncoderOnlyEmbedderM3ModelForInference, but ColBERT's first vector, which is left out there, is
    left out by the runtime.
    """

    def __init__(self, model: PreTrainedModel, sparse: nn.Linear, colbert: nn.Linear | None) -> None:
        super().__init__(model)
        self.sparse_linear, self.colbert_linear = sparse, colbert
        self.outputs = (TOKEN_EMBEDDINGS, TOKEN_WEIGHTS, *((COLBERT_VECS,) if colbert is not None else ()))

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """(B, S) int64 -> (B, S, H), (B, S) and, with a ColBERT head, (B, S, D), all float32."""
        states = self.first(input_ids)  # (B, S, H)
        weights = torch.relu(self.sparse_linear(states)).squeeze(-1)  # (B, S)
        if self.colbert_linear is None:
            return states, weights
        return states, weights, self.colbert_linear(states)


def read_linear(path: Path, hidden: int, columns: int | None) -> nn.Linear:
    """A linear layer from a state dict such as BGE-M3's sparse_linear.pt, read with weights_only.

    Args:
        path: the file.
        hidden: numbers that go in.
        columns: numbers that must come out; None: any.

    Raises:
        ModelFormatError: there is no such file, it holds anything but a weight and a bias, or of other shapes.
    """
    wanted = f"(weight ({'any' if columns is None else columns}, {hidden}) and its bias)"
    if not path.is_file():
        raise ModelFormatError(
            f"{path} does not exist, and BGE-M3 needs its weights {wanted}. For dense vectors alone: --family dense"
        )
    state = read_pickle(path)
    if state.keys() != {"weight", "bias"}:
        raise ModelFormatError(f"{path} holds {sorted(state)}, expected a state dict {wanted}.")
    weight, bias = state["weight"].float(), state["bias"].float()
    size = tuple(weight.shape)
    if len(size) != 2 or size[1] != hidden or bias.shape != size[:1] or (columns is not None and size[0] != columns):
        raise ModelFormatError(f"{path} has a weight {size} and a bias {tuple(bias.shape)}, expected {wanted}.")
    return linear(weight, bias)


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer of a weight (N, K) and a bias (N,), or none."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return layer.eval()
