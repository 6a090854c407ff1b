"""The smoke test's question to an endpoint that wants a key."""

from __future__ import annotations

import io
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
import soundfile
from loopback import serving

from serving.smoke import KEY, check_endpoint
from sonarc.contracts.errors import ServingError

RATE = 44_100


class Guarded(BaseHTTPRequestHandler):
    """Answers with half a second of sound, to who has the key."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        known = self.headers.get("Authorization") == "Bearer sonarc-right"
        sound = io.BytesIO()
        soundfile.write(sound, np.full((RATE // 2, 2), 0.1), RATE, format="WAV")
        self.send_response(200 if known else 401)
        self.send_header("x-sonarc-package", "ab" * 32)
        self.end_headers()
        self.wfile.write(sound.getvalue() if known else b"{}")

    def log_message(self, *args: object) -> None:
        pass


def test_it_asks_with_the_key_of_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Guarded) as port:
        address = f"http://127.0.0.1:{port}"
        monkeypatch.setenv(KEY, "sonarc-right")
        report = check_endpoint(address, seconds=0.5, package_sha256="ab" * 32)
        assert report.peak == pytest.approx(0.1, abs=1e-3)
        monkeypatch.delenv(KEY)
        with pytest.raises(ServingError, match=r"wants a key") as caught:
            check_endpoint(address, seconds=0.5, package_sha256="ab" * 32)
        assert KEY in caught.value.hint
