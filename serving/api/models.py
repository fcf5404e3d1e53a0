"""GET /v1/models: what can be asked for by name."""

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, select

from registry.db import is_unavailable
from registry.models import ModelVersion
from serving import naming
from serving.access.auth import PrincipalDep
from serving.api.service import Service, ServiceDep

router = APIRouter(tags=["OpenAI"])


class Model(BaseModel):
    """A model as OpenAI's API shows it."""

    id: str
    object: str = "model"
    created: int
    """When the version was made; 0 for names that stand for different ones over time, and while
    the database is away."""
    owned_by: str = "kalimtak"


class ModelList(BaseModel):
    """All models."""

    object: str = "list"
    data: list[Model]


@router.get("/v1/models")
async def list_models(service: ServiceDep, _caller: PrincipalDep) -> ModelList:
    """Every name that can be asked for: workloads, their champions and challengers, versions."""
    states = service.state.states()
    names = naming.names(states, base_model=service.settings.training.base_model)
    created = await asyncio.to_thread(_created, service, names)
    return ModelList(data=[Model(id=name, created=created.get(name, 0)) for name in names])


# Of type "path", since a name may hold slashes.
@router.get("/v1/models/{model:path}")
async def get_model(model: str, service: ServiceDep, _caller: PrincipalDep) -> Model:
    """One name, if it is served."""
    service.target(model)
    created = await asyncio.to_thread(_created, service, [model])
    return Model(id=model, created=created.get(model, 0))


def _created(service: Service, names: list[str]) -> dict[str, int]:
    query = select(ModelVersion.version, ModelVersion.created_at).where(
        col(ModelVersion.version).in_(names)
    )
    try:
        with service.database.read() as session:
            found = session.exec(query).all()
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        # What can be asked for is known all the same.
        return {}
    return {version: int(created_at.timestamp()) for version, created_at in found}
