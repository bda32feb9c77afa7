"""Products by oneDNN say what PyTorch's own say, and are gone after the block."""

import pytest
import torch
from torch import nn

from pairlora.adapters.onednn import ONEDNN, WORTHWHILE, onednn_products


@pytest.mark.skipif(ONEDNN is None, reason="this build of PyTorch has no oneDNN")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tokens", [4, 512])
def test_products_agree_to_float32(bias, tokens):
    """Small products stay with PyTorch, large ones go to oneDNN."""
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 96, bias=bias), torch.randn(3, tokens, 64)
    with torch.inference_mode():
        expected = layer(x)
        with onednn_products(layer):
            assert "forward" in vars(layer)
            found = layer(x)
    assert (x.numel() * 96 >= WORTHWHILE) == (tokens == 512)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_alone(dtype):
    layer = nn.Linear(8, 8).to(dtype)
    with onednn_products(layer):
        assert "forward" not in vars(layer)


def test_nothing_is_left_on_the_layers_and_what_others_put_there_stays():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    first, second = model
    own = first.forward = lambda x: x
    with pytest.raises(RuntimeError, match="on purpose"), onednn_products(model):
        raise RuntimeError("on purpose")
    assert first.forward is own
    assert "forward" not in vars(second)
