"""The attention of a network's layers, looked at while it runs; everything is as it was when the body ends."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any

from torch import Tensor, nn

__all__ = ["attention_layers", "watched"]

_Told = Callable[[nn.Module, Tensor | None, Tensor], Tensor]


def attention_layers(network: nn.Module) -> list[nn.Module]:
    """Return the attention layers: torch's own, and timm's, which pass attention through `attn_drop`."""
    return [
        module
        for module in network.modules()
        if isinstance(module, nn.MultiheadAttention)
        or (isinstance(getattr(module, "fused_attn", None), bool) and hasattr(module, "attn_drop"))
    ]


@contextmanager
def watched(layers: list[nn.Module], told: _Told) -> Iterator[None]:
    """Tell each layer's attention (N, heads, T, T) and output (N, T, K) while the body runs.

    What `told` returns takes the output's place. Attention is None where the layer did not compute any.
    """
    with ExitStack() as stack:
        for layer in layers:
            watch = _watch_torch if isinstance(layer, nn.MultiheadAttention) else _watch_timm
            watch(layer, told, stack)
        yield


def _watch_torch(layer: nn.Module, told: _Told, stack: ExitStack) -> None:
    """Let `nn.MultiheadAttention` compute the weights of each head, and hand on what it was asked for."""
    asked: list[dict[str, Any]] = []
    batch_first = layer.batch_first

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - torch's hook
        call = signature(module.forward).bind(*args, **kwargs)
        call.apply_defaults()
        asked.append(dict(call.arguments))
        call.arguments |= {"need_weights": True, "average_attn_weights": False}
        return call.args, call.kwargs

    def after(module: nn.Module, _args: object, output: tuple[Tensor, Tensor]) -> Any:  # noqa: ANN401
        mixed, weights = output
        call = asked.pop()
        mixed = told(module, weights, mixed if batch_first else mixed.transpose(0, 1))
        mixed = mixed if batch_first else mixed.transpose(0, 1)
        if not call["need_weights"]:
            return mixed, None
        return mixed, weights.mean(1) if call["average_attn_weights"] else weights

    stack.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
    stack.callback(layer.register_forward_hook(after).remove)


def _watch_timm(layer: nn.Module, told: _Told, stack: ExitStack) -> None:
    """Switch the fused kernel off, which has no attention to look at, and read what passes through the dropout."""
    seen: list[Tensor] = []

    def after(module: nn.Module, _args: object, output: Tensor) -> Tensor:
        attention = seen.pop() if seen else None
        return told(module, attention, output)

    stack.callback(setattr, layer, "fused_attn", layer.fused_attn)
    layer.fused_attn = False  # type: ignore[assignment]
    drop = layer.get_submodule("attn_drop")
    stack.callback(drop.register_forward_hook(lambda _, __, attention: seen.append(attention)).remove)
    stack.callback(layer.register_forward_hook(after).remove)
