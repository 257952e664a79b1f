"""The table and the tokenizer of a static model to its encoder."""

from dataclasses import replace

from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import check_arrays
from trivec._encoders.static import StaticEncoder, StaticPipeline
from trivec._engine.devices import OPENVINO, Device
from trivec._errors import InputError, ModelFormatError, ModelNotFoundError, ProviderError
from trivec._loading.choice import threads_for
from trivec._model.derived import read_step_arrays
from trivec._model.held_file import HeldFile
from trivec._model.manifest import Manifest
from trivec._model.source import Source
from trivec._model.static_model import EXTRA, MODEL2VEC, with_table
from trivec._model.tensor_files import read_shapes
from trivec._static.table import read_table
from trivec._static.tokenizer import StaticTokenizer


def open_static(source: Source, manifest: Manifest, device: Device | None, options: LoadOptions) -> StaticEncoder:
    """Read the table and the tokenizer of a static model.

    Args:
        source: the model.
        manifest: what `static_manifest` says of it.
        device: where it was asked to run; None: anywhere.
        options: of `load`.

    Raises:
        ProviderError: a device other than the CPU was asked for.
        InputError: another engine was asked for.
        ModelNotFoundError: a precision was asked for that the table does not have.
        MissingExtraError: safetensors is not installed.
        ModelFormatError: the table or the tokenizer cannot be read, or they do not fit each other.
    """
    name = source.name
    if device is not None and device.kind != "cpu":
        raise ProviderError(
            f"{name} is a static model, which numpy adds up on the CPU: copying to a GPU would take longer than the "
            'sums. Load it with device="cpu" or "auto".'
        )
    if options.engine == OPENVINO:
        raise InputError(
            f'engine="openvino": {name} is a static model, a table that numpy adds up, and there is no graph for an '
            "engine to run. Leave it out."
        )
    if options.low_memory:
        raise InputError(
            f"low_memory=True: {name} is a static model, a table in float32 and no graph, whose weights nothing packs. "
            "Leave it out."
        )
    if manifest.arrays is None:
        raise ModelFormatError(f"{name}: the description of a static model names no table.")
    refs = (manifest.arrays, manifest.encoders["main"].tokenizer)
    files = {ref.path: HeldFile(source.checked(ref), ref.sha256) for ref in refs}
    path = files[manifest.arrays.path].path
    shapes = read_shapes(path, extra=EXTRA, why=f"{name} is a static model, whose table is a .safetensors file")
    manifest = with_table(manifest, shapes, path)
    encoder, route = manifest.encoders["main"], manifest.routes["default"]
    precision = next(iter(encoder.variants))
    if options.precision not in ("auto", precision):
        raise ModelNotFoundError(
            f"{name} has no {options.precision} variant: it is one table, in {precision}. Leave precision at 'auto'."
        )
    rules = str(manifest.source["rules"])
    threads = threads_for(options.threads).count
    tokenizer = StaticTokenizer(files[encoder.tokenizer.path].path, rules, encoder.max_seq_length, threads)
    table = read_table(path, tokenizer.tokens, tokenizer.last_id, every_row=rules == MODEL2VEC)
    arrays = read_step_arrays(source, route.steps)
    check_arrays(route.steps, arrays)
    encoder = replace(encoder, max_seq_length=tokenizer.max_seq_length, truncation_side=tokenizer.truncation_side)
    pipeline = StaticPipeline(encoder, tokenizer, None, rules, None, route.steps, arrays, table=table)
    manifest = replace(manifest, encoders={"main": encoder}, dim=pipeline.dim)
    return StaticEncoder(manifest, {"default": pipeline}, options.opened(source, precision, "rows", files))
