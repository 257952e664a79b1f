"""The page of a server, as a person uses it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.support.chromium import Chromium, Page

READY = "document.querySelector('#news') && !document.querySelector('#news').textContent"
_REPORTS = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


@contextmanager
def opened(browser: Chromium, url: str, tab: str = "", ready: str = READY, **options: Any) -> Iterator[Page]:
    """The page in a tab; at the end: nothing was reported, and nobody but its server was asked."""
    page = browser.open(f"{url}/{tab and '#/' + tab}", ready=ready, **options)
    yield page
    assert reports(page) == []
    assert all(address.startswith(f"{url}/") for address in requests(page))
    assert page.evaluate("typeof executed") == "undefined"
    page.close()


def reports(page: Page) -> list[dict[str, Any]]:
    """What the browser's console has, and forget it."""
    return page.take(*_REPORTS)


def requests(page: Page) -> list[str]:
    """The addresses that were asked for, but for data in the page itself."""
    urls = [event["request"]["url"] for event in page.events("Network.requestWillBeSent")]
    return [url for url in urls if not url.startswith("data:")]


def bodies(page: Page, path: str) -> list[Any]:
    """What was posted to a path."""
    sent = [event["request"] for event in page.events("Network.requestWillBeSent")]
    return [json.loads(one["postData"]) for one in sent if one["url"].endswith(path) and one["method"] == "POST"]


def done(page: Page, tab: str) -> None:
    """Until an answer is shown."""
    page.wait(f"document.querySelector('#{tab}:not([hidden]) .out[aria-busy=false]')")


def put(page: Page, selector: str, value: str) -> None:
    """A value in a field, as if it had been typed or chosen."""
    page.evaluate(
        f"""(() => {{ const field = document.querySelector({json.dumps(selector)});
        field.value = {json.dumps(value)};
        for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, {{ bubbles: true }})); }})()"""
    )


def submit(page: Page, tab: str, **values: str) -> None:
    """Show a tab, fill in fields by the end of their names, and have it asked."""
    page.evaluate(f"document.querySelector('#tab-{tab}').click()")
    for name, value in values.items():
        put(page, f"#{tab}-{name.replace('_', '-')}", value)
    page.evaluate(f"document.querySelector('#{tab} form').requestSubmit()")
    done(page, tab)


def choose(page: Page, model: str) -> None:
    """Pick a model, and wait for what its tab shows."""
    put(page, "#model", model)
    done(page, page.evaluate("document.querySelector('[aria-selected=true]').getAttribute('aria-controls')"))


def texts(page: Page, selector: str) -> list[str]:
    """What elements show."""
    found = page.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)")
    return [str(text) for text in found]


def matrix(page: Page) -> npt.NDArray[np.float64]:
    """(N, N) numbers of the table, with all their digits."""
    found = page.evaluate(
        """[...document.querySelectorAll('#similarity tbody tr')].map((row) =>
        [...row.cells].slice(1).map((cell) => cell.title))"""
    )
    return np.array(found, dtype=np.float64)


def rankings(page: Page) -> dict[str, list[tuple[str, float]]]:
    """Lines and scores of each column of a search, by its title."""
    found: Sequence[Any] = page.evaluate(
        """[...document.querySelectorAll('#search section')].map((one) =>
        [one.querySelector('h2').firstChild.textContent, [...one.querySelectorAll('li')].map((li) =>
        [li.querySelector('span').textContent, Number(li.querySelector('b').textContent)])])"""
    )
    return {title: [(text, score) for text, score in rows] for title, rows in found}


def bars(page: Page) -> list[dict[str, float]]:
    """Terms and numbers of each column of the sparse tab."""
    found = page.evaluate(
        """[...document.querySelectorAll('#sparse section')].map((one) =>
        [...one.querySelectorAll('li')].map(({ children: [term, value] }) =>
        [term.textContent, Number(value.textContent)]))"""
    )
    return [dict(rows) for rows in found]


def code(page: Page, tab: str, form: str) -> str:
    """What Copy as gives."""
    page.evaluate(f"document.querySelector('#{tab} [data-form={form}]').click()")
    page.wait(f"document.querySelector('#{tab} .copied').textContent")
    return page.text(f"#{tab} pre")
