"""`trivec serve` with a cross-encoder that the tests have: python -m tests.support.serve_scorers NAME=FOLDER ..."""

import logging
import sys

from tests.support.serving import WordScorer

import trivec
from trivec.server import App, Settings
from trivec.server._models import Model
from trivec.server._process import Process, listen


def main() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    folders = dict(argument.split("=") for argument in sys.argv[1:])
    settings = Settings(keys={"sk-loopback-0123456789abcdef": "tests"})
    app = App({name: Model(name, settings) for name in (*folders, "words")}, {}, settings)
    listener = listen("127.0.0.1", 0)
    logging.getLogger("trivec.server").info("listening on http://127.0.0.1:%d", listener.getsockname()[1])

    def load() -> None:
        app.open("words", WordScorer())
        for name, folder in folders.items():
            app.open(name, trivec.load(folder, device="cpu", threads=1))

    Process(app, listener, load).run()


if __name__ == "__main__":
    main()
