"""A visitor without a browser: opens the app's socket with headers of its own choice and reads what is drawn."""

from socket import create_connection
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol


def drawn(address: str, origin: str | None = "", query: str = "", **headers: str) -> str:
    """All messages of one script run as text.

    Args:
        address: of the app.
        origin: what the visitor says that it comes from; empty is the app itself, None nothing at all.
        query: of the address.
        headers: further ones, `_` for `-`; `Host` in place of the app's own.
    """
    host = urlsplit(address).netloc
    named = {name.replace("_", "-"): value for name, value in headers.items() if name != "Host"}
    uri = f"ws://{headers.get('Host', host)}/_stcore/stream"
    with connect(
        uri,
        sock=create_connection((urlsplit(address).hostname, urlsplit(address).port)),
        origin=None if origin is None else Origin(origin or address),
        subprotocols=[Subprotocol("streamlit")],
        additional_headers=named,
        max_size=None,
        proxy=None,
    ) as socket:
        asked = BackMsg()
        asked.rerun_script.query_string = query
        socket.send(asked.SerializeToString())
        messages: list[ForwardMsg] = []
        while not messages or messages[-1].WhichOneof("type") != "script_finished":
            messages.append(ForwardMsg.FromString(socket.recv(timeout=60)))
        return "\n".join(map(str, messages))
