"""BM25 without a model: analyzers that split texts into terms, and the terms' weights as sparse vectors.

    from trivec.lexical import BM25, build_default_analyzer

    bm25 = BM25(build_default_analyzer("en")).fit(corpus)
    bm25.encode_queries(["a question"]).dot(bm25.encode_documents(corpus))

English needs nothing but numpy. Equal to pymilvus.model 0.3.4 in terms, numbers and files.
"""

from trivec.lexical._analyzer import Analyzer
from trivec.lexical._bm25 import BM25
from trivec.lexical._build import build_analyzer_from_yaml, build_default_analyzer
from trivec.lexical._filters import (
    CharacterfilterPreprocessor,
    LowercaseFilter,
    PunctuationFilter,
    ReplacePreprocessor,
    StemmingFilter,
    StopwordFilter,
)
from trivec.lexical._tokenizers import (
    JiebaTokenizer,
    KiwiTokenizer,
    KonlpyTokenizer,
    MecabTokenizer,
    StandardTokenizer,
)

__all__ = [
    "BM25",
    "Analyzer",
    "CharacterfilterPreprocessor",
    "JiebaTokenizer",
    "KiwiTokenizer",
    "KonlpyTokenizer",
    "LowercaseFilter",
    "MecabTokenizer",
    "PunctuationFilter",
    "ReplacePreprocessor",
    "StandardTokenizer",
    "StemmingFilter",
    "StopwordFilter",
    "build_analyzer_from_yaml",
    "build_default_analyzer",
]

for _name in __all__:  # tracebacks and repr show trivec.lexical.BM25, not trivec.lexical._bm25.BM25
    globals()[_name].__module__ = __name__
