"""What a program needs to use the endpoint, or to log what something else has answered."""

from serving.client.client import Answer, AsyncClient, Client, Logged, Opinion, Page, Question
from serving.client.outbox import Drop
from serving.errors import ClientError

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "ClientError",
    "Drop",
    "Logged",
    "Opinion",
    "Page",
    "Question",
]
