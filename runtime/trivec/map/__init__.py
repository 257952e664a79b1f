"""A stored corpus as a map: one HTML file in which every text is a dot that one can hover, search and zoom.

    from trivec import map as maps

    maps.write("corpus.parquet", "corpus.html")
    maps.write("corpus.npy", "corpus.html", texts=texts, projection="tsne")

The page is complete in itself: it makes no request to anywhere, and its content security policy forbids all. Texts are
data in it, compressed, never markup.
"""

from trivec.map._points import Plane, Projection
from trivec.map._write import Drawn, write

__all__ = ["Drawn", "Plane", "Projection", "write"]

for _value in (Drawn, Plane, write):
    _value.__module__ = __name__  # repr and tracebacks show trivec.map.Drawn
