"""`kalimtak lineage`: what a version learned from, and what was made of an interaction."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from flows.context import open_context
from registry import ancestry
from registry.ancestry import (
    DatasetLineage,
    DatasetNode,
    InteractionLineage,
    VersionLineage,
    VersionNode,
)

SHOWN_DIGITS = 12
console = Console()


def show_lineage(
    name: Annotated[str, typer.Argument(help="A version, a dataset's id or an interaction's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Version → parents and datasets; interaction → samples, datasets and versions."""
    with open_context().database.read() as session:
        kind = ancestry.kind_of(session, name)
        found: VersionLineage | DatasetLineage | InteractionLineage
        if kind == "version":
            found = ancestry.of_version(session, name)
        elif kind == "dataset":
            found = ancestry.of_dataset(session, name)
        else:
            found = ancestry.of_interaction(session, name)
    if as_json:
        told = {"kind": kind, **asdict(found)}
        sys.stdout.write(json.dumps(told, indent=2, default=str) + "\n")
        return
    console.print(tree_of(found), highlight=False)


def tree_of(found: VersionLineage | DatasetLineage | InteractionLineage) -> Tree:
    """The lineage as a tree to print."""
    if isinstance(found, VersionLineage):
        return _version_tree(found)
    if isinstance(found, DatasetLineage):
        tree = Tree(_dataset(found.dataset))
    else:
        tree = _interaction_tree(found)
    for version in found.versions:
        tree.add(f"version {escape(version)} learned from it")
    for version in found.descendants:
        tree.add(f"version {escape(version)} went on from one that did")
    return tree


def _version_tree(found: VersionLineage) -> Tree:
    tree = Tree(_version(found.line[0]))
    branch = tree
    for node, parent in zip(found.line, [*found.line[1:], None], strict=True):
        if node.dataset is not None:
            branch.add(_dataset(node.dataset))
        if parent is not None:
            branch = branch.add(f"went on from {_version(parent)}")
        else:
            branch.add(f"base {escape(node.base_model)}")
    for version in found.descendants:
        tree.add(f"version {escape(version)} went on from it")
    tree.add(f"learned from {found.num_interactions} interactions in all")
    return tree


def _interaction_tree(found: InteractionLineage) -> Tree:
    by = found.answered_by or "the base model, or a model from elsewhere"
    tree = Tree(
        f"interaction {escape(found.interaction_id)}, {found.created_at:%Y-%m-%d %H:%M} UTC, "
        f"answered by {escape(by)}"
    )
    for sample in found.samples:
        state = "selected" if sample.is_selected else f"left out: {sample.rejection_reason}"
        branch = tree.add(f"sample {sample.id} ({sample.source}, {sample.split}, {escape(state)})")
        for dataset in sample.datasets:
            branch.add(_dataset(dataset))
    if not found.samples:
        tree.add("nothing was curated from it")
    return tree


def _version(node: VersionNode) -> str:
    return (
        f"version {escape(node.version)} ({node.status}), "
        f"adapter {node.adapter_digest[:SHOWN_DIGITS]}"
    )


def _dataset(node: DatasetNode) -> str:
    parts = [f"{node.num_train} to train on", f"{node.num_validation} to validate with"]
    if node.num_rehearsal:
        parts.append(f"{node.num_rehearsal} rehearsed")
    if node.num_present is not None and node.num_present < node.num_samples:
        parts.append(f"{node.num_samples - node.num_present} erased since")
    if node.num_interactions is not None:
        parts.append(f"from {node.num_interactions} interactions")
    return f"dataset {node.id}, digest {node.digest[:SHOWN_DIGITS]}: {', '.join(parts)}"
