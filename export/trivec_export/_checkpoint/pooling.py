"""What an export says of the pooling of a checkpoint that has no modules.json to tell it."""

from trivec._model.checkpoint import Checkpoint
from trivec._model.manifest import Route
from trivec._model.pooling_hints import ASSUMED, find_pooling
from trivec._model.source import Source


def assumed_pooling(source: Source, checkpoint: Checkpoint) -> str | None:
    """Why the pooling is what it is, where no module says it, and what other files say of it; None where one does.

    It stays sentence-transformers' own: what is exported is compared with that.
    """
    if not checkpoint.assumes_pooling:
        return None
    said = f"{ASSUMED}, as sentence-transformers does without modules.json"
    hint = find_pooling(source, _route(checkpoint))
    return said if hint.by.startswith(ASSUMED) else f"{said}; {hint.by.removeprefix('by ')} says {_modes(hint.route)}"


def pooling_line(checkpoint: Checkpoint, assumed: str) -> str:
    """The same with what to do, for people."""
    return (
        f"warning: {_modes(_route(checkpoint))} pooling is {assumed}. Where another is right, save "
        'it so first: SentenceTransformer(modules=[Transformer("MODEL"), Pooling(WIDTH, "cls")]).save_pretrained("NEW")'
    )


def _route(checkpoint: Checkpoint) -> Route:
    """The first: where adapters make several of one, they pool alike."""
    return next(iter(checkpoint.routes.values()))


def _modes(route: Route) -> str:
    return "+".join(route.pooling.modes) if route.pooling is not None else "no"
