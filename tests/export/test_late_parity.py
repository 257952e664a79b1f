"""Late interaction, from a checkpoint over its export to vectors and scores that equal sentence-transformers' own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.support.late_models import ONE, SEVERAL, TEXTS, oracle, pylate, saved_again, stanford

import trivec
from trivec._gate.checks import bounds_of, search_bounds
from trivec._gate.figures import Figures, search_overlap
from trivec._gate.texts import verification_texts
from trivec._gate.verify import verify as trivec_verify
from trivec._vectors.multi import MultiVectors
from trivec_export._graph.seen import with_seen

QUERIES, DOCUMENTS = TEXTS[::2], TEXTS
Make = Callable[[Path], Path]
PLAIN: dict[str, Any] = {"do_query_expansion": False, "skiplist_words": []}
CHECKPOINTS: dict[str, Make] = {
    "plain": lambda folder: pylate(folder, **PLAIN),
    "no prefixes": lambda folder: pylate(folder, query_prefix="", document_prefix="", **PLAIN),
    "attended": lambda folder: pylate(folder, attend_to_expansion_tokens=True),
    "unseen": pylate,
    "modernbert": lambda folder: pylate(folder, "modernbert", SEVERAL, query_length=11),
    "several layers": lambda folder: pylate(folder, layers=SEVERAL, **PLAIN),
    "prompts": lambda folder: pylate(folder, prompts={"query": "find it ", "document": "[D] in "}),
    "no lengths": lambda folder: pylate(folder, query_length=None, document_length=None, skiplist_words=None),
    "stanford": lambda folder: stanford(folder, query_maxlen=24, doc_maxlen=90, attend_to_mask_tokens=False),
    "stanford without metadata": stanford,
    "stanford xlm-roberta": lambda folder: stanford(
        folder,
        "xlm_roberta",
        query_token_id="[QueryMarker]",
        doc_token_id="[DocumentMarker]",
        attend_to_mask_tokens=True,
        mask_punctuation=False,
    ),
    "sentence-transformers": lambda folder: saved_again(pylate(folder / "a"), folder / "b"),
    "at least": lambda folder: saved_again(
        pylate(folder / "a", layers=ONE),
        folder / "b",
        query_expansion={"strategy": "min", "attend": False, "token": "[UNK]", "length": 20},
        query_length=40,
    ),
}


def export(checkpoint: Path, out: Path) -> Path:
    return trivec.export(checkpoint, out, precision=["fp32"], max_texts=64, quiet=True)


def assert_equal(ours: MultiVectors, theirs: list[Any], atol: float = 1e-5) -> None:
    """As many vectors of each text, no number further away than float32 explains; it was 5e-6 at most."""
    assert isinstance(ours, MultiVectors)
    assert [len(row) for row in ours] == [len(row) for row in theirs]
    np.testing.assert_allclose(ours.vectors, np.concatenate(theirs), rtol=0, atol=atol)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_vectors_and_scores_equal_the_reference(name: str, tmp_path: Path) -> None:
    checkpoint = CHECKPOINTS[name](tmp_path / "checkpoint")
    folder = export(checkpoint, tmp_path / "model")
    model = oracle(checkpoint)
    options: Any = {"convert_to_numpy": True, "batch_size": 8}
    queries, documents = model.encode_query(QUERIES, **options), model.encode_document(DOCUMENTS, **options)
    with trivec.load(folder, device="cpu", threads=1) as late:
        assert type(late) is trivec.LateEncoder
        assert late.dim == queries[0].shape[1] == 24
        found_q, found_d = late.encode_query(QUERIES), late.encode_document(DOCUMENTS)
        assert_equal(found_q, queries)
        assert_equal(found_d, documents)
        assert_equal(late.encode_document(DOCUMENTS[:9], batch_size=1), documents[:9])
        alone = [late.encode_query(text) for text in QUERIES[:6]]
        assert_equal(MultiVectors.from_arrays(alone), queries[:6])
        scores = late.similarity(found_q, found_d)
        np.testing.assert_allclose(scores, model.similarity(queries, documents).numpy(), rtol=0, atol=2e-4)
        few = len(QUERIES)
        pairwise = model.similarity_pairwise(queries, documents[:few]).numpy()
        np.testing.assert_allclose(late.similarity_pairwise(found_q, found_d[:few]), pairwise, rtol=0, atol=2e-4)
        assert np.std(scores) > 0.05  # else nothing was asked
    if name in ("unseen", "attended"):  # the same graphs, by the other engine
        with trivec.load(folder, engine="openvino", threads=1) as late:
            assert_equal(late.encode_query(QUERIES), queries)
            assert_equal(late.encode_document(DOCUMENTS), documents)
    graph = onnx.load(folder / "onnx/model.onnx", load_external_data=False).graph
    inputs = [value.name for value in graph.input]
    manifest = json.loads((folder / "trivec.json").read_text())
    expansion = manifest["routes"]["query"]["multi"]["expansion"]
    unseen = expansion is not None and not expansion["attended"]
    assert inputs == ["input_ids", *(["seen"] if unseen else [])]
    assert [value.name for value in graph.output] == ["token_vectors"]


def test_the_folder_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = pylate(tmp_path / "checkpoint", prompts={"query": "find it "})
    folder = trivec.export(checkpoint, tmp_path / "model", precision=["fp32"], max_texts=64)
    said = capsys.readouterr()
    assert "family: late, by config_sentence_transformers.json" in said.out + said.err
    manifest = json.loads((folder / "trivec.json").read_text())
    assert manifest["similarity"] == "maxsim"
    assert manifest["default_route"] == "document"
    assert manifest["prompts"]["query"] == "find it "
    query, document = (manifest["routes"][side] for side in ("query", "document"))
    assert query["multi"]["expansion"] == {"token_id": 4, "length": 32, "attended": False, "exact": True}
    assert (query["max_seq_length"], document["max_seq_length"]) == (32, 100)
    assert len(query["multi"]["prefix_ids"]) == len(document["multi"]["prefix_ids"]) == 1
    assert len(document["multi"]["dropped_ids"]) == 6
    gate = manifest["encoders"]["main"]["variants"]["fp32"]["gate"]
    assert gate["head"] == "colbert"
    assert gate["max_diff"] <= 1e-4
    assert {gate["route"], gate["others"][0]["route"]} == {"query", "document"}
    report = (folder / "REPORT.md").read_text()
    assert "fp32 query colbert" in report
    assert "tags:\n- onnx\n- trivec\n- colbert\n" in (folder / "README.md").read_text()


def test_other_precisions(tmp_path: Path) -> None:
    """fp16 and int8 read what is seen as fp32 does, and their gates ask for the documents that queries find."""
    checkpoint = pylate(tmp_path / "checkpoint")
    refused = ""
    try:
        folder = trivec.export(checkpoint, tmp_path / "model", max_texts=64, quiet=True)
    except trivec.GateError as error:  # a tiny random model is no friend of int8
        folder, refused = tmp_path / "model", str(error)
    manifest = json.loads((folder / "trivec.json").read_text())
    encoder = manifest["encoders"]["main"]
    assert encoder["cuda"] is None
    report = (folder / "REPORT.md").read_text()
    assert "None, for its queries have tokens that nobody attends to." in report
    assert "min 0.95, mean 0.985, top-10 0.9" in report  # of queries
    assert "min 0.95, mean 0.985 |" in report  # of documents
    assert set(encoder["variants"]) == {"fp32", "fp16", *([] if "int8" in refused else ["int8"])}
    for name, variant in encoder["variants"].items():
        assert variant["inputs"] == ["input_ids", "seen"]
        graph = onnx.load(folder / variant["files"][0]["path"], load_external_data=False).graph
        assert [value.name for value in graph.input] == ["input_ids", "seen"], name
        routes = {check["route"]: check for check in (variant["gate"], *variant["gate"]["others"])}
        assert set(routes) == {"query", "document"}
    queries = oracle(checkpoint).encode_query(QUERIES, convert_to_numpy=True)
    bounds: tuple[tuple[Literal["fp32", "int8"], float], ...] = (("int8", 0.95), ("fp32", 0.99999))
    for precision, least in bounds:
        if precision in encoder["variants"]:
            with trivec.load(folder, device="cpu", precision=precision) as late:
                found = late.encode_query(QUERIES)
                for mine, theirs in zip(found, queries, strict=True):
                    assert (mine * theirs).sum(1).mean() >= least
    checks = trivec_verify(folder, device="cpu", texts=verification_texts()[::12])
    assert {(check.precision, check.route) for check in checks} >= {("fp32", "query"), ("fp32", "document")}
    assert {check.record("")["top10_overlap"] for check in checks if check.precision == "fp32"} == {1.0}
    asked = {(check.precision, check.route): check.asked for check in checks}
    if "int8" in encoder["variants"]:
        assert asked["int8", "query"].endswith("top-10 0.9")
        assert "top-10" not in asked["int8", "document"]


def test_the_gate_asks_which_documents_queries_find() -> None:
    """Vectors that are near the reference's, text by text, and find other documents: the cosines do not tell."""
    rng = np.random.default_rng(0)
    one, shift = rng.normal(size=(2, 40, 3, 8)).astype(np.float32)
    unit = one[:, :1] / np.linalg.norm(one[:, :1], axis=2, keepdims=True)
    near = [
        MultiVectors.from_arrays(list(part / np.linalg.norm(part, axis=2, keepdims=True)))
        for part in (one, unit + shift * 0.1)
    ]
    same = search_overlap((near[0], near[1]), (near[0], near[1]))
    moved = search_overlap((near[0], near[1]), (near[0], MultiVectors.from_arrays(list(near[1])[::-1])))
    assert same == 1
    assert moved < 0.6
    assert bounds_of("int8")["colbert"].missed(replace_overlap(moved)) == []
    missed = search_bounds(bounds_of("int8")["colbert"], "int8").missed(replace_overlap(moved))
    assert missed == [f"top-10 overlap {moved:.4f} < 0.9"]


def replace_overlap(overlap: float) -> Any:
    return Figures(1.0, 1.0, overlap, 0.0, {}, 0)


def change(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_what_is_not_understood_is_refused(tmp_path: Path) -> None:
    def refused(checkpoint: Path, message: str, **options: Any) -> None:
        with pytest.raises((trivec.ModelFormatError, trivec.InputError), match=message):
            trivec.export(checkpoint, tmp_path / "out", quiet=True, **{"precision": ["fp32"], **options})

    made = pylate(tmp_path / "a")
    refused(made, "is a ColBERT checkpoint, not 'dense'", family="dense")
    settings = made / "config_sentence_transformers.json"
    change(settings, query_length=200)
    refused(made, "filled up to 200 tokens, and the model can be given 128")
    change(settings, query_length="32")
    refused(made, "query_length must be a whole number above 0, got '32'")
    change(settings, query_length=32, skiplist_words=7)
    refused(made, "skiplist_words must be a list of tokens, got 7")
    change(settings, skiplist_words=[], strange=1)
    refused(made, "has strange = 1, which trivec does not follow")
    refused(pylate(tmp_path / "b", "modernbert"), r"a token sees 8 to each side.*Set query_length to 11 or less")
    for number, (key, value) in enumerate({"similarity": "l2", "interaction": "flipr"}.items()):
        refused(
            stanford(tmp_path / f"c{number}", **{key: value}), f"artifact.metadata has {key} = '{value}'; trivec scor"
        )
    saved = saved_again(pylate(tmp_path / "d"), tmp_path / "e")
    (saved / "4_HierarchicalTokenPooling").mkdir()
    modules = json.loads((saved / "modules.json").read_text())
    kind = "sentence_transformers.multi_vector_encoder.modules.token_pooling.HierarchicalTokenPooling"
    more = {"idx": 4, "name": "4", "path": "4_HierarchicalTokenPooling", "type": kind}
    (saved / "modules.json").write_text(json.dumps([*modules, more]))
    refused(saved, "MultiVectorMask, Normalize, HierarchicalTokenPooling; of late-interaction models trivec runs")
    (saved / "modules.json").write_text(json.dumps(modules))
    change(saved / "2_MultiVectorMask/config.json", keep_only_token_ids=[3])
    refused(saved, r"has keep_only_token_ids = \[3\], which trivec does not follow")
    change(saved / "2_MultiVectorMask/config.json", keep_only_token_ids=None)
    change(saved / "sentence_bert_config.json", query_expansion={"strategy": "most", "length": 3})
    refused(saved, "query_expansion = .*expected a strategy 'fixed' or 'min'")
    change(saved / "sentence_bert_config.json", query_expansion={"strategy": "fixed", "length": 30, "token": "[NONE]"})
    refused(saved, r"to be expanded by '\[NONE\]', which is none of the tokenizer's tokens")


def test_attention_that_cannot_leave_out_what_is_unseen() -> None:
    def graph(kind: str, **attributes: Any) -> onnx.ModelProto:
        node = helper.make_node(kind, ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=2, **attributes)
        return helper.make_model(helper.make_graph([node], "g", [], []))

    node = with_seen(graph("MultiHeadAttention")).graph.node
    assert [list(n.input) for n in node] == [["k", "seen"], ["v", "seen"], ["q", "k/seen", "v/seen"]]
    with pytest.raises(trivec.ModelFormatError, match="sees what is before a token"):
        with_seen(graph("MultiHeadAttention", unidirectional=1))
    with pytest.raises(trivec.ModelFormatError, match="its attention is not one node a layer"):
        with_seen(graph("Attention"))
