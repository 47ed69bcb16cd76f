"""SKD: hand-worked numbers, and a critic that learns alone."""

import pytest
import torch

from pipeline.losses.skd import Critic, critic_loss, holistic, pairwise


def everywhere(x):
    return torch.ones(x.shape[0], *x.shape[2:], dtype=torch.bool)


def test_pairwise_hand_worked():
    # Two cells of 1 x 2 pixels: maxima of the student (1, 0) and (0, 1), of the teacher (1, 0)
    # and (3, 4)/5: G_s = I, G_t = [[1, .6], [.6, 1]], so the mean of 4 squares is .36 / 2.
    student = torch.tensor([[[[1.0, -5.0, 0.0, -1.0]], [[0.0, 0.0, -2.0, 1.0]]]])
    teacher = torch.tensor([[[[1.0, -5.0, 3.0, 1.0]], [[0.0, 0.0, 1.0, 4.0]]]])
    mean = pairwise(student, teacher, everywhere(student))
    assert mean.count == 4
    assert mean.value.item() == pytest.approx(0.18, rel=1e-6)


def test_pairwise_at_single_pixels():
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    teacher = torch.tensor([[[[2.0, 2.0]], [[0.0, 0.0]]]])
    mean = pairwise(student, teacher, everywhere(student), pool_size=1)
    assert mean.value == 0.5  # cosines 0 against 1, in two of the four pairs


@pytest.fixture
def critic():
    torch.manual_seed(0)
    return Critic(3, width=8)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (33, 16)])
def test_critic_scores_maps_of_any_size(critic, size):
    x = draw(0, 2, 3, *size)
    scores = critic(x, everywhere(x))
    assert scores.shape == (2,)
    assert scores.isfinite().all()


def test_critic_does_not_see_padding(critic):
    critic.eval()  # no power iteration between the two calls
    x = draw(1, 2, 3, 8, 8)
    inside = everywhere(x)
    inside[0, 4:] = False
    expected = critic(x, inside)
    x[0, :, 4:] = 1e3
    torch.testing.assert_close(critic(x, inside), expected)


def test_critic_is_lipschitz(critic):
    """Spectral norms of one keep a small step small."""
    for _ in range(30):
        critic(draw(2, 1, 3, 8, 8), torch.ones(1, 8, 8, dtype=torch.bool))
    norms = [torch.linalg.matrix_norm(m.weight.flatten(1), 2) for m in critic.near[::2]]
    assert all(norm.item() == pytest.approx(1, abs=0.05) for norm in norms)


def test_holistic_is_minus_the_mean_score_and_leaves_the_critic(critic):
    critic.eval()
    logits = draw(3, 2, 3, 8, 8).requires_grad_()
    mean = holistic(critic, logits, everywhere(logits))
    mean.value.backward()
    torch.testing.assert_close(mean.value, -critic(logits, everywhere(logits)).mean())
    assert logits.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in critic.parameters())


def test_critic_loss_is_the_hinge_and_leaves_the_student(critic):
    critic.eval()
    student, teacher = draw(4, 2, 3, 8, 8).requires_grad_(), draw(5, 2, 3, 8, 8)
    mean = critic_loss(critic, student, teacher, everywhere(student))
    mean.value.backward()
    real, fake = (critic(x, everywhere(x)) for x in (teacher, student))
    expected = (1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean()
    torch.testing.assert_close(mean.value, expected)
    assert student.grad is None
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in critic.parameters())


def test_hinge_by_hand():
    class Sum(torch.nn.Module):
        def forward(self, logits, inside):
            return logits.sum((1, 2, 3))

    teacher = torch.tensor([3.0, 0.5]).view(2, 1, 1, 1)  # hinge 0 and 0.5
    student = torch.tensor([0.25, -4.0]).view(2, 1, 1, 1)  # hinge 1.25 and 0
    mean = critic_loss(Sum(), student, teacher, everywhere(student))
    assert mean.value == (0.5 + 1.25) / 2


def test_an_image_of_padding_alone_does_not_count(critic):
    x = draw(6, 2, 3, 8, 8)
    inside = everywhere(x)
    inside[1] = False
    assert holistic(critic, x, inside).count == 1
