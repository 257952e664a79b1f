"""The page of `trivec map` in a headless Chromium, as a person uses it.

Type scripts/chromium to get the browser.
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose
from tests.support.chromium import Chromium, Page, Place, find
from tests.support.map_pages import HOSTILE, npy, seen

from trivec import map as maps

# fmt: off
WORDS = ("cell", "Protein", "GENE", "tumour", "σῶμα", "σῶμας", "Straße", "naïve", "ração", "東京", "река", "heart-rate",
         "3.5", "<b>", "&", '"x"', "it's")
# fmt: on


def make_texts() -> list[str]:
    """237 texts of a few words, then those that would break a careless page."""
    rng = np.random.default_rng(5)
    made = [f"{' '.join(rng.choice(WORDS, rng.integers(1, 7)))} no{i}." for i in range(237)]
    return [*made, *HOSTILE]


NO_BROWSER = (
    "there is no Chromium. Type: scripts/chromium (which needs apt-get), or install one, or say where it is: "
    "TRIVEC_CHROMIUM=/path"
)
TEXTS = make_texts()
FIRST_HOSTILE = len(TEXTS) - len(HOSTILE)


@pytest.fixture(scope="module")
def browser() -> Iterator["Chromium"]:
    executable = find()
    if executable is None:
        pytest.fail(NO_BROWSER, pytrace=False)
    with Chromium(executable) as found:
        yield found


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of TEXTS."""
    folder = tmp_path_factory.mktemp("map")
    array = np.random.default_rng(0).normal(size=(len(TEXTS), 5)) * [9, 5, 1, 1, 1]
    maps.write(npy(folder / "corpus.npy", array), folder / "map.html", texts=TEXTS)
    return folder / "map.html"


@pytest.fixture
def page(browser: "Chromium", drawn: Path) -> Iterator["Page"]:
    """The map in a tab; at the end: nothing was reported, nothing was asked of the network."""
    opened = browser.open(drawn)
    yield opened
    assert opened.events("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded") == []
    assert requests(opened) == [drawn.as_uri()]
    assert opened.evaluate("typeof executed") == "undefined"
    opened.close()


def requests(page: "Page") -> list[str]:
    urls = [event["request"]["url"] for event in page.events("Network.requestWillBeSent")]
    return [url for url in urls if not url.startswith("data:")]


def positions(page: "Page", count: int = len(TEXTS)) -> npt.NDArray[np.float64]:
    """(N, 2) pixels of the dots."""
    found = page.evaluate(f"Array.from({{length: {count}}}, (_, i) => Object.values(trivecMap.position(i)))")
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def apart(pixels: npt.NDArray[np.float64], least: float) -> list[int]:
    """The dots without another one nearby."""
    away = np.linalg.norm(pixels[:, None] - pixels[None], axis=2)
    np.fill_diagonal(away, np.inf)
    return np.flatnonzero(away.min(1) > least).tolist()


def inside(pixels: npt.NDArray[np.float64], page: "Page") -> Any:
    box = page.evaluate("Object.values(document.querySelector('#map').getBoundingClientRect().toJSON())")
    x, y, width, height = box[:4]
    return ((pixels > [x, y]) & (pixels < [x + width, y + height])).all(1)


def shown(text: str) -> str:
    """What a browser shows of a text: the page has 1,000 letters of it."""
    return text[:1000] if text.strip() else "(empty)"


def tip(page: "Page", place: "Place") -> str | None:
    """What appears at the pointer."""
    page.hover(place)
    return page.text("#tip p") if page.visible("#tip") else None


def listed(page: "Page") -> list[int]:
    """All rows of the list."""
    while page.visible("#more"):
        page.evaluate("document.querySelector('#more').click()")
    found = page.evaluate("[...document.querySelectorAll('#results button')].map((b) => Number(b.dataset.index))")
    return [int(i) for i in found]


def search(page: "Page", words: str) -> list[int]:
    """Type words, and all rows of the list."""
    page.evaluate("document.querySelector('#count').textContent = ''")
    page.evaluate("document.querySelector('#query').select()")
    page.type(words)
    page.wait("document.querySelector('#count').textContent")
    return listed(page)


def folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.lower()).replace("ς", "σ")


def expected_rows(words: str) -> list[int]:
    wanted = folded(words).split()
    return [i for i, text in enumerate(TEXTS) if all(word in folded(text[:1000]) for word in wanted)]


def color(page: "Page", place: "Place") -> list[int]:
    """Red, green, blue, opacity of the canvas."""
    script = f"""(() => {{ const drawn = document.querySelector('#points'), box = drawn.getBoundingClientRect();
        const copy = document.createElement('canvas').getContext('2d', {{ willReadFrequently: true }});
        copy.drawImage(drawn, box.left - {place.x}, box.top - {place.y});
        return [...copy.getImageData(0, 0, 1, 1).data]; }})()"""
    found: list[int] = page.evaluate(script)
    return found


# ---- what is seen ----------------------------------------------------------------------------------------------------


def test_dots_are_where_the_vectors_put_them(page: "Page", drawn: Path) -> None:
    pixels, points = positions(page), seen(drawn).points.astype(np.float64)
    scale = np.ptp(pixels[:, 0]) / np.ptp(points[:, 0])
    moved = points * [scale, -scale]
    assert_allclose(pixels - pixels[0], moved - moved[0], atol=0.01)
    assert inside(pixels, page).all()
    assert np.ptp(pixels[:, 0]) > 600 or np.ptp(pixels[:, 1]) > 600  # it fills the map
    page.settle()
    assert min(color(page, Place(x, y))[3] for x, y in pixels[::20]) > 150
    assert page.evaluate("document.title") == f"corpus.npy: a map of {len(TEXTS)} texts"
    assert page.text("h1") == "corpus.npy" and page.text("#count") == f"{len(TEXTS)} texts"


def test_hover_shows_the_text_of_the_dot(page: "Page") -> None:
    pixels = positions(page)
    alone = apart(pixels, 2)
    chosen = [*alone[::9], *(i for i in alone if i >= FIRST_HOSTILE)]
    assert len(chosen) > 25
    for i in chosen:
        said = tip(page, Place(*pixels[i]))
        assert said is not None
        beginning = said.removesuffix(" …")
        assert shown(TEXTS[i]).startswith(beginning) and len(beginning) >= min(300, len(shown(TEXTS[i])))
        assert page.text("#tip small") == f"row {i}"
    corner = pixels.min(0) - 20
    assert tip(page, Place(*corner)) is None


def test_zoom_and_drag_keep_the_dots_under_the_pointer(page: "Page") -> None:
    start = positions(page)
    chosen = apart(start, 6)[0]
    place = Place(*start[chosen].round())  # the wheel's events count whole pixels
    far = int(np.abs(start - place).max(1).argmax())
    away = np.linalg.norm(start[far] - place)
    for _ in range(6):
        page.mouse("mouseWheel", place, deltaX=0, deltaY=-300)
    position = f"trivecMap.position({far})"
    page.wait(f"Math.hypot({position}.x - {place.x}, {position}.y - {place.y}) > {36 * away}")
    page.settle()
    near = positions(page)
    assert_allclose(near - place, np.exp(6 * 300 * 0.002) * (start - place), rtol=1e-6, atol=0.01)
    at = Place(*near[chosen])
    assert tip(page, at) == shown(TEXTS[chosen])

    page.mouse("mousePressed", at, button="left", clickCount=1)
    for step in (20, 60, 90):
        page.mouse("mouseMoved", Place(at.x + step, at.y - step / 3), button="left", buttons=1)
    page.mouse("mouseReleased", Place(at.x + 90, at.y - 30), button="left", clickCount=1)
    at = Place(*positions(page)[chosen])
    assert_allclose(at, near[chosen] + np.array([90, -30]), atol=0.01)
    assert not page.visible("#pinned")  # a drag is no click
    assert tip(page, at) == shown(TEXTS[chosen])
    page.settle()
    assert color(page, at)[3] > 150

    page.evaluate("document.querySelector('#reset').click()")
    assert_allclose(positions(page), start, atol=0.01)


def test_a_click_pins_a_text(page: "Page") -> None:
    pixels = positions(page)
    chosen = apart(pixels, 6)[1]
    page.click(Place(*pixels[chosen]))
    assert page.text("#pinned p") == shown(TEXTS[chosen])
    assert page.text("#pinned h2") == f"Row {chosen}"
    page.hover(Place(*pixels.min(0) - 20))
    assert page.visible("#pinned")
    page.evaluate("document.querySelector('#unpin').click()")
    assert not page.visible("#pinned")


def test_dark_and_light(browser: "Chromium", drawn: Path) -> None:
    page = browser.open(drawn, dark=True)
    place = page.position(3)

    def colors() -> tuple[str, list[int]]:
        page.settle()
        return page.evaluate("getComputedStyle(document.body).backgroundColor"), color(page, place)[:3]

    dark_back, dark_dot = colors()
    page.dark(False)
    light_back, light_dot = colors()
    assert (dark_back, light_back) == ("rgb(18, 21, 26)", "rgb(255, 255, 255)")
    assert_allclose(dark_dot, [0x7A, 0xA7, 0xF0], atol=3)
    assert_allclose(light_dot, [0x35, 0x66, 0xB8], atol=3)
    page.close()


def test_a_small_screen(page: "Page") -> None:
    page.send("Emulation.setDeviceMetricsOverride", width=390, height=780, deviceScaleFactor=2, mobile=True)
    page.settle()
    page.settle()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.visible("#query") and page.visible("#results button")
    pixels = positions(page)
    assert inside(pixels, page).all()
    chosen = apart(pixels, 2)[0]
    assert tip(page, Place(*pixels[chosen])) == shown(TEXTS[chosen])


# ---- search and keys -------------------------------------------------------------------------------------------------


# fmt: off
QUERIES = ("cell", "gene PROTEIN", "  tumour\t3.5 ", "ΣΩ\u0342ΜΑΣ", "NAI\u0308VE", "京", "<b>", '& "x"', "no1",
           "it's no2", "{{points}}")
# fmt: on


@pytest.mark.parametrize("words", QUERIES)
def test_search_finds_exactly_the_matches(page: "Page", words: str) -> None:
    rows = search(page, words)
    assert rows == expected_rows(words) != []
    assert page.text("#count") == f"{len(rows)} of {len(TEXTS)} texts"
    marks = page.evaluate("[...document.querySelectorAll('#results mark')].map((m) => m.textContent)")
    assert {folded(mark) for mark in marks} >= set(folded(words).split())


def test_matches_stand_out(page: "Page") -> None:
    rows = set(search(page, "heart"))
    page.settle()
    pixels = positions(page)
    for i in apart(pixels, 14):
        red, _, blue, _ = color(page, Place(*pixels[i]))
        assert (red > blue) == (i in rows)


def test_no_match_and_escape(page: "Page") -> None:
    assert search(page, "zeppelin") == []
    assert page.text("#count") == "No text holds this."
    assert search(page, "zeppelin cell") == []
    assert page.text("#count") == "No text holds all of these words."
    page.key("Escape")
    page.wait(f"document.querySelector('#count').textContent === '{len(TEXTS)} texts'")
    assert page.evaluate("document.querySelector('#query').value") == ""


def test_without_a_mouse(page: "Page") -> None:
    page.key("/", "/")
    assert page.evaluate("document.activeElement.id + document.querySelector('#query').value") == "query"
    page.type("cell gene")
    rows = expected_rows("cell gene")
    page.wait(f"document.querySelector('#count').textContent.startsWith('{len(rows)} of')")
    page.key("Enter")
    assert page.text("#pinned p") == shown(TEXTS[rows[0]])
    page.key("ArrowDown")
    page.key("ArrowDown")
    page.key("Enter", "\r")
    assert page.text("#pinned p") == shown(TEXTS[rows[1]])
    page.key("Escape")
    assert not page.visible("#pinned")

    before = positions(page)
    page.evaluate("document.querySelector('#overlay').focus()")
    page.key("ArrowLeft")
    assert_allclose(positions(page), before + np.array([60, 0]), atol=0.01)
    page.key("+", "+")
    assert_allclose(np.ptp(positions(page)[:, 0]), 1.4 * np.ptp(before[:, 0]), rtol=1e-3)
    page.key("0", "0")
    assert_allclose(positions(page), before, atol=0.01)


def test_a_result_out_of_sight_is_brought_into_it(page: "Page") -> None:
    pixels = positions(page)
    far = int(pixels[:, 0].argmax())
    for _ in range(3):
        page.mouse("mouseWheel", Place(*pixels[int(pixels[:, 0].argmin())]), deltaX=0, deltaY=-300)
    page.wait(f"trivecMap.position({far}).x > 1200")
    page.evaluate("document.querySelector('#query').focus()")
    rows = search(page, f"no{far}.") if far < FIRST_HOSTILE else [far]
    page.evaluate(f"document.querySelector('#results button[data-index=\"{far}\"]').click()")
    assert far in rows and inside(positions(page), page)[far]


# ---- touch -----------------------------------------------------------------------------------------------------------


def touch(page: "Page", kind: str, *places: "Place") -> None:
    points = [{"x": place.x, "y": place.y, "id": i} for i, place in enumerate(places)]
    page.send("Input.dispatchTouchEvent", type=kind, touchPoints=points)


def test_fingers(page: "Page") -> None:
    page.send("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
    start = positions(page)
    chosen = apart(start, 6)[2]
    place = Place(*start[chosen])
    touch(page, "touchStart", place)
    touch(page, "touchEnd")
    page.wait("!document.querySelector('#pinned').hidden")
    assert page.text("#pinned p") == shown(TEXTS[chosen])

    left, right = Place(300, 400), Place(500, 400)
    touch(page, "touchStart", left, right)
    for step in (20, 60, 100):
        touch(page, "touchMove", Place(left.x - step, 400), Place(right.x + step, 400))
    touch(page, "touchEnd")
    page.settle()
    now = positions(page)
    assert_allclose(np.ptp(now[:, 0]), 2 * np.ptp(start[:, 0]), rtol=0.02)  # 200 pixels became 400
    middle = np.array([400, 400])
    assert_allclose(now - middle, 2 * (start - middle), rtol=0.05, atol=12)


# ---- texts that are no friends ---------------------------------------------------------------------------------------


def test_hostile_texts_are_shown_and_do_nothing(page: "Page") -> None:
    assert listed(page) == list(range(len(TEXTS)))
    for i in range(FIRST_HOSTILE, len(TEXTS)):
        page.evaluate(f"document.querySelector('#results button[data-index=\"{i}\"]').click()")
        assert page.text("#pinned p") == shown(TEXTS[i])
        note = "The first 1,000 of 1,048,576 letters; the page has no more." if len(TEXTS[i]) > 1000 else ""
        assert page.text("#pinned small") == note
    assert search(page, "<img src=x onerror='globalThis.executed") == expected_rows("<img onerror='globalThis.executed")
    assert page.evaluate("document.querySelectorAll('img, script').length") == 4
    assert page.evaluate("document.querySelectorAll('#pinned *, #results span *:not(mark)').length") == 4


def test_the_policy_holds(browser: "Chromium", drawn: Path) -> None:
    """Even what gets into the page runs nothing and fetches nothing."""
    page = browser.open(drawn)
    page.evaluate(
        """(() => { const script = document.createElement('script'), image = document.createElement('div');
        script.textContent = 'globalThis.executed = 1';
        image.innerHTML = '<img src=x onerror="globalThis.executed = 2"><iframe src="data:text/html,x"></iframe>';
        document.body.append(script, image); })()"""
    )
    said = page.evaluate("fetch('https://example.invalid/').then(() => 'fetched', (error) => error.name)")
    page.settle()
    assert said == "TypeError"
    assert page.evaluate("typeof executed") == "undefined"
    assert {event["response"]["url"] for event in page.events("Network.responseReceived")} == {drawn.as_uri()}
    violations = [event["entry"]["text"] for event in page.events("Log.entryAdded")]
    for directive in ("script-src 'sha256-", "img-src", "default-src 'none'"):
        assert any(directive in text for text in violations), violations
    page.close()


# ---- other numbers of texts ------------------------------------------------------------------------------------------


def test_equal_vectors_are_one_dot_that_has_all_texts(browser: "Chromium", tmp_path: Path) -> None:
    array = np.array([[0.0, 0], [5, 1], [5, 1], [9, 3], [5, 1]])
    maps.write(npy(tmp_path / "x.npy", array), tmp_path / "x.html", texts=["a", "b", "c", "d", "e"])
    page = browser.open(tmp_path / "x.html")
    place = page.position(2)
    assert tip(page, place) == "b"
    assert page.text("#tip small") == "row 1 · 2 more here: click again for the next"
    pinned = []
    for _ in range(4):
        page.click(place)
        pinned.append(page.text("#pinned p"))
    assert pinned == ["b", "c", "e", "b"]
    page.close()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_texts(browser: "Chromium", tmp_path: Path, count: int) -> None:
    array: Any = np.eye(3)[:count]
    texts = ["one", "two"][:count]
    maps.write(npy(tmp_path / "x.npy", array), tmp_path / "x.html", texts=texts)
    page = browser.open(tmp_path / "x.html")
    assert page.text("#count") == ("1 text" if count == 1 else f"{count} texts")
    pixels = positions(page, count)
    assert inside(pixels, page).all()
    assert [tip(page, Place(*pixel)) for pixel in pixels] == texts
    assert page.events("Runtime.exceptionThrown") == []
    page.close()


def test_a_sample_says_which_rows(browser: "Chromium", tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(5000)]
    source = npy(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(5000, 3)))
    maps.write(source, tmp_path / "x.html", texts=texts, limit=50)
    page = browser.open(tmp_path / "x.html")
    rows = seen(tmp_path / "x.html").rows
    assert "50 of 5,000 (a random sample)" in page.text("header dl")
    said = page.evaluate("[...document.querySelectorAll('#results button')].map((button) => button.innerText)")
    assert said == [f"text {row}\nrow {row:,}" for row in rows]
    page.close()
