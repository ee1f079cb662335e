"""What the tests share: a drawing backend without a window, and the measured data where a copy is at hand."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")
# the same examples on every machine, and no deadline: a loaded machine is slow, not wrong
settings.register_profile("rnclib", deadline=None, derandomize=True, database=None)
settings.load_profile("rnclib")

ESOL_FILE = "esol/raw/delaney-processed.csv"


@pytest.fixture(scope="session")
def esol():
    """The measured data set, which only a machine with a copy of it has."""
    root = os.environ.get("RNC_DATA")
    if not root:
        pytest.skip(f"RNC_DATA is unset: it should name a folder that holds {ESOL_FILE}")
    if not (Path(root) / ESOL_FILE).is_file():
        pytest.skip(f"RNC_DATA={root} does not hold {ESOL_FILE}")
    from rnclib.data.esol import load_esol

    return load_esol(urls=())


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built book with one more chapter; built once, however many processes run the tests."""
    pytest.importorskip("jupyter_book")
    from built_book import build, lay_out
    from filelock import FileLock

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of the folders that each process has to itself
    root, done = shared / "book", shared / "book-is-built"
    with FileLock(shared / "book.lock"):
        if not root.exists():
            root.mkdir()
            lay_out(root)
            build(root)
            done.touch()
    assert done.exists(), "the process that builds the book could not"
    return root / "_build" / "html"


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by playwright, whose event loop runs as long: so one for each file, not for all tests."""
    api = pytest.importorskip("playwright.sync_api", reason="nothing is seen in a browser: playwright is missing")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("nothing is seen in a browser: there is no chromium, and CHROMIUM does not say where one is")
    flags = ("no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
             "disable-component-update", "disable-sync")  # fmt: skip
    with api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=chromium, args=[f"--{flag}" for flag in flags])
        yield found
        found.close()


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of its own, one thread, and a stand-in of 120 molecules, made when first asked for."""
    import torch
    from worlds import molecules, put

    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    put(monkeypatch, "standin", molecules)
    torch.set_num_threads(1)


@pytest.fixture
def small_world(own_cache):
    """That, and the 120 molecules."""
    from worlds import molecules

    return molecules()


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """120 synthetic faces of 16 pixels, drawn once."""
    from rnclib.data import synthetic

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RNC_CACHE", str(tmp_path_factory.mktemp("faces")))
        return synthetic.load_faces(120, 16, progress=False)


@pytest.fixture
def small_faces(own_cache, faces, monkeypatch):
    """Those faces in place of what the catalogue has."""
    from worlds import put

    put(monkeypatch, "synthetic", lambda **_: faces)
    return faces


@pytest.fixture(scope="session")
def agedb_folder(tmp_path_factory):
    """300 synthetic faces of 24 pixels in a folder laid out like AgeDB."""
    from rnclib.data.synthetic import make_faces

    root = tmp_path_factory.mktemp("agedb")
    make_faces(root, 300, 24, seed=3, progress=False)
    return root


@pytest.fixture
def damageable(agedb_folder, tmp_path):
    """A copy of that folder which a test may damage."""
    return Path(shutil.copytree(agedb_folder, tmp_path / "copy"))


@pytest.fixture(scope="session")
def public_table():
    """AgeDB's public labels, which only a machine with a copy of them has."""
    from rnclib.data import agedb

    try:
        return agedb.read_table(urls=())
    except FileNotFoundError:
        pytest.skip(f"RNC_DATA does not hold {agedb.FILE}")


@dataclass
class Server:
    """A web server on this machine that answers each path by a script, and counts."""

    url: str = ""
    script: dict[str, list] = field(default_factory=dict)  # the last answer is given again and again
    requests: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(handler.path)
        answers = self.script.get(handler.path, [404])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, int):
            handler.send_error(answer)
            return
        body, claimed = answer if isinstance(answer, tuple) else (answer, len(answer))
        handler.send_response(200)
        handler.send_header("Content-Length", str(claimed))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server to download from, with an empty cache and without ``RNC_DATA``."""
    import pooch

    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.answer(self)

        def log_message(self, *arguments):
            pass

    monkeypatch.delenv("RNC_DATA", raising=False)
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(pooch.core, "time", SimpleNamespace(sleep=state.waits.append))  # retries need no rest here
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        http.shutdown()
        thread.join()
