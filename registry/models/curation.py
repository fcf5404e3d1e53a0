"""What curation remembers of its samples, so that new ones can be compared with all of them."""

from sqlalchemy import LargeBinary
from sqlmodel import Field, SQLModel

from registry.models.columns import reference, workload_column


class CuratedSignature(SQLModel, table=True):
    """The MinHashes of one sample: one byte for each permutation. Gone with their sample."""

    __tablename__ = "curated_signatures"

    training_data_id: str = reference("training_data.id", ondelete="CASCADE", primary_key=True)
    workload: str = workload_column()
    signature: bytes = Field(sa_type=LargeBinary, nullable=False)
    """Of request and answer together."""
    request_signature: bytes | None = Field(default=None, sa_type=LargeBinary)
    """Of the request alone; None where it is too short to have one."""
