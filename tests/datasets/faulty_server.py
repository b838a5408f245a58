"""A web server between a client and a store that does what stores do on bad days."""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Fault = Callable[[str], str | None]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: 'FaultyServer'

    def do_GET(self) -> None:
        self._pass_on()

    def do_HEAD(self) -> None:
        self._pass_on()

    def log_message(self, *args) -> None:
        pass

    def _pass_on(self) -> None:
        self.server.asked.append((self.command, self.path))
        fault = self.server.fault(self.path) if self.command == 'GET' else None
        if fault in ('503', '403'):
            self.send_response(int(fault))
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        store = http.client.HTTPConnection(self.server.store)
        store.request(self.command, self.path, headers={
            name: value for name, value in self.headers.items() if name.lower() != 'host'})
        answer = store.getresponse()
        body = answer.read()
        store.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ('server', 'date', 'transfer-encoding', 'connection',
                                    'content-length'):
                self.send_header(name, value)
        self.send_header('Content-Length', answer.getheader('Content-Length') or str(len(body)))
        self.end_headers()
        if fault == 'cut':
            body, self.close_connection = body[:len(body) // 2], True
        for start in range(0, len(body), 4000):
            self.wfile.write(body[start:start + 4000])
            if fault == 'slow':
                self.wfile.flush()
                time.sleep(0.05)


class FaultyServer(ThreadingHTTPServer):
    """Passes everything on to a store; set ``fault`` to spoil answers.

    Attributes:
        fault: called with the path of a GET; 'slow', 'cut', '403', '503' or None.
        asked: (command, path) of every request.
    """

    def __init__(self, store: str):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.store = urlsplit(store).netloc
        self.fault: Fault = lambda path: None
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_port}'

    def first(self, count: int, fault: str, of: str = '.tar') -> None:
        """Spoil the first answers for paths that hold ``of``."""
        left = [fault] * count
        self.fault = lambda path: left.pop() if of in path and left else None


@contextlib.contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[ThreadingHTTPServer]:
    """Serve in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
