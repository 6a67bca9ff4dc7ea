import torch
from torch import nn

from xpath.segment.model.attention import Attention, sine_positions


def test_attention_equals_torchs_own():
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    query, keys, values = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    blocked = torch.rand(5, 7) > 0.5
    blocked[:, 0] = False

    found = ours(query, ours.project(keys, values), ~blocked)

    wanted, _ = theirs(query, keys, values, attn_mask=blocked)
    torch.testing.assert_close(found, wanted)


def test_sine_positions_by_hand():
    """At (y, x) = (1, 1) of a 2 x 4 map with 8 features: y angle pi, x angle pi/2."""
    position = sine_positions(2, 4, 8, torch.device("cpu"))[0, :, 0, 0]

    slow = 10000**0.5  # wavelength of the second pair of each half
    y, x = torch.tensor(torch.pi), torch.tensor(torch.pi / 2)
    wanted = [y.sin(), y.cos(), (y / slow).sin(), (y / slow).cos()]
    wanted += [x.sin(), x.cos(), (x / slow).sin(), (x / slow).cos()]
    torch.testing.assert_close(position, torch.stack(wanted), atol=1e-5, rtol=0)
