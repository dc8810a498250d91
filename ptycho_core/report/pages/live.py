"""The page of a work in progress, served while it lasts (specs/live.md, Page)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import ipaddress
import logging
import re
import secrets
import socket
import threading
import time
from typing import Any

from ptycho_core.errors import ConfigurationError
from ptycho_core.report.pages.board import Board, Drawing
from ptycho_core.report.pages.document import TEMPLATES
from ptycho_core.report.pages.figures import FRAME, Maps, curves, plotting, positions

log = logging.getLogger(__name__)

PORT = 5006
PERIOD_MS, CURVES_SECONDS = 200, 1.0
"""From one look at the board to the next, and from one drawing of the curves to the next."""
MOST_PAGES = 64  # specs/live.md, Page
END_SECONDS = 2.0
"""How long the last state is kept there for pages to fetch it."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
INLINE = re.compile(rb"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
TITLES = {"rate": "frames placed a second", "lag_s": "lag (s)", "course": "course"}
LABELS = {
    "done": "done",
    "rate": "rate",
    "lag_s": "lag",
    "received": "received",
    "waiting": "waiting",
    "unplaced": "without a position",
    "duplicates": "duplicates",
    "polished": "tiles polished",
}


def address_of(text: str) -> tuple[str, int]:
    """Host and port of `PORT` or `HOST:PORT`. Raises ConfigurationError."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        remedy = f"Write --serve={PORT}, or --serve=0.0.0.0:{PORT} for other machines."
        raise ConfigurationError("--serve", expected="PORT or HOST:PORT", received=repr(text), remedy=remedy)
    return host.strip("[]") or "127.0.0.1", int(port)


class Service:
    """The page of a board, in this process. `url`: its address, with a secret in it where other machines can reach it.

    Raises MissingExtraError without the extra `pages`, ConfigurationError where the port is not free.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = PORT) -> None:
        plotting()
        from jinja2 import Template

        self._template = Template((TEMPLATES / "served.html.jinja").read_text(encoding="utf-8"), autoescape=True)
        self.board = Board()
        self._pages = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Any = None
        started: list[Any] = []
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(host, port, started, ready), daemon=True, name="page")
        self._thread.start()
        ready.wait()
        (outcome,) = started
        if isinstance(outcome, BaseException):
            raise outcome
        self.url: str = outcome

    def close(self) -> None:
        """End the service, once open pages had a moment to show the last state."""
        self.board.ended = True
        self.board.version += 1
        if self._pages:
            time.sleep(END_SECONDS)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)

    # -- in the thread of the server -----------------------------------------------------------------------------------

    def _serve(self, host: str, port: int, started: list[Any], ready: threading.Event) -> None:
        loop = self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            started.append(self._start(host, port))
        except BaseException as error:  # noqa: BLE001 - raised again by the one who waits
            started.append(error)
            return
        finally:
            ready.set()
        loop.run_forever()
        self._server.stop(wait=False)
        loop.close()

    def _start(self, host: str, port: int) -> str:
        from bokeh.application import Application
        from bokeh.application.handlers.function import FunctionHandler
        from bokeh.server.server import BaseServer
        from tornado.httpserver import HTTPServer
        from tornado.ioloop import IOLoop
        from tornado.netutil import bind_sockets

        near = host in LOOPBACK or _is_loopback(host)
        token = "" if near else secrets.token_urlsafe(16)
        try:
            sockets = bind_sockets(port, host)
        except OSError as error:
            remedy = "Give another port, such as --serve=5007; --serve=0 takes any that is free."
            raise ConfigurationError(
                "--serve", expected=f"a free port on {host}", received=f"{port}: {error.strerror}", remedy=remedy
            ) from error
        number = sockets[0].getsockname()[1]
        origins = [f"{name}:{number}" for name in (*LOOPBACK, "[::1]", host)] if near else ["*"]
        for noisy in ("bokeh.server.views.ws", "tornado.access"):  # a browser that leaves is no fault
            logging.getLogger(noisy).setLevel(logging.ERROR)
        app = Application(FunctionHandler(self._document))
        tornado = _guarded(LOOPBACK if near else None)(
            {"/": app},
            prefix=token,
            extra_websocket_origins=origins,
            transforms=[_policy()],
            include_headers=[],
            include_cookies=[],
            keep_alive_milliseconds=10_000,
            check_unused_sessions_milliseconds=5_000,
            unused_session_lifetime_milliseconds=10_000,
        )
        server = HTTPServer(tornado, max_buffer_size=2**22)
        server.add_sockets(sockets)
        self._server = BaseServer(IOLoop.current(), tornado, server)
        self._server.start()
        host = socket.gethostname() if host in ("0.0.0.0", "::") else host
        named = f"[{host}]" if ":" in host else host
        return f"http://{named}:{number}/{f'{token}/' if token else ''}"

    def _document(self, doc: Any) -> None:
        """One browser's page."""
        from bokeh.models import Div, Row

        doc.title = "ptycho-core"
        doc.theme = None
        doc.template = self._template
        doc.config.notify_connection_status = False  # the template does
        with self._lock:
            many = self._pages >= MOST_PAGES
            self._pages += not many
        if many:
            doc.add_root(Div(text=f"{MOST_PAGES} pages are open already: close one, then load this one again."))
            return
        page = _Page(self.board, Div, Row)
        for root in page.roots:
            doc.add_root(root)
        pictures = [] if page.drawing is None else list(page.drawing.images.values())
        doc.template_variables.update(pictures=pictures, side=FRAME)
        doc.add_next_tick_callback(page.update)  # figures take longer, and come while the browser reads its scripts
        doc.add_periodic_callback(page.update, PERIOD_MS * (1 + self._pages // 8))
        doc.on_session_destroyed(self._left)

    def _left(self, context: Any) -> None:
        with self._lock:
            self._pages -= 1


class _Page:
    """The models of one browser's page, brought up to date from the board.

    `roots`: what a browser lays out on its own, so that a line of text that changes does not lay out the figures again.
    `drawing`: of the board when the page was asked for, whose pictures come with it.
    """

    def __init__(self, board: Board, div: Any, row: Any) -> None:
        self.board, self._version, self._drawn, self._due = board, -1, -1, 0.0
        self.drawing = board.drawing
        self.status, self.warnings = (div(name=name, width=1400, disable_math=True) for name in ("status", "warnings"))
        self.pattern = div(name="pattern", width=FRAME + 20)
        self.maps_row, self.plots_row = row(div(width=0, height=0), name="maps"), row(self.pattern, name="plots")
        self.roots = self.status, self.maps_row, self.plots_row, self.warnings
        self.maps: Maps | None = None
        self.places: Any = None
        self.shown = 0
        self.plots: dict[tuple[str, ...], Any] = {}
        self._say()

    def update(self) -> None:
        board, version = self.board, self.board.version
        if version != self._drawn and (board.ended or time.monotonic() > self._due):
            self._drawn, self._due = version, time.monotonic() + CURVES_SECONDS
            self._curves()
        if version == self._version:
            return
        self._version = version
        self._say()
        drawing = board.drawing
        if drawing is not None and drawing.number != self.shown:
            self.shown = drawing.number
            self._show(drawing)

    def _say(self) -> None:
        self.status.text = _status(self.board)
        self.warnings.text = "".join(f"<p>{html.escape(warning)}</p>" for warning in self.board.warnings)

    def _show(self, drawing: Drawing) -> None:
        canvas = drawing.canvas
        if self.maps is None:
            self.maps = Maps.of(list(drawing.images), canvas)
            beside = self.maps.figures["amplitude"]
            figures = list(self.maps.figures.values())
            if len(drawing.positions_px):
                self.places = positions(drawing.positions_px, canvas, beside=beside)
                figures.append(self.places)
            self._framed = False
            self.maps_row.children = figures
            self._extent = canvas.known.shape
        for name, image in drawing.images.items():
            if name in self.maps.figures:
                self.maps.show(name, image, canvas)
        if self.places is not None:
            x, y = canvas.scale.places(drawing.positions_px).T
            source = self.places.select_one({"name": "places"})
            zeros = [float("nan")] * len(x)
            source.data = {"x": x, "y": y, "misfit": zeros, "frame": list(range(len(x)))}
        if canvas.known.shape != self._extent:
            self._extent = canvas.known.shape
            self.maps.frame(canvas)  # the mosaic has grown
        if drawing.pattern is not None:
            style = f"width:{FRAME}px;height:{FRAME}px;image-rendering:pixelated"
            shown = f'<img alt="last pattern" style="{style}" src="{drawing.pattern}">'
            self.pattern.text = f"<b>last pattern</b><br>{shown}"

    def _curves(self) -> None:
        """Curves of one kind share a figure: rates and lags are no losses."""
        groups: dict[str, dict[str, Any]] = {}
        for name, row in self.board.curves.items():
            if name != "waiting":
                groups.setdefault(name if name in TITLES else "course", {})[name] = row
        for group, rows in groups.items():
            key = (group, *rows)
            figure = self.plots.get(key)
            if figure is None:
                figure = curves(rows, title=TITLES[group], x=self.board.unit, y="", linear=group != "course")
                stale = next((each for each in self.plots if each[0] == group), None)
                kept = [child for child in self.plots_row.children if stale is None or child is not self.plots[stale]]
                if stale is not None:
                    del self.plots[stale]
                self.plots[key] = figure
                self.plots_row.children = [figure, *kept]
                continue
            for renderer in figure.renderers:
                if renderer.name in rows:
                    x, y = rows[renderer.name]
                    renderer.data_source.data = {"x": list(x), "y": list(y)}


def _status(board: Board) -> str:
    """A line of what the work has come to; all of it text, whatever it says."""
    told = board.status
    parts = [f"<b>{html.escape(told['state'])}</b>"]
    parts += [f"{label}: {html.escape(told[name])}" for name, label in LABELS.items() if name in told]
    drawing = board.drawing
    placed = "" if drawing is None else f" · image of {drawing.placed}"
    ended = "<b> The work has ended.</b>" if board.ended else ""
    return f"{' · '.join(parts)}{placed}{ended}<br>{html.escape(told.get('message', ''))}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _guarded(hosts: tuple[str, ...] | None) -> Any:
    """The application, which answers under its own names alone: another site's name that leads here is none."""
    from bokeh.server.tornado import BokehTornado
    from tornado.web import ErrorHandler

    class Guarded(BokehTornado):  # type: ignore[misc]
        def resources(self, absolute_url: Any = None) -> Any:
            found = super().resources(absolute_url)
            found.components = ["bokeh", "bokeh-widgets"]  # what the page is made of, and no formulas or tables
            return found

        def find_handler(self, request: Any, **more: Any) -> Any:
            name = request.host_name.strip("[]").lower()
            if hosts is not None and name not in hosts:
                log.warning("the page was asked for under the name %r, and refused", name[:100])
                return self.get_handler_delegate(request, ErrorHandler, {"status_code": 421})
            if request.method not in ("GET", "HEAD"):
                return self.get_handler_delegate(request, ErrorHandler, {"status_code": 405})
            return super().find_handler(request, **more)

    return Guarded


def _policy() -> Any:
    """Headers of every answer. The scripts that are in a page may run, by their digests, and those of this server."""
    from tornado.web import OutputTransform

    class Policy(OutputTransform):  # type: ignore[misc]
        def transform_first_chunk(self, status_code: int, headers: Any, chunk: bytes, finishing: bool) -> Any:
            scripts = INLINE.findall(chunk) if "html" in headers.get("Content-Type", "") else []
            digests = "".join(
                f" 'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts
            )
            headers["Content-Security-Policy"] = (
                f"default-src 'none'; script-src 'self'{digests}; style-src 'self' 'unsafe-inline'; "
                "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; "
                "form-action 'none'; frame-ancestors 'none'"
            )
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            if "javascript" not in headers.get("Content-Type", ""):  # whose address changes with it
                headers["Cache-Control"] = "no-store"
            return status_code, headers, chunk

    return Policy
