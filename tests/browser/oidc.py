"""A small OpenID Connect provider on this machine: it lets in, without asking, whoever `Provider.claims` says."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "mmn", "a secret of the test only"


class Provider:
    """What it tells of its only user, and the nonce of the login under way."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.claims = {"sub": "1", "email": "ada@example.test", "email_verified": True}
        self.key = RSAKey.generate_key(2048, {"kid": "1", "use": "sig", "alg": "RS256"})
        self.nonces: dict[str, str] = {}

    def configuration(self) -> dict:
        ends = {f"{name}_endpoint": f"{self.address}/{name}" for name in ("authorization", "token")}
        told = {"issuer": self.address, "jwks_uri": f"{self.address}/jwks"}
        algorithms = {"id_token_signing_alg_values_supported": ["RS256"], "subject_types_supported": ["public"]}
        return ends | told | algorithms | {"response_types_supported": ["code"]}

    def code(self, nonce: str) -> str:
        found = base64.urlsafe_b64encode(hashlib.sha256(nonce.encode()).digest()).decode()[:20]
        self.nonces[found] = nonce
        return found

    def token(self, code: str) -> dict:
        now = int(time.time())
        claims = self.claims | {"iss": self.address, "aud": CLIENT, "iat": now, "exp": now + 600}
        id_token = jwt.encode({"alg": "RS256", "kid": "1"}, claims | {"nonce": self.nonces.pop(code)}, self.key)
        return {"access_token": "x", "token_type": "Bearer", "expires_in": 600, "id_token": id_token}


def secrets_toml(provider: Provider) -> str:
    """What Streamlit's secrets must hold to log in at `provider`."""
    return f"""
[auth]
redirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"
cookie_secret = "{"c" * 40}"
client_id = "{CLIENT}"
client_secret = "{SECRET}"
server_metadata_url = "{provider.address}/.well-known/openid-configuration"
"""


def configure(provider: Provider, folder: Path) -> None:
    (folder / ".streamlit").mkdir(parents=True)
    (folder / ".streamlit" / "secrets.toml").write_text(secrets_toml(provider))


@contextmanager
def provided() -> Iterator[Provider]:
    """The provider, at a free port of this machine, ended in any case."""
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.provider
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def server_activate(self) -> None:
        super().server_activate()
        self.provider = Provider(f"http://127.0.0.1:{self.server_port}")


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        asked, provider = urlsplit(self.path), self.server.provider
        words = {name: values[0] for name, values in parse_qs(asked.query).items()}
        if asked.path == "/authorization":
            self.send_response(302)
            answer = {"code": provider.code(words["nonce"]), "state": words["state"]}
            self.send_header("Location", f"{words['redirect_uri']}?{urlencode(answer)}")
            self.end_headers()
        elif asked.path == "/jwks":
            self._answer({"keys": [provider.key.as_dict(private=False)]})
        else:
            self._answer(provider.configuration())

    def do_POST(self) -> None:
        words = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._answer(self.server.provider.token(words["code"][0]))

    def _answer(self, values: dict) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(values).encode())

    def log_message(self, *_words) -> None:
        pass
