import copy

import pytest
import torch

from xpath.mil.bag import Bag
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.mil.prediction import predict
from xpath.mil.training import TrainConfig, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def bags(generator):
    return [
        Bag(
            torch.randn(n, 3, 4, generator=generator),
            torch.rand(n, 3, generator=generator) < 0.5,
            label=n % 2,
        )
        for n in (300, 1, 57, 40)
    ]


def test_cuda_answers_as_the_cpu_does(bags):
    torch.manual_seed(0)
    model = ObjectAwareMIL(4, 3, 2, average="present").double()
    wanted = predict(model, bags).logits

    found = predict(copy.deepcopy(model).cuda(), bags).logits

    assert abs(found - wanted).max() < 1e-9


def test_training_on_cuda_gives_the_weights_of_the_cpu(bags):
    torch.manual_seed(0)
    on_cpu = ObjectAwareMIL(4, 3, 2).double()
    on_cuda = copy.deepcopy(on_cpu).cuda()
    before = torch.cuda.get_rng_state()
    config = TrainConfig(lr=0.01, epochs=5, bags_per_step=2)

    train(on_cpu, bags, bags[:2], config)
    train(on_cuda, bags, bags[:2], config)

    weights = {name: value.cpu() for name, value in on_cuda.state_dict().items()}
    torch.testing.assert_close(weights, dict(on_cpu.state_dict()), atol=1e-6, rtol=0)
    assert torch.equal(torch.cuda.get_rng_state(), before)
