"""Weights to begin a training with: a ResNet-18 trained on ImageNet, or any bundle."""

import io
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn
from torchvision.models import ResNet18_Weights

from mitoray.errors import BadModel, BadOption, RefusedUri
from mitoray.models.boxes import BoxNet
from mitoray.models.sources import load_bundle, without_secrets
from mitoray.uris import read_file

IMAGENET: Final = "imagenet"

_BODY: Final = {
    **{f"{name}.": f"backbone.stem.{name}." for name in ("conv1", "bn1")},
    **{f"layer{i + 1}.": f"backbone.layers.{i}." for i in range(4)},
}

_COUNTER: Final = ".num_batches_tracked"
"""Of batch norms; torchvision's published weights are older than it, and it changes nothing."""


def initial_weights(
    uri: str, network: nn.Module, storage_options: Mapping[str, Any] | None = None
) -> dict[str, torch.Tensor]:
    """All weights of the network, with those at `uri` in their places.

    uri: "imagenet" (downloaded by torchvision, 45 MB, once); a .safetensors file, or a .pth file of plain tensors, of
    torchvision's ResNet-18, by path or fsspec URI; or a bundle of the same architecture, as `load_bundle` takes them.
    A .pth file is read by torch's tensors-only reader, which refuses everything that could run code. Raises BadModel
    for what cannot be had or does not fit, BadOption for a network without a ResNet-18.
    """
    shown, suffix = without_secrets(uri), PurePosixPath(uri.partition("?")[0]).suffix
    if uri != IMAGENET and suffix not in (".safetensors", ".pth"):
        return _fitting(dict(load_bundle(uri, storage_options).weights), network, shown)
    if not isinstance(network, BoxNet):
        raise BadOption(
            f"{shown}: only retinanet and fcos have a ResNet-18; begin others with a bundle, or from scratch"
        )
    renamed = {
        ours + name.removeprefix(theirs): tensor
        for name, tensor in _resnet(uri, suffix, storage_options, shown).items()
        for theirs, ours in _BODY.items()
        if name.startswith(theirs)
    }
    body = {name for name in network.state_dict() if name.startswith(tuple(_BODY.values()))}
    needed = {name for name in body if not name.endswith(_COUNTER)}
    if missing := sorted(needed - renamed.keys()):
        raise BadModel(f"{shown}: no ResNet-18: it lacks {len(missing)} tensors, first that for {missing[0]!r}")
    return _fitting({**network.state_dict(), **renamed}, network, shown)


def _resnet(uri: str, suffix: str, storage_options: Mapping[str, Any] | None, shown: str) -> dict[str, torch.Tensor]:
    try:
        if uri == IMAGENET:
            return dict(
                ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True, weights_only=True)
            )
        content = read_file(uri, storage_options)
        if suffix == ".safetensors":
            return safetensors.torch.load(content)
        state = dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        return {str(name): tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    except RefusedUri:
        raise
    except SafetensorError as error:
        raise BadModel(f"{shown}: truncated or not safetensors ({error}); copy it again") from error
    except Exception as error:  # each storage, and torch's reader, raise classes of their own
        raise BadModel(
            f"{shown}: cannot be read as weights ({type(error).__name__}); check the address, and that the file holds "
            "tensors only"
        ) from error


def _fitting(state: dict[str, torch.Tensor], network: nn.Module, shown: str) -> dict[str, torch.Tensor]:
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    wrong = sorted(n for n in expected.keys() | state.keys() if n not in state or expected.get(n) != state[n].shape)
    if wrong:
        raise BadModel(f"{shown}: weights of another network: {len(wrong)} tensors differ, first {wrong[0]!r}")
    return state
