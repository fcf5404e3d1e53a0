"""Splits a frozen base among the workers of a run: FSDP2, layer by layer.

Each worker keeps its share of every layer and borrows the others' while the layer
computes. The adapter's weights, the embeddings and the head stay whole on every worker,
so that gradients are added up and checkpoints written as they are without sharding.
"""

from __future__ import annotations

import torch
from peft import PeftModel
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from training.errors import BaseModelError
from training.losses import causal_model


def shard_base(model: PeftModel, *, device: torch.device) -> None:
    """Shards the layers of `model`, still on the CPU, and moves what is left to `device`.

    The process group is initialised; all workers call this. BaseModelError where the
    model's layers cannot be found.
    """
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    layers = getattr(causal_model(model).base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise BaseModelError(
            f"The layers of {type(causal_model(model)).__name__} cannot be found, so that it "
            "cannot be sharded (recipe: workers.shard_base)."
        )
    for layer in layers:
        adapter = {p for p in layer.parameters() if p.requires_grad}
        fully_shard(layer, mesh=mesh, ignored_params=adapter)
    nn.Module.to(model, device)
