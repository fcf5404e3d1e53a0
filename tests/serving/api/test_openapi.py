"""The OpenAPI document is complete, and the routes do what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.serving.conftest import Installation
from tests.serving.router import Live, live_router, running_router
from tests.support.fake_prefect import fake_prefect

NUM_EXAMPLES = 12
# Rules between fields, which a schema cannot tell: an example may break them.
HAS_CROSS_RULES = (
    "/v1/chat/completions",
    "/api/generate",
    "/api/feedback",
    "/api/interactions",
)

# A batch is taken with a verdict on each of its items.
JUDGES_ITEMS = ("/api/interactions",)


@pytest.fixture
def live(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    serving = installation.settings.serving.model_copy(update={"max_text_chars": 80})
    with fake_prefect() as prefect:
        monkeypatch.setenv("PREFECT_API_URL", prefect.url)
        with live_router(installation.settings.model_copy(update={"serving": serving})) as live:
            yield live


def document(live: Live) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{live.url}/openapi.json").json()
    return found


def test_every_operation_is_described(live: Live) -> None:
    found = document(live)
    operations = [
        (f"{method} {path}", operation)
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) > 15
    for name, operation in operations:
        assert operation["summary"], name
        assert operation["tags"], name
        assert {"200", "500", "503"} <= operation["responses"].keys(), name
    for name in ("GenerateRequest", "ChatRequest", "FeedbackRequest", "GenerateResponse"):
        assert found["components"]["schemas"][name]["examples"], name
    text = found["components"]["schemas"]["GenerateRequest"]["properties"]["text"]
    assert text["maxLength"] == 80
    assert "x-limit" not in str(found)
    assert "$defs" not in str(found)
    assert "HTTPValidationError" not in str(found)


@pytest.mark.parametrize("enabled", [False, True])
async def test_the_document_says_whether_a_credential_is_asked_for(
    installation: Installation, enabled: bool
) -> None:
    auth = installation.settings.auth.model_copy(update={"enabled": enabled})
    settings = installation.settings.model_copy(update={"auth": auth})
    async with running_router(settings) as router:
        found = (await router.client.get("/openapi.json")).json()
        # Pages that load scripts from elsewhere could do whatever their reader may.
        assert (await router.client.get("/docs")).status_code == 404
    assert found["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert found.get("security") == ([{"bearer": []}] if enabled else None)
    assert found["paths"]["/healthz"]["get"]["security"] == []


# The router under test runs in this process: a wait of its own between two tries
# draws from `random` while hypothesis builds a case.
@pytest.mark.filterwarnings(
    "ignore:Do not use the .random. module:hypothesis.errors.HypothesisDeprecationWarning"
)
@pytest.mark.timeout(600)
def test_the_routes_do_what_the_document_says(live: Live) -> None:
    found = document(live)
    # So that most of the requests reach a model.
    chat = found["components"]["schemas"]["ChatRequest"]["properties"]
    chat["model"] = {"enum": ["kalimtak", "kalimtak:champion"]}
    schema = schemathesis.openapi.from_dict(found)
    schema.config.update(base_url=live.url)
    failures, tried = [], 0
    for result in schema.get_all_operations():
        operation = result.ok()
        live.follow()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                tried += _try(operation, mode)
            except Unsatisfiable:
                # Without parameters there is nothing to get wrong.
                assert mode is GenerationMode.NEGATIVE
            except FailureGroup as group:
                failures += [f"{operation.label}: {failure}" for failure in group.exceptions]
    assert failures == []
    assert tried > 10 * NUM_EXAMPLES


def test_bounds_of_numbers_are_in_the_document(live: Live) -> None:
    text = json.dumps(document(live)["components"]["schemas"])
    # What pydantic calls them where it cannot translate them.
    assert not {'"ge"', '"le"', '"gt"', '"lt"'} & set(text.replace(":", " ").split())
    seed = document(live)["components"]["schemas"]["GenerateRequest"]["properties"]["seed"]
    assert seed["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}


def _try(operation: Any, mode: GenerationMode) -> int:
    tried = 0

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=NUM_EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Case) -> None:
        nonlocal tried
        tried += 1
        # Nor can it tell what a cursor of ours looks like.
        is_loose = case.path in HAS_CROSS_RULES or "cursor" in (case.query or {})
        excluded = [positive_data_acceptance] if is_loose else []
        if case.path in JUDGES_ITEMS:
            excluded.append(negative_data_rejection)
        case.call_and_validate(excluded_checks=excluded)

    check()
    return tried
