"""Serves the page of activations to a browser on this machine, frame by frame, while a camera runs."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse
from collections.abc import Callable
from typing import Any

from tfcnn.errors import InputError

HOST = "127.0.0.1"
_WAIT = 5.0  # seconds that a browser is kept waiting for a frame


class Server:
    """A web server of two addresses: the page, and the newest frame's answers as JSON.

    It listens on this machine alone, and answers only those who call it by this machine's name, so that no page from
    elsewhere can read what the camera sees.

    Args:
        page: HTML, given at /.
        describe: (what `publish` was given, a layer's number, a channel) -> what the page shows, as JSON's types;
            called in the server's threads.
        port: to listen on; 0 takes a free one.

    Raises:
        InputError: the port is taken or not allowed.
    """

    def __init__(self, page: bytes, describe: Callable[[Any, int, int], dict], port: int = 0):
        self._page, self._describe = page, describe
        self._number, self._frame, self._ended = -1, None, False
        self._news = threading.Condition()
        try:
            self._server = http.server.ThreadingHTTPServer((HOST, port), self._handler())
        except OSError as error:
            raise InputError(f"port {port} cannot be listened on: {error.strerror or error}") from error
        self._server.daemon_threads = True
        self.address = f"http://{HOST}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def publish(self, frame: Any) -> None:
        """Make this the newest frame; whoever waits for one gets it."""
        with self._news:
            self._number, self._frame = self._number + 1, frame
            self._news.notify_all()

    def close(self) -> None:
        """Tell those who wait that it has ended, and listen no more."""
        with self._news:
            self._ended = True
            self._news.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, layer: int, channel: int, after: int) -> dict:
        with self._news:
            self._news.wait_for(lambda: self._ended or self._number > after, _WAIT)
            number, frame = self._number, self._frame
            if self._ended or frame is None or number <= after:
                return {"ended": self._ended}
        return {"number": number, "layer": layer, **self._describe(frame, layer, channel)}

    def _handler(outer):  # noqa: N805
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                host = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}").hostname
                address = urllib.parse.urlsplit(self.path)
                if host not in (HOST, "localhost"):
                    self.send_error(403)
                elif address.path == "/":
                    self._send(outer._page, "text/html; charset=utf-8")
                elif address.path == "/frame":
                    asked = urllib.parse.parse_qs(address.query)
                    try:
                        numbers = [int(asked[name][0]) for name in ("layer", "channel", "after")]
                        answer = outer._answer(*numbers)
                    except (KeyError, ValueError, IndexError, InputError):
                        self.send_error(400)
                    else:
                        self._send(json.dumps(answer).encode(), "application/json")
                else:
                    self.send_error(404)

            def _send(self, data, kind):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                try:
                    self.wfile.write(data)
                except ConnectionError:  # the browser has gone on
                    pass

            def log_message(self, *arguments):
                pass

        return Handler
