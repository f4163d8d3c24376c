"""Who may use the app? On this machine, everyone who can reach it; beyond it, nobody unless its owner says how.

Beyond this machine means: the server listens on an address that others reach, or the visitor came through a proxy that
others reach (its headers say so). There a login must be configured (Streamlit's OpenID Connect, `[auth]` in its
secrets.toml), or MMN_TRUSTED_NETWORK=1 say that everyone on the network may do everything. Where a login is configured,
it is asked for on this machine, too. And pictures, models and deltas are then read from MMN_ROOTS and the app's own
folders alone (`mmn.safety.roots`).

`refusal` is asked at the beginning of every script run, before anything of the results is opened; fragments run again
without it, but only in sessions that it has let in.

Left out: the socket itself. Streamlit accepts a connection that names no origin, as programs make them, and has no
option against it; such a visitor counts as one from beyond and, where there is a login, as not logged in.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import streamlit as st
from streamlit import config
from streamlit.errors import StreamlitAuthError, StreamlitSecretNotFoundError

from app.text import plain
from mmn.safety import roots

TRUSTED: Final = "MMN_TRUSTED_NETWORK"
ROOTS: Final = "MMN_ROOTS"
USERS: Final = "MMN_USERS"
LOGIN_BROKEN: Final = "The login cannot be set up"
OWN_FOLDERS: Final = ("uploads", "images", "edits")  # of the cache: what the app and its jobs write themselves


def refusal() -> Callable[[], None] | None:
    """What is to be drawn in place of every page; None where the visitor may use the app."""
    try:
        login = _login_settings()
    except StreamlitSecretNotFoundError as error:
        return partial(_tell, LOGIN_BROKEN, f"Streamlit's secrets cannot be read: {plain(error)}. Correct the file.")
    if login is None:
        return None if _is_near() or os.environ.get(TRUSTED) == "1" else _tell_not_open
    if importlib.util.find_spec("authlib") is None:
        return partial(
            _tell, LOGIN_BROKEN, "A login is configured, but Authlib is missing: `pip install Authlib httpx`."
        )
    if st.user.get("is_logged_in") is not True:
        return partial(_offer_login, login)
    return None if _is_wanted(st.user) else _tell_not_wanted


def must_confine() -> bool:
    """Whether only what MMN_ROOTS names may be read."""
    return not _is_near() or bool(os.environ.get(ROOTS))


def confine(cache_path: Path) -> None:
    """Lets this process and its jobs read from MMN_ROOTS and the app's own folders alone, from now on."""
    if not roots.is_confined():
        st.cache_data.clear()  # pictures that were read before
    roots.confine([*allowed_folders(), *(cache_path / name for name in OWN_FOLDERS)])


def allowed_folders() -> list[Path]:
    """The folders of MMN_ROOTS."""
    return [Path(folder).expanduser() for folder in os.environ.get(ROOTS, "").split(os.pathsep) if folder.strip()]


def show_visitor() -> None:
    """Who is logged in, and the way out; nothing where no login is configured."""
    if st.user.get("is_logged_in") is not True:
        return
    st.caption(f"Logged in as {plain(_name(st.user))}")
    st.button("Log out", icon=":material/logout:", on_click=st.logout)


def _is_near() -> bool:
    return is_loopback(st.get_option("server.address")) and _came_from_here(st.context.headers)


@lru_cache(maxsize=8)
def is_loopback(address: str | None) -> bool:
    """Whether only this machine reaches a server at `address`; None, Streamlit's own default, is every network."""
    if not address:
        return False
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(address, None)}
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(_is_loopback_number(one) for one in found)


def _is_loopback_number(text: str) -> bool:
    try:
        number = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return (getattr(number, "ipv4_mapped", None) or number).is_loopback


def _came_from_here(headers: Mapping[str, str]) -> bool:
    """Whether the browser spoke to this machine by its own name: through a proxy, or from a page that rebound a name
    of its own to this machine, it does not.

    Nobody is connected where there are no headers: a test runs the script, or the visitor has just left and may come
    back to what it draws.
    """
    if not headers:
        return bool(config.get_option("global.appTest"))  # which only AppTest sets, and not for `st.get_option`
    visitor = st.context.ip_address
    is_direct = visitor is None or _is_loopback_number(visitor)
    is_passed_on = any(headers.get(name) for name in ("X-Forwarded-For", "Forwarded"))
    return (
        is_direct
        and not is_passed_on
        and _is_own_name(f"//{headers.get('Host', '')}")
        and _is_own_name(headers.get("Origin", ""))
    )


def _is_own_name(address: str) -> bool:
    """Whether the host of a URL is this machine by its own name; nothing is asked of a name server."""
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or host.endswith(".localhost") or _is_loopback_number(host)


def _login_settings() -> Mapping[str, Any] | None:
    """The `[auth]` of Streamlit's secrets; None where there is none.

    Raises:
        StreamlitSecretNotFoundError: the file cannot be read: then there may be one.
    """
    try:
        return st.secrets.get("auth")
    except StreamlitSecretNotFoundError as error:
        if error.error_id == "no-secrets-found":
            return None
        raise


def _offer_login(settings: Mapping[str, Any]) -> None:
    st.title("Multimodal neurons")
    st.markdown("Please log in. Nothing is shown or started before that.")
    named = [name for name, value in settings.items() if isinstance(value, Mapping) and name != "client_kwargs"]
    for provider in [None] * ("client_id" in settings or not named) + named:
        label = f"Log in with {plain(provider)}" if provider else "Log in"
        if st.button(label, type="primary", icon=":material/login:", key=f"login-{provider}"):
            try:
                st.login(provider)
            except StreamlitAuthError as error:
                st.error(f"The login configuration is incomplete: {plain(error)}", icon=":material/error:")


def _is_wanted(user: Mapping[str, Any]) -> bool:
    """Whether MMN_USERS names the visitor: addresses, or @domains of addresses that the provider has verified."""
    wanted = {one.strip().lower() for one in os.environ.get(USERS, "").split(",") if one.strip()}
    email = str(user.get("email") or "").lower()
    is_known = email in wanted or f"@{email.rpartition('@')[2]}" in wanted
    return not wanted or (bool(email) and is_known and user.get("email_verified", True) is not False)


def _name(user: Mapping[str, Any]) -> str:
    return str(user.get("email") or user.get("name") or user.get("sub") or "an account without a name")


def _tell_not_wanted() -> None:
    _tell("This account has no access", f"{plain(_name(st.user))} is not among the users of this server.")
    st.button("Log out", icon=":material/logout:", on_click=st.logout)


def _tell_not_open() -> None:
    _tell(
        "Not open to the network",
        "Other machines can reach this server, and no login is configured. Anyone who opens it could read pictures "
        "and start jobs, so it shows nothing.",
        "**If you did not intend that**, start it so that only this machine reaches it, and without a proxy: "
        "`streamlit run app/main.py --server.address localhost`.",
        "**To let others use it**, configure a login: `[auth]` in Streamlit's `secrets.toml` (`docs/server.md`).",
        f"**If everyone on the network may do everything**, set `{TRUSTED}=1`.",
        "In both cases name the folders of pictures and models that the app may read: "
        f"`{ROOTS}=/data/pictures:/models`. Then start it again.",
    )


def _tell(title: str, problem: str, *remedies: str) -> None:
    st.title(title)
    st.error(problem, icon=":material/public_off:")
    for one in remedies:
        st.markdown(one)
