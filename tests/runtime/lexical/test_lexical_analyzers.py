"""Analyzers: their terms are those of pymilvus.model and NLTK, on real and on hostile texts."""

import hashlib
import json
import pickle
import random
import sys
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.support.lexical_twin import nltk_with_data, twin

import trivec
from trivec._gate.texts import verification_texts
from trivec.lexical import (
    Analyzer,
    CharacterfilterPreprocessor,
    LowercaseFilter,
    ReplacePreprocessor,
    StandardTokenizer,
    StemmingFilter,
    StopwordFilter,
    _analyzer,
    _english,
    _filters,
    _sentences,
    build_analyzer_from_yaml,
    build_default_analyzer,
)

# What pymilvus.model 0.3.4 with NLTK 3.10.4 makes of SciFact, as `_digest` sees it: it takes half a minute for that.
# The sample below, and the benchmark on all of it, run both.
DOCUMENTS = "cb36197d3c3c31e7a57156217db59a69849629988b08c6bdf43c37b123f1e3ec"
QUERIES = "6c59c6450255335b9184f2476935d9ee8cb5d2dc1784174e6c99b484a619c643"


def _digest(terms: list[list[str]]) -> str:
    return hashlib.sha256(json.dumps(terms).encode()).hexdigest()


def _scifact(shared: Path) -> tuple[list[str], list[str]]:
    lines = (shared / "data/scifact/corpus.jsonl").read_text(encoding="utf-8").splitlines()
    documents = [f"{entry['title']} {entry['text']}" for entry in map(json.loads, lines)]
    lines = (shared / "data/scifact/queries.jsonl").read_text(encoding="utf-8").splitlines()
    return documents, [json.loads(line)["text"] for line in lines]


def test_english_terms_are_the_twins_on_all_of_scifact(shared: Path) -> None:
    documents, queries = _scifact(shared)
    ours, reference = build_default_analyzer(), twin().build_default_analyzer("en")
    for text in (*documents[::97], *queries[::37]):
        assert ours(text) == reference(text)
    if (_digest([ours(text) for text in documents]), _digest([ours(text) for text in queries])) != (DOCUMENTS, QUERIES):
        for text in (*documents, *queries):  # slow, and says where
            assert ours(text) == reference(text)
        pytest.fail("the twin's own terms are others than those on record: another version?")


@pytest.mark.parametrize("language", ["en", "de", "fr", "ru", "sp", "it", "pt"])
def test_terms_are_the_twins_in_each_language(language: str) -> None:
    ours, reference = build_default_analyzer(language), twin().build_default_analyzer(language)
    texts = [text.text for text in verification_texts()]
    for text in texts[:: 1 if language == "en" else 5]:
        assert ours(text) == reference(text)
        assert ours(text) == reference(text)  # remembered by now


WORDS = r"""
a I Mr. cannot CAN'T wanna Gonna don't 'tis 'Twas more'n it's its' 's 'll dogs' "x" "" '' ``x'' `y` ("z") (a b) e.g.
U.S. The the He of al. et 1. 3.5 No. Jan. cells cells. (cells.) "Foo foo." ... . .. ? ! ?! a.m. p. J. Bach 5-HT. co-op.
U.S.-based Dr. St. Louis .5 -- end.-- x.[12] vs. fig. « » foo.» ’ ‘a’ b.’ ; : , ## é. É 12, 1,000. $5. Inc. Corp.
##number## Most coverage Coverage II. Z. ) ( ] [12]. *. <x> {y} 5,5 :5 a:b ). ". .'' ,' '. a' 'a 😀. 中文。 ı. -
"""
PIECES = [*WORDS.split(), "\n", "\t", "\xa0", "\r\n", "\u2003"]


LETTERS = "abIZé e\u0301 \u0301ñß中א٣5०ß.,:;!?'\"’”“‘«»()[]-–—_ \n\t\u00a0\u200b😀ﬁ\u2028$%&*@#`<>/\\~^|…€"


def _hostile(count: int, seed: int) -> list[str]:
    """Texts put together from what the rules of sentences and words look at."""
    rng = random.Random(seed)
    spaces = [" ", " ", " ", "", "\n", "  "]
    texts = []
    for _ in range(count):
        choice = spaces[: rng.choice([4, 6])]
        texts.append("".join(rng.choice(PIECES) + rng.choice(choice) for _ in range(rng.randint(0, 9))))
        texts.append("".join(rng.choice(LETTERS) for _ in range(rng.randint(0, 30))))
    return texts


def test_sentences_and_words_are_nltks_on_hostile_texts() -> None:
    nltk, tokenizer = nltk_with_data(), StandardTokenizer()
    for text in _hostile(1500, seed=0):
        assert list(_sentences.sentences(text)) == nltk.sent_tokenize(text), repr(text)
        assert tokenizer.tokenize(text) == nltk.word_tokenize(text), repr(text)


def test_english_stems_are_nltks() -> None:
    nltk = nltk_with_data()
    stem = nltk.stem.snowball.SnowballStemmer("english").stem
    model = _sentences.english()
    words = [*model.ordinary, *model.either, *_english._WHOLE]
    rng = random.Random(1)
    endings = [
        *_english._STEP2,
        *_english._STEP3,
        *_english._STEP4,
        "eedly",
        "ingly",
        "edly",
        "eed",
        "ing",
        "ed",
        "sses",
    ]
    endings += ["ied", "ies", "us", "ss", "s", "'s'", "'s", "'", "y", "e", "l", "ll", "’s"]
    for _ in range(20_000):
        start = rng.choice(["", "", "", "gener", "commun", "arsen"])
        middle = "".join(rng.choice("aeiouybcdlstrny'’gemn") for _ in range(rng.randint(1, 6)))
        words.append(start + middle + "".join(rng.choice(endings) for _ in range(rng.randint(0, 3))))
    assert len(words) > 30_000
    assert [word for word in words if _english.stem(word) != stem(word)] == []


def test_stop_words_are_nltks() -> None:
    nltk = nltk_with_data()
    for language in ("english", "german", "french", "russian", "spanish", "italian", "portuguese", "chinese", "danish"):
        assert StopwordFilter(language).stopwords == set(nltk.corpus.stopwords.words(language))
    assert "yani" in StopwordFilter("turkish", ["own"]).stopwords  # of NLTK's data


def test_chinese_stop_words_are_not_shipped_and_said_where_to_get(monkeypatch: pytest.MonkeyPatch) -> None:
    """No licence of theirs is known. Another list, or none, would give stored rows other terms without a word."""
    nltk = nltk_with_data()
    assert "chinese" not in _filters._stopword_lists()
    monkeypatch.setattr(nltk.data, "path", [])
    fresh = nltk.corpus.util.LazyCorpusLoader("stopwords", nltk.corpus.reader.WordListCorpusReader, r".*")
    monkeypatch.setattr(nltk.corpus, "stopwords", fresh)  # what was loaded before stays in the other one
    _fakes(monkeypatch)
    with pytest.raises(
        trivec.InputError, match=r"language 'chinese'.* python -m nltk\.downloader stopwords\. Type one"
    ):
        build_default_analyzer("zh")
    kept = StopwordFilter(None, ["的"]).apply(["细胞", "的", "分裂"])
    assert kept == ["细胞", "分裂"]


def test_english_needs_nothing_but_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nltk", "yaml", "Stemmer", "scipy"):
        monkeypatch.setitem(sys.modules, name, None)
    text = "The U.S. cells' organization didn't divide (see e.g. Fig. 2). \"Why?\""
    assert build_default_analyzer()(text) == [
        "u.s.", "cell", "organ", "n't", "divid", "see", "e.g", "fig", "2", "``", "''",
    ]  # fmt: skip


# ---- how analyzers are put together ----------------------------------------------------------------------------------


def test_the_steps_run_in_order() -> None:
    steps = [ReplacePreprocessor({"ab": "The ", "a": "never, the longer one comes first"})]
    analyzer = Analyzer(
        "mine",
        StandardTokenizer(),
        [*steps, CharacterfilterPreprocessor("_-")],
        [LowercaseFilter(), StopwordFilter(None, ["cell"]), StemmingFilter()],
    )
    assert analyzer("abcell_cells-dividing.") == ["the", "cell", "divid", "."]
    assert repr(analyzer).startswith("Analyzer('mine': ReplacePreprocessor, CharacterfilterPreprocessor, Standard")


def test_steps_of_the_callers_own() -> None:
    class Pairs:
        def apply(self, tokens: list[str]) -> list[str]:
            return [" ".join(pair) for pair in pairwise(tokens)]

    class Letters:
        def tokenize(self, text: str) -> list[str]:
            return list(text)

    assert Analyzer("pairs", StandardTokenizer(), filters=[Pairs()])("one two three.") == [
        "one two",
        "two three",
        "three .",
    ]
    assert Analyzer("letters", Letters(), filters=[LowercaseFilter()])("Abc") == ["a", "b", "c"]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_analyzer, "_REMEMBERED", 10)
    analyzer = build_default_analyzer()
    fresh = build_default_analyzer()
    memory = analyzer._memory
    assert memory is not None
    texts = [text.text for text in verification_texts()[:40]]
    for text in texts:
        assert analyzer(text) == list(fresh(text))
        assert len(memory) <= 10


def test_an_analyzer_pickles_without_what_it_remembers() -> None:
    analyzer = build_default_analyzer("de")
    text = "Die Häuser stehen."
    assert analyzer(text) == ["haus", "steh"]
    again = pickle.loads(pickle.dumps(analyzer))
    assert again._memory == {}
    assert again(text) == ["haus", "steh"]


def test_a_document_that_is_no_text() -> None:
    with pytest.raises(trivec.InputError, match=r"^an analyzer takes a text, got NoneType 'None'\.$"):
        build_default_analyzer()(None)  # type: ignore[arg-type]


# ---- languages and their packages ------------------------------------------------------------------------------------


def test_a_language_without_an_analyzer() -> None:
    with pytest.raises(trivec.InputError) as caught:
        build_default_analyzer("xx")
    assert str(caught.value) == (
        "there is no analyzer for the language 'xx'; there are for en, de, fr, ru, sp, it, pt, zh, jp, kr, es, ja, ko. "
        "Build one from a YAML file: build_analyzer_from_yaml(path, name); or pass any function from a text to its "
        "terms: BM25(analyzer=...)"
    )


@pytest.mark.parametrize(
    ("language", "module", "wants", "extra"),
    [
        ("de", "nltk.stem.snowball", "the stemmer for 'german' needs nltk", "lexical"),
        ("zh", "jieba", "JiebaTokenizer needs jieba", "lexical-zh"),
        ("ja", "MeCab", "MecabTokenizer needs MeCab", "lexical-ja"),
        ("ko", "konlpy.tag", "KonlpyTokenizer needs konlpy", "lexical-ko"),
    ],
)
def test_a_package_that_is_missing(
    language: str, module: str, wants: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(trivec.MissingExtraError) as caught:
        build_default_analyzer(language)
    assert str(caught.value) == f'{wants}, which is not installed. Type: pip install "trivec[{extra}]"'


def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segmenters that split as the real ones are asked to."""

    class Tagger:
        def __init__(self, options: str) -> None:
            assert options == "-Owakati"

        def parse(self, text: str) -> str:
            return " ".join(text.replace(" ", "")) + " \n"

    class Kkma:
        def nouns(self, text: str) -> list[str]:
            return text.split("/")

    class Kiwi:
        def tokenize(self, text: str, *, normalize_coda: bool) -> list[Any]:
            assert normalize_coda
            return [types.SimpleNamespace(form=part) for part in text.split("/")]

    modules: dict[str, dict[str, Any]] = {
        "jieba": {"lcut": lambda text: text.split("/")},
        "MeCab": {"Tagger": Tagger},
        "konlpy": {},
        "konlpy.tag": {"Kkma": Kkma},
        "kiwipiepy": {"Kiwi": Kiwi},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


def test_segmenters_and_what_is_dropped_after_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _fakes(monkeypatch)
    nltk_with_data()
    assert build_default_analyzer("zh")("我们/的/细胞/，/分裂/。/ /cells") == ["细胞", "分裂", "cells"]
    assert build_default_analyzer("jp")("細胞、の「分裂」。!a") == [
        "細",
        "胞",
        "の",
        "分",
        "裂",
    ]  # a stop word of English
    assert build_default_analyzer("ko")("세포/the/분열") == ["세포", "분열"]
    path = tmp_path / "kiwi.yaml"
    path.write_text("ko:\n  tokenizer:\n    class: KiwiTokenizer\n    params: {}\n")
    assert build_analyzer_from_yaml(path, "ko")("세포/가") == ["세포", "가"]


def test_mecab_without_a_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    _fakes(monkeypatch)

    def tagger(_: str) -> None:
        raise RuntimeError("no such file or directory: /usr/local/etc/mecabrc")

    monkeypatch.setattr(sys.modules["MeCab"], "Tagger", tagger)
    with pytest.raises(trivec.MissingExtraError, match=r'needs a dictionary.*pip install "trivec\[lexical-ja\]"$'):
        build_default_analyzer("ja")


# ---- YAML ------------------------------------------------------------------------------------------------------------


def test_the_twins_own_file_gives_the_default_analyzers() -> None:
    path = Path(twin().__file__).with_name("lang.yaml")
    texts = [text.text for text in verification_texts()[::25]]
    for name in ("en", "de", "sp"):
        ours, default = build_analyzer_from_yaml(path, name), build_default_analyzer(name)
        assert [ours(text) for text in texts] == [default(text) for text in texts]


STEP = "mine:\n  tokenizer:\n    class: StandardTokenizer\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            STEP.replace("Standard", "Other"),
            "mine: tokenizer names the class 'OtherTokenizer'; expected StandardTokenizer,",
        ),
        (
            STEP + "  filters:\n    - class: Nope\n",
            "mine: filters[0] names the class 'Nope'; expected LowercaseFilter,",
        ),
        (
            STEP + "  filters:\n    - class: StemmingFilter\n      params: {lang: german}\n",
            "mine: filters[0]: params of StemmingFilter must be among language, got {'lang': 'german'}.",
        ),
        (
            STEP + "  preprocessors:\n    - class: ReplacePreprocessor\n",
            "mine: preprocessors[0]: ReplacePreprocessor needs replacement_mapping, got {}.",
        ),
        (STEP + "  filter: []\n", "has filter; expected tokenizer, preprocessors and filters."),
        (STEP + "  filters: Lower\n", "mine: filters must be a list, got 'Lower'."),
        ("mine:\n  filters: []\n", "mine must have a tokenizer, got {'filters': []}."),
        ("- a\n", "must map names to analyzers, got ['a']."),
        ("mine: [\n", "is not valid YAML: while parsing"),
    ],
)
def test_a_yaml_file_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "analyzers.yaml"
    path.write_text(text)
    with pytest.raises(trivec.ModelFormatError) as caught:
        build_analyzer_from_yaml(path, "mine")
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_names_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "analyzers.yaml"
    path.write_text("yours: {}\nother: {}\n")
    with pytest.raises(trivec.InputError, match=r"has no analyzer 'mine'; it has yours, other\. Type one of these\.$"):
        build_analyzer_from_yaml(path, "mine")
    with pytest.raises(
        trivec.InputError, match=r"^there are no stop words for the language 'klingon'; there are for dan"
    ):
        StopwordFilter("klingon")
    with pytest.raises(
        trivec.InputError, match=r"^there is no stemmer for the language 'klingon'; there are for arabic,"
    ):
        StemmingFilter("klingon")


def test_no_yaml_file(tmp_path: Path) -> None:
    with pytest.raises(
        trivec.ModelNotFoundError, match=r"^there is no file '.*none\.yaml' to read an analyzer from\.$"
    ):
        build_analyzer_from_yaml(tmp_path / "none.yaml", "en")


def test_parameters_that_no_filter_takes() -> None:
    with pytest.raises(trivec.InputError, match="chars_to_replace must be single characters, got 'ab' among them"):
        CharacterfilterPreprocessor(["a", "ab"])
    with pytest.raises(trivec.InputError, match=r"replacement_mapping must map strings to strings, got '': 'x'\."):
        ReplacePreprocessor({"": "x"})
    with pytest.raises(trivec.InputError, match=r"stopword_list must be a list of strings, got 'the'\."):
        StopwordFilter("english", "the")
    assert ReplacePreprocessor({}).apply("as it is") == "as it is"
