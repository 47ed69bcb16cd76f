"""Operations of a forward pass, against products counted by hand."""

import torch
from torch import nn

from pipeline.models.flops import count_forward_flops
from pipeline.models.network import Network, Output, build_network


class Two(Network):
    """A convolution, a classifier, and an auxiliary head that does not count."""

    stride, feature_channels = 2, 6

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.classifier = nn.Conv2d(6, 4, 1)
        self.auxiliary: nn.Module | None = nn.Conv2d(6, 4, 3)

    def forward(self, image: torch.Tensor) -> Output:
        features = self.body(image)
        auxiliary = None if self.auxiliary is None else self.auxiliary(features)
        return Output(self.classifier(features), features, auxiliary)


def test_a_forward_pass_by_hand() -> None:
    network = Two().train()
    cells = 8 * 12
    assert count_forward_flops(network, 16, 24) == 2 * cells * 6 * 27 + 2 * cells * 4 * 6
    assert network.training
    assert network.has_auxiliary


def test_counting_leaves_weights_and_randomness_alone() -> None:
    network = build_network("deeplabv3_mobilevit", 3).train()
    before, state = torch.get_rng_state(), {n: x.clone() for n, x in network.state_dict().items()}
    assert count_forward_flops(network, 32, 48) > 2e6
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(x, state[name]) for name, x in network.state_dict().items())
