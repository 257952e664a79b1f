"""The page of a server in a headless Chromium, as it is used: keys, errors, odd texts, no mouse.

Type scripts/chromium to get the browser.
"""

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.support.chromium import Chromium, Page
from tests.support.on_port import on_port
from tests.support.server_pages import (
    READY,
    choose,
    code,
    done,
    matrix,
    opened,
    put,
    rankings,
    reports,
    requests,
    submit,
    texts,
)
from tests.support.serving import ServeProcess

import trivec
import trivec.server
from trivec.server import Settings
from trivec.server._models import Model

HOSTILE = ["</script><script>globalThis.executed = 1</script>", "<img src=x onerror='globalThis.executed = 2'>",
           "{{script}} ${1} `x` \\ \"quotes\" 'single' $HOME", "مرحبا بالعالم كيف حالك", "cat\u2028dog"]  # fmt: skip
ARABIC = "السلام عليكم ورحمة الله وبركاته"


# ---- keys, limits, errors --------------------------------------------------------------------------------------------


def test_a_key(browser: Chromium, page_encoders: dict[str, Any]) -> None:
    app = trivec.server.app({"tiny": page_encoders["tiny"]}, keys={"sk-right": "me"}, open_metrics=False)
    asks = "document.querySelector('#news')?.textContent.includes('wants a key')"
    with on_port(app) as url, opened(browser, url, ready=asks) as page:
        assert requests(page) == [f"{url}/"]
        assert page.evaluate("document.activeElement.id") == "key"
        for wrong in ("sk-wrong", "schlüssel"):
            page.evaluate("document.querySelector('#key').select()")
            page.type(wrong)
            page.key("Enter", "\r")
            page.wait("document.querySelector('#news.bad')?.textContent === 'The server does not know this key.'")
            page.evaluate("document.querySelector('#news').textContent = ''")
        (told,) = reports(page)  # the browser itself tells of a 401
        assert "401" in told["entry"]["text"]
        page.evaluate("document.querySelector('#key').select()")
        page.type("sk-right")
        page.key("Enter", "\r")
        done(page, "similarity")
        assert matrix(page).shape == (6, 6)
        page.wait("!document.querySelector('#figures').hidden")
        snippet = code(page, "similarity", "curl")
        assert "$TRIVEC_API_KEY" in snippet
        assert 'os.environ["TRIVEC_API_KEY"]' in code(page, "similarity", "python")
        kept = page.evaluate(
            "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href, history.state])"
        )
        assert "sk-right" not in kept + snippet
    app.close(encoders=False)


def test_errors_are_said_in_words(browser: Chromium, page_encoders: dict[str, Any]) -> None:
    app = trivec.server.app({"tiny": page_encoders["tiny"]}, max_request_tokens=100, on_overflow="error")
    with on_port(app) as url, opened(browser, url) as page:
        done(page, "similarity")
        said = []
        for lines in ("\n".join(["the cat sat"] * 25), "cat " * 40, " \n ", "\n".join(["a"] * 501)):
            submit(page, "similarity", texts=lines)
            said.append(page.text("#similarity .said.bad"))
            assert texts(page, "#similarity td") == []
            assert not page.visible("#similarity .copy")
        assert said[0] == "The texts have 125 tokens, and --max-request-tokens is 100. Send fewer. (400)"
        assert said[1].startswith("input.0 has 42 tokens, and 'tiny' reads 16 of a text.")
        assert said[2] == "There is no text. Write one a line."
        assert said[3].startswith("There are 501 lines, and this page takes 500.")
        assert len(reports(page)) == 2  # the browser itself tells of a 400
        submit(page, "similarity", texts="a cat")
        assert matrix(page).shape == (1, 1)
    app.close(encoders=False)


def test_a_server_that_is_gone(browser: Chromium, page_encoders: dict[str, Any]) -> None:
    app = trivec.server.app({"tiny": page_encoders["tiny"]})
    with on_port(app) as url:
        page = browser.open(f"{url}/", ready=READY)
        done(page, "similarity")
    submit(page, "similarity", texts="a cat")
    assert page.text("#similarity .said.bad") == "The server cannot be reached. Is it still running?"
    page.close()
    app.close(encoders=False)


def test_models_that_load_are_waited_for(browser: Chromium, page_encoders: dict[str, Any]) -> None:
    settings = Settings(warm_up="none")
    app = trivec.server.App({"tiny": Model("tiny", settings)}, {}, settings)
    with on_port(app) as url:
        page = browser.open(f"{url}/", ready="document.querySelector('#news')?.textContent.includes('are loading')")
        app.open("tiny", page_encoders["tiny"])
        app.begin()
        done(page, "similarity")
        assert matrix(page).shape == (6, 6)
        page.close()
    app.close(encoders=False)


# ---- how it is used --------------------------------------------------------------------------------------------------


def test_without_a_mouse(page: Page) -> None:
    choose(page, "m3")
    page.evaluate("document.querySelector('#model').focus()")
    order = []
    active = (
        "(({ id, type, textContent, className }) => id || (type ? textContent : className))(document.activeElement)"
    )
    for _ in range(10):
        order.append(page.evaluate(active))
        page.key("Tab")
    inputs = ["model", "tab-similarity", "similarity-texts", "similarity-side", "similarity-head", "Compare"]
    assert order == [*inputs, "scroll", "curl", "Python", "LangChain"]
    page.evaluate("document.querySelector('#tab-similarity').focus()")
    for name, tab in (
        ("ArrowRight", "tokens"),
        ("ArrowLeft", "similarity"),
        ("ArrowLeft", "search"),
        ("Home", "similarity"),
        ("End", "search"),
    ):
        page.key(name)
        assert page.evaluate("document.activeElement.id") == f"tab-{tab}"
        assert page.evaluate("location.hash") == f"#/{tab}"
        done(page, tab)
    page.evaluate("document.querySelector('#tab-similarity').click()")
    put(page, "#similarity-texts", "a cat\na dog")
    page.evaluate("document.querySelector('#similarity-texts').focus()")
    page.type("\na bird\n")
    assert page.evaluate("document.querySelector('#similarity .out').classList.contains('stale')")
    page.key("Enter", modifiers=2)
    done(page, "similarity")
    assert matrix(page).shape == (3, 3)


@pytest.mark.parametrize("width", [360, 1600])
def test_long_and_right_to_left_texts(page: Page, width: int) -> None:
    page.send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    choose(page, "m3")
    long, unbroken = "the cat sat " * 833 + "abcd", "x" * 10_000
    lines = [ARABIC, long, unbroken, *HOSTILE]
    submit(page, "similarity", texts="\n".join(lines))
    assert texts(page, "#similarity tbody bdi") == [line[:300] for line in lines]
    box = "getComputedStyle(document.querySelectorAll('#similarity tbody bdi')[{}]).direction"
    assert page.evaluate(box.format(0)) == "rtl"
    assert page.evaluate(box.format(1)) == "ltr"
    assert page.evaluate("document.documentElement.scrollWidth") == width
    submit(page, "search", texts="\n".join(lines), question=ARABIC)
    shown = rankings(page)
    assert {line for line, _ in shown["Hybrid"]} == {line[:1000] for line in lines}
    assert page.evaluate("getComputedStyle(document.querySelector('#search .hits span')).direction") in ("rtl", "ltr")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    submit(page, "tokens", text=long)
    assert len(texts(page, "#tokens li")) == 2 + len(long.split())
    assert len(texts(page, "#tokens .cut")) == len(long.split()) - 14
    submit(page, "tokens", text=ARABIC)
    assert texts(page, "#tokens bdi")[1:-1] == ARABIC.split()
    submit(page, "sparse", first=unbroken, second=HOSTILE[0])
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.querySelectorAll('img').length") == 0


def test_dark_and_light(browser: Chromium, url: str) -> None:
    with opened(browser, url, dark=True) as page:
        done(page, "similarity")
        color = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(color) == "rgb(18, 21, 26)"
        page.dark(False)
        assert page.evaluate(color) == "rgb(255, 255, 255)"


def test_the_policy_holds(browser: Chromium, url: str) -> None:
    """Even what gets into the page runs nothing, and asks nobody else."""
    page = browser.open(f"{url}/", ready=READY)
    assert (
        page.evaluate("fetch('https://example.invalid/').then(() => 'fetched', (error) => error.name)") == "TypeError"
    )
    assert page.evaluate("fetch('info').then((answer) => answer.status)") == 200
    said = page.evaluate(
        """(() => { const script = document.createElement('script');
        try { script.textContent = 'globalThis.executed = 1'; } catch (error) { return error.name; }
        document.body.append(script); return 'ran'; })()"""
    )
    assert said == "TypeError"
    assert page.evaluate("typeof executed") == "undefined"
    assert {event["response"]["url"].startswith(f"{url}/") for event in page.events("Network.responseReceived")} == {
        True
    }
    page.close()


def test_below_a_prefix(browser: Chromium, page_encoders: dict[str, Any]) -> None:
    app = trivec.server.app({"tiny": page_encoders["tiny"]})
    with on_port(Starlette(routes=[Mount("/emb", app)])) as url, opened(browser, f"{url}/emb") as page:
        done(page, "similarity")
        assert f"'{url}/emb/v1/embeddings'" in code(page, "similarity", "curl")
    app.close(encoders=False)


def test_a_process_and_without_a_page(browser: Chromium, folders: dict[str, Path]) -> None:
    with ServeProcess(f"tiny={folders['tiny']}") as served, opened(browser, f"http://127.0.0.1:{served.port}") as page:
        done(page, "similarity")
        assert matrix(page).shape == (6, 6)
    get = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with ServeProcess(f"tiny={folders['tiny']}", "--no-ui") as served:
        head, _, body = served.raw(get).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b""
