"""What curation remembers of its samples, so that new ones can be compared with all of them."""

from sqlalchemy import LargeBinary
from sqlmodel import Field, SQLModel

from registry.models.columns import reference, workload_column


class CuratedSignature(SQLModel, table=True):
    """The MinHash of one sample: one byte for each permutation. Gone with its sample."""

    __tablename__ = "curated_signatures"

    training_data_id: str = reference("training_data.id", ondelete="CASCADE", primary_key=True)
    workload: str = workload_column()
    signature: bytes = Field(sa_type=LargeBinary, nullable=False)
