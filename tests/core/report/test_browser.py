"""The pages in a real browser: they draw, zoom together, grow, run no script of a file, and answer no stranger."""

from __future__ import annotations

import http.client
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from ptycho_core_reference import ReferenceEngine

from ptycho_core import simulate
from ptycho_core.errors import ConfigurationError
from ptycho_core.events import Event
from ptycho_core.live import LiveReconstruction, Setup
from ptycho_core.report.pages import write_report
from ptycho_core.report.pages.live import Service, address_of
from ptycho_core.report.pages.served import LivePage
from ptycho_core.settings.solving import SolveConfig
from tests.core.reconstructions import make_reconstruction

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = "<img src=x onerror='window.evil=1'><script>window.evil=1</script>"
X_RANGE = """name => {
    const figure = Bokeh.documents[0].get_model_by_name(name)
    return [figure.x_range.start, figure.x_range.end, figure.y_range.start]
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with api.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that has to raise no error, break no policy and ask nobody else."""
    context = browser.new_context(viewport={"width": 1580, "height": 950})
    shown, faults, asked = context.new_page(), [], []
    shown.on("pageerror", lambda error: faults.append(str(error)))
    shown.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    shown.on("request", lambda request: asked.append(urlsplit(request.url)))
    yield shown
    assert [fault for fault in faults if "favicon" not in fault] == []
    assert {url.hostname for url in asked if url.scheme not in ("data", "file", "blob")} <= {"127.0.0.1"}
    assert shown.evaluate("window.evil") is None
    context.close()


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def zoomed(page: Any) -> None:
    """Scrolling over the amplitude zooms the phase and the positions with it."""
    until(lambda: page.evaluate("!!(window.Bokeh && Bokeh.documents[0]?.get_model_by_name('positions'))"))
    before = page.evaluate(X_RANGE, "amplitude")
    until(lambda: page.evaluate("Bokeh.index.roots.length > 0"))
    page.mouse.move(160, 260)
    page.mouse.wheel(0, -400)
    after = until(lambda: (now := page.evaluate(X_RANGE, "amplitude")) != before and now)
    assert after[1] - after[0] < before[1] - before[0]
    for name in ("phase", "positions"):
        assert page.evaluate(X_RANGE, name) == after


def test_a_report_draws_and_zooms_without_a_server(page: Any, tmp_path: Path) -> None:
    make_reconstruction(N=16, source=EVIL).save(tmp_path)
    page.goto(write_report(tmp_path, tmp_path / "report.html").as_uri())
    zoomed(page)
    assert "40 patches" in page.inner_text("body")
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")


def test_a_mosaic_grows_on_the_page_while_frames_come(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptycho_core.live.reconstruction.load_engine", lambda backend: ReferenceEngine())
    scan = simulate(N=16, positions=90, step_px=4, object="lines", photons=1e5, seed=3, scan="raster")
    live = LiveReconstruction(SolveConfig(), Setup.of(scan, expected=90))
    served = LivePage(port=0)
    amplitude, go = np.asarray(scan.diffraction_amplitude), threading.Event()

    def measure() -> None:
        for part in np.array_split(np.arange(90), 15):
            live.add(amplitude[part], scan.positions_px[part], frames=part)
            served(live.report())
            while part[-1] == 47 and not go.wait(0.25):  # until the first part was seen
                served(live.report())
            time.sleep(0.1)
        served(live.report())
        served(Event(kind="warning", work="watch", message=EVIL))
        served(Event(kind="finished", work="watch"))

    work = threading.Thread(target=measure)
    work.start()
    page.goto(served.url)
    size = """() => {
        const figure = window.Bokeh?.documents[0]?.get_model_by_name('amplitude')
        return figure ? figure.renderers[0].data_source.data.h[0] : 0
    }"""
    first = until(lambda: page.evaluate(size))
    with urlopen(served.url) as asked:  # by another browser, whose page comes with the picture so far
        assert b'<div>amplitude<img alt="" width="232" height="232" src="data:image/webp;base64,' in asked.read()
    go.set()
    last = until(lambda: (now := page.evaluate(size)) > first and now)
    text = until(lambda: "watch: finished" in (now := page.evaluate(ALL_TEXT)) and now)
    work.join()
    until(lambda: page.evaluate(size) == live_height(live))
    until(lambda: page.query_selector("#first") is None)
    zoomed(page)  # of what has grown to its end: a mosaic that grows is shown as a whole again
    assert last > first and "done: 90 frames of 90" in text and "image of" in text
    assert "onerror" in page.evaluate(ALL_TEXT)  # as text
    live.close()
    served.close()
    assert until(lambda: page.inner_text("#connection")) == "The work has ended. The page stays as it was."
    assert "onnection was lost" not in page.evaluate(ALL_TEXT)  # which Bokeh would say


ALL_TEXT = """() => {
    const found = root => [...root.querySelectorAll('*')].map(
        each => each.shadowRoot ? found(each.shadowRoot) : '').join(' ') + root.textContent
    return found(document.body)
}"""


def live_height(live: LiveReconstruction) -> int:
    rows = np.flatnonzero(live.known_field()[1].any(axis=1))
    return int(rows[-1] - rows[0] + 1)


def answer(url: str, **changes: str) -> tuple[int, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
    headers = {"Host": changes.get("host", parts.netloc)}
    connection.request(changes.get("method", "GET"), changes.get("path", parts.path), headers=headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, response.headers


def test_the_page_answers_under_its_own_name_and_changes_nothing(
    core_log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptycho_core.report.pages.live.END_SECONDS", 0.0)  # no browser waits for the last state
    near = Service(port=0)
    status, headers = answer(near.url)
    policy = headers["Content-Security-Policy"]
    assert status == 200 and "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    assert answer(near.url, host="evil.example")[0] == 421 and "evil.example" in core_log.text
    assert [answer(near.url, method=method)[0] for method in ("POST", "PUT", "DELETE")] == [405] * 3
    port = urlsplit(near.url).port
    with pytest.raises(ConfigurationError, match=r"--serve: expected a free port on 127.0.0.1; received .*--serve=0"):
        Service(port=port or 0)
    near.close()
    far = Service("0.0.0.0", 0)
    url = f"http://127.0.0.1:{urlsplit(far.url).port}{urlsplit(far.url).path}"
    assert len(urlsplit(url).path) > 20
    assert answer(url)[0] == 200 and answer(url, path="/")[0] == 404
    far.close()


def test_an_address_is_a_port_or_a_host_and_a_port() -> None:
    assert address_of("5006") == ("127.0.0.1", 5006) and address_of("[::1]:8") == ("::1", 8)
    with pytest.raises(ConfigurationError, match="expected PORT or HOST:PORT"):
        address_of("scan.npz")
