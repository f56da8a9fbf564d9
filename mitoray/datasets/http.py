"""One polite HTTP client: waits when told to, tries again what may pass, keeps tokens where they belong."""

import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from mitoray.errors import DatasetForbidden, DatasetUnreachable

TIMEOUT_S: Final = (30, 120)
"""Seconds to connect, and between two bytes."""

TOKENS: Final = {
    "figshare": ("FIGSHARE_TOKEN", "Authorization", "token {}"),
    "zenodo": ("ZENODO_TOKEN", "Authorization", "Bearer {}"),
    "gdc": ("GDC_TOKEN", "X-Auth-Token", "{}"),
    "github": ("GITHUB_TOKEN", "Authorization", "Bearer {}"),
}
"""Environment variable and header of each service's token. Open files need none."""

_MAY_PASS: Final = (408, 429, 500, 502, 503, 504)


class Client(requests.Session):
    """A session that honours `Retry-After` (up to ten minutes) and backs off on server errors: 2, 4, ... up to 60 s.

    The token in the service's environment variable goes to the host of `base` alone, redirects included.
    """

    def __init__(self, api: str, base: str) -> None:
        super().__init__()
        self.api, self.base = api, base.rstrip("/")
        # figshare answers too many requests with 403, and public listings are never forbidden there.
        retries = Retry(
            total=6,
            backoff_factor=1,
            backoff_max=60,
            backoff_jitter=1,
            status_forcelist=(*_MAY_PASS, 403) if api == "figshare" else _MAY_PASS,
            allowed_methods={"GET", "POST"},
            retry_after_max=600,
        )
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(max_retries=retries))
        self.headers["User-Agent"] = "mitoray"
        variable, header, form = TOKENS[api]
        self._secret = (header, form.format(os.environ[variable])) if os.environ.get(variable) else None
        self.auth = self._authorize

    def json(self, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """The API's answer at `base/path` to a GET, or to a POST of `body`.

        Raises DatasetForbidden, DatasetUnreachable.
        """
        method = "GET" if body is None else "POST"
        try:
            response = self.request(method, f"{self.base}/{path}", params=params, json=body, timeout=TIMEOUT_S)
            self.refuse(response, path)
            return response.json()
        except (requests.RequestException, ValueError) as error:
            raise DatasetUnreachable(
                f"{self.api} at {urlsplit(self.base).hostname} did not answer {path} ({type(error).__name__}). "
                "Check the network, or try again later."
            ) from error

    def refuse(self, response: requests.Response, name: str) -> None:
        """Raise a named error for an answer that no second try will better, requests' own for one that it may."""
        if response.status_code in (401, 403):
            raise DatasetForbidden(
                f"{self.api} does not hand out {name} (HTTP {response.status_code}). If access is controlled, put your "
                f"token into the environment variable {TOKENS[self.api][0]}."
            )
        response.raise_for_status()

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """After a redirect to another host: no token of ours in any header."""
        super().rebuild_auth(prepared_request, response)
        before, after = response.request.url or "", prepared_request.url or ""
        if self._secret and self.should_strip_auth(before, after):
            prepared_request.headers.pop(self._secret[0], None)

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._secret and urlsplit(request.url or "").netloc == urlsplit(self.base).netloc:
            request.headers[self._secret[0]] = self._secret[1]
        return request
