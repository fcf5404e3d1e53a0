"""Starts deployments on the Prefect server, over its REST API."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from registry.errors import NotFoundError
from registry.settings import Settings
from serving.errors import OrchestratorError

CURATE, RETRAIN = "curate/daily", "retrain/weekly"
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class FlowRun:
    """A run that was asked for; a worker takes it up."""

    id: str
    name: str
    url: str
    """Its page in Prefect's UI."""


class PrefectApi:
    """One Prefect server."""

    def __init__(self, url: str, *, login: str | None = None, key: str | None = None) -> None:
        """`url` ends in /api; `login` (user:password) is sent in place of `key`, a bearer token."""
        self._url = url.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        if login is not None:
            self._headers = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}

    async def start(self, deployment: str, parameters: Mapping[str, Any]) -> FlowRun:
        """Have `flow/deployment` run. Raises `OrchestratorError` or `NotFoundError`."""
        try:
            async with httpx.AsyncClient(headers=self._headers, timeout=TIMEOUT_S) as client:
                found = await client.get(f"{self._url}/deployments/name/{deployment}")
                if found.status_code == httpx.codes.NOT_FOUND:
                    raise NotFoundError(
                        f"the Prefect server at {self._url} has no deployment '{deployment}': "
                        "run 'prefect deploy --all --no-prompt'"
                    )
                created = await client.post(
                    f"{self._url}/deployments/{_json(found)['id']}/create_flow_run",
                    json={"parameters": dict(parameters), "state": {"type": "SCHEDULED"}},
                )
                run = _json(created)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise OrchestratorError(
                f"the Prefect server at {self._url} cannot be used: {error or type(error).__name__}"
            ) from error
        page = f"{self._url.removesuffix('/api')}/runs/flow-run/{run['id']}"
        return FlowRun(str(run["id"]), str(run["name"]), page)


def prefect_api(settings: Settings, environment: Mapping[str, str]) -> PrefectApi:
    """The server that `PREFECT_API_URL` names, else the one that `kalimtak up` starts."""
    url = environment.get("PREFECT_API_URL") or settings.prefect.url
    login = environment.get("PREFECT_API_AUTH_STRING")
    return PrefectApi(url, login=login, key=environment.get("PREFECT_API_KEY"))


def _json(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.raise_for_status().json()
    return found
